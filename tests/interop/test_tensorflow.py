"""Whole TensorFlow checkpoints, written and read in processes that have TensorFlow.

`BERTSMITH_TENSORFLOW` names a folder with TensorFlow, which `make test` fills; it comes onto the path of the
subprocesses only:

    pip install -c constraints.txt --target DIR tensorflow-cpu
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.bundle import load_bundle
from tests.interop.tensorflow_names import DERIVED, FINE_TUNED, PRETRAINING, SHAPE
from tests.parity.reference import redraw

WRITE = """
import sys
import numpy, tensorflow as tf
arrays, prefix, objects = sys.argv[1:]
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    with numpy.load(arrays) as file:
        for name in file.files:
            tf.compat.v1.get_variable(name, initializer=file[name])
    tf.compat.v1.get_variable("brain/kernel", initializer=tf.constant([[0.5, 1.0, 1.5]], tf.bfloat16))
    session.run(tf.compat.v1.global_variables_initializer())
    tf.compat.v1.train.Saver().save(session, prefix)
tf.train.Checkpoint(kernel=tf.Variable([1.0, 2.0])).write(objects)
"""
READ = """
import json, os, sys
from pathlib import Path
from safetensors.torch import save_file
from bertsmith.errors import InputError
from bertsmith.interop.tensorflow import read_tensorflow
answers = {}
for name in sys.argv[2:]:
    try:
        save_file(read_tensorflow(Path(name)), name + ".safetensors")
    except InputError as error:
        answers[Path(name).name] = error.lines()
assert not os.environ.keys() & {"TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS", "CUDA_VISIBLE_DEVICES"}
Path(sys.argv[1]).write_text(json.dumps(answers))
"""


def run(script: str, *arguments: Path, path: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(path), "OMP_WAIT_POLICY": "PASSIVE"}
    environment = {name: value for name, value in environment.items() if not name.startswith(("TF_", "CUDA_"))}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=500)


def test_importing_the_module_imports_no_tensorflow(tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('imported')\n")
    process = run("import bertsmith.interop.tensorflow", path=tmp_path)
    assert (process.returncode, process.stderr) == (0, "")


@dataclass
class Checkpoints:
    """What one process read of a checkpoint and of damaged copies of it."""

    expected: dict[str, Tensor]
    directory: Path
    stderr: str
    errors: dict[str, list[str]]
    """Lines of the `InputError`, for each prefix that was refused."""

    def read(self, prefix: str) -> dict[str, Tensor]:
        return load_file(self.directory / f"{prefix}.safetensors")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    folder = os.environ.get("BERTSMITH_TENSORFLOW", "")
    if not folder or not (Path(folder) / "tensorflow").is_dir():
        pytest.skip("BERTSMITH_TENSORFLOW does not name a folder with TensorFlow (see the top of this file)")
    directory = tmp_path_factory.mktemp("check points *")  # TensorFlow takes patterns in some places
    model = transformers.BertForPreTraining(transformers.BertConfig(**SHAPE))
    redraw(model)
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in DERIVED}
    fine_tuned = {"classifier.weight": (3, 16), "classifier.bias": (3,), "qa_outputs.weight": (2, 16)}
    state |= {name: torch.randn(shape) for name, shape in (fine_tuned | {"qa_outputs.bias": (2,)}).items()}
    arrays = {}
    for variable, name in (PRETRAINING | dict(FINE_TUNED)).items():
        value = state[name].numpy()
        arrays[variable] = value.T if variable.endswith("/kernel") else value
        arrays |= {f"{variable}/{slot}": np.ones_like(arrays[variable]) for slot in ("adam_m", "adam_v")}
    arrays |= {"global_step": np.array(900, dtype=np.int64), "seen/examples": np.array(7, dtype=np.int32)}
    np.savez(directory / "arrays.npz", **arrays)
    written = run(
        WRITE, directory / "arrays.npz", directory / "bert_model.ckpt", directory / "object.ckpt", path=Path(folder)
    )
    assert written.returncode == 0, written.stderr
    damaged = {name: directory / f"{name}.ckpt" for name in ("short", "flipped", "empty", "[x]")}
    for copy in damaged.values():
        for part in ("index", "data-00000-of-00001"):
            shutil.copy(f"{directory / 'bert_model.ckpt'}.{part}", f"{copy}.{part}")
    data = {name: Path(f"{copy}.data-00000-of-00001") for name, copy in damaged.items()}
    content = data["short"].read_bytes()
    data["short"].write_bytes(content[: len(content) // 2])
    middle = arrays["bert/embeddings/word_embeddings"].tobytes()[:64]
    data["flipped"].write_bytes(content.replace(middle, middle[:-1] + bytes([middle[-1] ^ 1])))
    index = Path(f"{damaged['empty']}.index")
    index.write_bytes(index.read_bytes()[:100])
    prefixes = [directory / "bert_model.ckpt", directory / "object.ckpt", *damaged.values()]
    process = run(READ, directory / "answers.json", *prefixes, path=Path(folder))
    assert process.returncode == 0, process.stderr
    errors = json.loads((directory / "answers.json").read_text())
    state["brain.weight"] = torch.tensor([[0.5], [1.0], [1.5]])
    return Checkpoints(expected=state, directory=directory, stderr=process.stderr, errors=errors)


def test_a_checkpoint_that_tensorflow_wrote_gives_every_weight_and_nothing_else(checkpoints: Checkpoints) -> None:
    read = checkpoints.read("bert_model.ckpt")
    assert read.keys() == checkpoints.expected.keys()
    for name, tensor in checkpoints.expected.items():
        assert read[name].dtype is torch.float32
        assert torch.equal(read[name], tensor.float()), name


def test_transformers_loads_what_was_read(checkpoints: Checkpoints) -> None:
    model = transformers.BertForPreTraining(transformers.BertConfig(**SHAPE))
    left = model.load_state_dict(checkpoints.read("bert_model.ckpt"), strict=False)
    assert set(left.missing_keys) <= DERIVED
    assert {name.split(".")[0] for name in left.unexpected_keys} == {"classifier", "qa_outputs", "brain"}


def test_convert_gives_the_outputs_of_transformers_with_the_tanh_gelu(checkpoints: Checkpoints, tmp_path: Path) -> None:
    names = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.1)
    config = SHAPE | names | {"hidden_act": "gelu", "type_vocab_size": 2, "initializer_range": 0.02}
    (checkpoints.directory / "bert_config.json").write_text(json.dumps(config))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqr"]
    (checkpoints.directory / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    command = "import sys; from bertsmith.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = (Path("convert"), checkpoints.directory / "bert_model.ckpt", Path("--out"), tmp_path / "out")
    process = run(command, *words, path=Path(os.environ["BERTSMITH_TENSORFLOW"]))
    assert process.returncode == 0, process.stderr
    assert "brain.weight" in process.stdout
    bundle = load_bundle(tmp_path / "out")
    assert bundle.tokenizer.encode("B a").ids == [2, 6, 5, 3]
    theirs = transformers.BertForPreTraining(transformers.BertConfig(**config | {"hidden_act": "gelu_new"})).eval()
    theirs.load_state_dict(checkpoints.read("bert_model.ckpt"), strict=False)
    ids = torch.tensor([[2, 7, 9, 22, 3]])
    types = torch.tensor([[0, 0, 1, 1, 1]])
    batch = Batch.from_dense(ids, None, types)
    with torch.no_grad():
        expected = theirs(ids, token_type_ids=types)
        states = bundle.model.encoder(batch)
        logits = bundle.model.masked_lm_logits(states)[:, :23]
        torch.testing.assert_close(logits, expected.prediction_logits[0], rtol=1e-5, atol=1e-4)
        follows = bundle.model.next_sentence_logits(bundle.model.pool(states, batch))
    torch.testing.assert_close(follows, expected.seq_relationship_logits, rtol=1e-5, atol=1e-4)


def test_tensorflow_prints_nothing_and_leaves_our_switches_out_of_the_environment(checkpoints: Checkpoints) -> None:
    assert checkpoints.stderr == ""  # the process itself asserts the environment


@pytest.mark.parametrize(
    ("prefix", "file", "message"),
    [
        ("short.ckpt", "short.ckpt.data-00000-of-00001", "the file is damaged or incomplete"),
        ("flipped.ckpt", "flipped.ckpt.data-00000-of-00001", "variable bert/embeddings/word_embeddings cannot be read"),
        ("empty.ckpt", "empty.ckpt.index", "not a readable TensorFlow checkpoint"),
        ("[x].ckpt", "[x].ckpt.index", "cannot open a path with ["),
        ("object.ckpt", "object.ckpt.index", "a TensorFlow 2 object checkpoint"),
    ],
)
def test_what_cannot_be_read_is_one_line_that_names_the_file(
    checkpoints: Checkpoints, prefix: str, file: str, message: str
) -> None:
    (line,) = checkpoints.errors[prefix]
    assert "\n" not in line
    assert line.startswith(f"{checkpoints.directory / file}: ")
    assert message in line
