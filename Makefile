# bertsmith: two commands do all the set-up, `make demo` and `make test`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo
TRANSFORMERS4 := $(VENV)/transformers4
TENSORFLOW := $(VENV)/tensorflow
RAY := $(VENV)/ray
# Tests run in as many processes as there are cores, each with what others have left of the list.
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist worksteal
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check bench format clean

demo: $(VENV)/.run
	$(BIN)/bertsmith demo --out $(DEMO) --overwrite

# Every test, as CI runs them, with transformers 4 beside 5, TensorFlow and Ray.
test: $(VENV)/.dev $(TRANSFORMERS4)/.done $(TENSORFLOW)/.done $(RAY)/.done
	BERTSMITH_TRANSFORMERS4=$(abspath $(TRANSFORMERS4)) BERTSMITH_TENSORFLOW=$(abspath $(TENSORFLOW)) \
	  BERTSMITH_RAY=$(abspath $(RAY)) $(BIN)/python -m pytest -q $(SIDE_BY_SIDE)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) -m "not slow"

bench: $(VENV)/.dev
	for script in benchmarks/*.py; do $(BIN)/python $$script --quick || exit 1; done

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "bertsmith needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@ $(VENV)/.run

# The last transformers 4, in a folder of its own: one test loads our tokenizers there.
$(TRANSFORMERS4)/.done: $(VENV)/.dev
	$(BIN)/python -m pip install -q --no-deps --upgrade --target $(TRANSFORMERS4) \
	  'transformers==4.57.*' 'huggingface-hub<1' 'tokenizers<0.23' requests urllib3 certifi charset-normalizer
	touch $@

# TensorFlow (1.5 GB), in a folder of its own: one test has it write a checkpoint that we read. It has no wheels for
# some machines; there that test is skipped, and says so.
$(TENSORFLOW)/.done: $(BIN)/python constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt --upgrade --target $(TENSORFLOW) tensorflow-cpu \
	  && touch $@ || echo "tensorflow-cpu cannot be installed here; tests that read its checkpoints are skipped"

# Ray, in a folder of its own: one test has it make the shards that `prepare` makes without it.
$(RAY)/.done: $(BIN)/python constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt --upgrade --target $(RAY) 'ray[data]' \
	  && touch $@ || echo "Ray cannot be installed here; the test that needs it is skipped"
