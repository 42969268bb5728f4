"""The entry point: finds the verb, runs it, prints its result, and turns errors into one line and an exit code.

Data goes to stdout; progress, logs and errors go to stderr.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bertsmith import __version__
from bertsmith.cli.verbs import VERBS, Verb, load
from bertsmith.errors import BertsmithError, InputError, nearest

COMMON = """\
Every verb also takes:
  --config FILE   options from a YAML file; flags override it
  --json          print one JSON object (search: one a line)
  --debug         on an error, print the traceback too
  --help          all flags of the verb
"""


def run() -> None:
    """The command `bertsmith`.

    Threads wait asleep rather than spinning, unless the user chose otherwise: on a machine that does something else
    too, spinning threads at times made a training step take seconds (docs/performance.md).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main(sys.argv[1:]))


def main(words: list[str]) -> int:
    """Run one command line; returns the exit code: 0, 1, 2, 3, 130 or 143."""
    debug = "--debug" in words
    try:
        return dispatch(words)
    except BertsmithError as error:
        if debug:
            logging.getLogger("bertsmith").exception("traceback")
        for line in error.lines():
            print(f"bertsmith: error: {line}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("bertsmith: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, MemoryError) as error:
        if debug:
            raise
        print(f"bertsmith: error: {_reason(error)}", file=sys.stderr)
        return 1
    except Exception as error:
        if debug:
            raise
        what = " ".join(str(error).split())[:300]
        print(
            f"bertsmith: error: a defect of bertsmith, not of your input ({type(error).__name__}: {what}); "
            "--debug shows where",
            file=sys.stderr,
        )
        return 1


def _reason(error: OSError | MemoryError) -> str:
    """What the system says, after the file's name, as in the project's own errors."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def dispatch(words: list[str]) -> int:
    """Find the verb, parse its flags, run it."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] in ("--version", "-V"):
        print(f"bertsmith {__version__}")
        return 0
    name, rest = find_verb(words)
    if name in groups() and (not rest or rest[0] in ("-h", "--help")):
        print(overview(f"{name} "))
        return 0
    verb = VERBS[name]
    rest, config, as_json = common_flags(rest)
    set_up_logging()
    from bertsmith.cli.parser import parse

    options = parse(load(verb.options), rest, prog=f"bertsmith {name}", config=config)
    if os.environ.get("BERTSMITH_QUICK"):
        options = shortened(options)
    result = load(verb.function)(options)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and os.environ.get("RANK") != "0":
        return 0  # under torchrun the first process speaks for all
    show(verb, result, options, as_json=as_json)
    fail_under = getattr(options, "fail_under", None)
    if fail_under is not None:
        load("evaluate:check_gate")(result, fail_under)
    return InputError.exit_code if isinstance(result, dict) and result.get("errors") else 0


def shortened(options: Any) -> Any:
    """The same options with seconds instead of minutes of training: `BERTSMITH_QUICK`, for tests of documents."""
    given: dict[str, Any] = {
        name: getattr(options, name, None) for name in ("minutes", "steps", "finetune_steps", "epochs")
    }
    changes: dict[str, Any] = {name: min(given[name], 12) for name in ("steps", "finetune_steps") if given[name]}
    if given["minutes"]:
        changes["minutes"] = min(given["minutes"], 0.03)
    if given["epochs"] or (hasattr(options, "epochs") and not given["minutes"] and not given["steps"]):
        changes |= {"epochs": None, "steps": 12}
    return options.model_copy(update=changes)


def find_verb(words: list[str]) -> tuple[str, list[str]]:
    """`["finetune", "classify", "--x"]` -> `("finetune classify", ["--x"])`."""
    two = " ".join(words[:2])
    if two in VERBS:
        return two, words[2:]
    if words[0] in VERBS:
        return words[0], words[1:]
    if words[0] in groups():
        rest = words[1:]
        if rest and not rest[0].startswith("-"):
            tasks = [verb.split()[1] for verb in VERBS if verb.startswith(words[0] + " ")]
            raise InputError(f"unknown task {rest[0]!r}{nearest(rest[0], tasks)}; expected one of: {', '.join(tasks)}")
        return words[0], rest
    every = [verb.split()[0] for verb in VERBS]
    raise InputError(f"unknown verb {words[0]!r}{nearest(words[0], every)}; see bertsmith --help")


def groups() -> set[str]:
    """Verbs that need a task after them: `{"finetune"}`."""
    return {verb.split()[0] for verb in VERBS if " " in verb}


def common_flags(words: list[str]) -> tuple[list[str], Path | None, bool]:
    """Take `--config`, `--json` and `--debug` out of the words."""
    rest, config, as_json = [], None, False
    waiting = iter(words)
    for word in waiting:
        if word == "--config" or word.startswith("--config="):
            value = word.partition("=")[2] if "=" in word else next(waiting, None)
            if not value:
                raise InputError("--config needs a file: --config run.yaml")
            config = Path(value)
        elif word == "--json":
            as_json = True
        elif word != "--debug":
            rest.append(word)
    return rest, config, as_json


def show(verb: Verb, result: Any, options: Any, *, as_json: bool) -> None:
    """Print a result: as the verb's lines, or as one JSON object (of some verbs, one a line)."""
    if as_json and verb.json_lines is not None:
        for item in result[verb.json_lines]:
            print(json.dumps(item, ensure_ascii=False, allow_nan=False))
        return
    if as_json:
        value = list(result) if isinstance(result, Iterator) else result
        print(json.dumps(value if isinstance(value, dict) else {"result": value}, ensure_ascii=False, allow_nan=False))
        return
    for line in load(f"cli.show:{verb.show}")(result, options):
        print(line)


def overview(prefix: str = "") -> str:
    """The text of `bertsmith --help`, without importing any verb."""
    chosen = {name: verb for name, verb in VERBS.items() if name.startswith(prefix)}
    width = max(map(len, chosen))
    table = "\n".join(f"  {name:<{width}}   {verb.summary}" for name, verb in chosen.items())
    usage = f"bertsmith {prefix}TASK" if prefix else "bertsmith VERB"
    return (
        "bertsmith: your own BERT, from raw text to a served model, on the machine you have.\n\n"
        f"usage: {usage} [OPTIONS]\n\n{table}\n\n{COMMON}\nStart with: bertsmith demo"
    )


def set_up_logging() -> None:
    """Log lines of bertsmith go to stderr; warnings say that they are."""
    logger = logging.getLogger("bertsmith")
    logger.handlers.clear()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"bertsmith: warning: {text}" if record.levelno == logging.WARNING else text
