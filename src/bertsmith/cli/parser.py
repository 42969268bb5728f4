"""From the words of a command line, and a YAML file, to an options object.

`tyro` reads the flags from a plain twin of the options model (same fields, defaults taken from the YAML file
where it has them), and pydantic checks the values afterwards, so that every message is ours and one line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import operator
import re
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import tyro
import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from bertsmith.config.options import Options
from bertsmith.errors import InputError, nearest

WRONG_NUMBER = r"Error parsing (\S+): .*?(INT|int\(\)|FLOAT|float|BOOL).*?(?:(?:from \[|: )'(.*?)'\]?$|$)"
"""How tyro complains of a value: the flag, its type, what was given."""


def parse(model: type[Options], words: list[str], *, prog: str, config: Path | None) -> Options:
    """Build the options of a verb from its words. Prints the help and exits with 0 for `--help`.

    Raises `InputError` for an unknown flag or key (with the nearest name), a missing or a bad value.
    """
    known = {flag_name(name) for name, field in model.model_fields.items() if not is_positional(field)}
    known |= {f"--no-{flag_name(name)[2:]}" for name, field in model.model_fields.items() if is_switch(field)}
    words = spelled_out(words, model)
    for word in words:
        name = word.split("=")[0]
        if re.fullmatch(r"--[A-Za-z][\w-]*", name) and name.replace("_", "-") not in known | {"--help"}:
            raise InputError(f"unknown flag {name}{nearest(name, known)}; see {prog} --help")
    values = read_yaml(config, model) if config is not None else {}
    try:
        return model(**(values | run_tyro(model, words, values, prog=prog)))
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise InputError(message) from None
        raise InputError(complaint(first), field=shown_name(model, str(first["loc"][0]))) from None


def is_switch(field: FieldInfo) -> bool:
    """Whether the field is true or false (or not given)."""
    return field.annotation is bool or field.annotation == (bool | None)


def spelled_out(words: list[str], model: type[Options]) -> list[str]:
    """`--x` and `--no-x` of a switch that may be left out, as tyro wants them: `--x True`, `--x False`."""
    optional = {flag_name(name) for name, field in model.model_fields.items() if field.annotation == (bool | None)}
    out = []
    for i, word in enumerate(words):
        plain = word.replace("_", "-")
        positive = "--" + plain.removeprefix("--no-")
        if plain in optional and words[i + 1 : i + 2] not in (["True"], ["False"], ["None"]):
            out += [plain, "True"]
        elif plain.startswith("--no-") and positive in optional:
            out += [positive, "False"]
        else:
            out.append(word)
    return out


def run_tyro(model: type[Options], words: list[str], values: dict[str, Any], *, prog: str) -> dict[str, Any]:
    """The values that the words give, or else `values`, or else the model's defaults."""
    twin = plain_twin(model, values)
    complaints = io.StringIO()
    flags = {word.split("=")[0].replace("_", "-") for word in words}
    try:
        with contextlib.redirect_stderr(complaints):
            parsed: Any = tyro.cli(twin, args=words, prog=prog, config=(tyro.conf.FlagCreatePairsOff,))
    except SystemExit as end:
        if not end.code:
            raise
        text = box_text(complaints.getvalue())
        absent = missing(model, text, flags=flags, given=values)
        raise InputError(f"{plain_complaint(text, missing=absent)}; see {prog} --help") from None
    given = {}
    for field in dataclasses.fields(parsed):
        name, value = field.name, getattr(parsed, field.name)
        # What was not said is left to the model, whose defaults may depend on what was (a recipe). A positional list
        # that was left out arrives empty; pydantic then says that it is required.
        said = {flag_name(name), f"--no-{flag_name(name)[2:]}"} & flags or is_positional(model.model_fields[name])
        if said and (value != () or values.get(name)):
            given[name] = value
    return given


def plain_twin(model: type[Options], values: dict[str, Any]) -> type:
    """A dataclass with the fields of `model`, which tyro can fill without running pydantic's checks."""
    required, optional = [], []
    for name, field in model.model_fields.items():
        markers: list[Any] = [tyro.conf.arg(help=field.description or "")]
        if is_positional(field):
            markers.append(tyro.conf.Positional)
        annotation = annotated(field.annotation, markers)
        if name in values or not field.is_required():
            default = values.get(name, field.default)
            optional.append((name, annotation, dataclasses.field(default=default)))
        else:
            required.append((name, annotation))
    twin = dataclasses.make_dataclass(model.__name__, [*required, *optional])
    twin.__doc__ = model.__doc__
    return twin


def read_yaml(path: Path, model: type[Options]) -> dict[str, Any]:
    """The keys of a YAML file, each checked against its field. Raises `InputError` naming file, line and key."""
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text)
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InputError(f"cannot be read: {reason}", file=path, field="--config") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise InputError(f"not valid YAML: {problem}", file=path, line=mark.line + 1 if mark else None) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError("expected `key: value` lines", file=path, line=1)
    lines = {key.value: key.start_mark.line + 1 for key, _ in getattr(node, "value", [])}
    values = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in model.model_fields:
            message = f"unknown key{nearest(name, model.model_fields)}"
            raise InputError(message, file=path, line=lines.get(key), field=str(key))
        field = model.model_fields[name]
        try:
            values[name] = TypeAdapter(annotated(field.annotation, field.metadata)).validate_python(value)
        except ValidationError as error:
            problem = complaint(error.errors()[0])
            raise InputError(problem, file=path, line=lines.get(key), field=str(key)) from None
    return values


def annotated(annotation: Any, extras: list[Any]) -> Any:
    """`annotation` with `extras` attached (constraints, or marks for tyro)."""
    return operator.getitem(cast(Any, Annotated), (annotation, *extras)) if extras else annotation


def complaint(error: Any) -> str:
    """One line from one of pydantic's errors: what is wrong, and what was given."""
    message = str(error["msg"]).removeprefix("Value error, ")
    message = "is missing" if error["type"] == "missing" else message[:1].lower() + message[1:]
    given = error.get("input")
    return message if error["type"] == "missing" or isinstance(given, dict) else f"{message}, not {given!r}"


def is_positional(field: FieldInfo) -> bool:
    """Whether the field is given by place, not by flag."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("positional"))


def flag_name(name: str) -> str:
    """`vocab_size` -> `--vocab-size`."""
    return "--" + name.replace("_", "-")


def shown_name(model: type[Options], name: str) -> str:
    """How a field is called in a message: `--vocab-size`, or `FILES` for one that is given by place."""
    field = model.model_fields.get(name)
    return name.upper() if field is not None and is_positional(field) else flag_name(name)


def box_text(box: str) -> str:
    """The message inside one of tyro's boxes, on one line, without its advice."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip("╭╮╰╯│─ ") for line in box.splitlines()]
    inside = [line for line in lines[1:] if line.strip("-")]  # where a box cannot be drawn there are rulers
    for i, line in enumerate(inside):
        if line.startswith(("For full helptext", "Argument helptext", "Got errors")):
            inside = inside[:i]
            break
    return " ".join(inside).rstrip(" .:")


def missing(model: type[Options], text: str, *, flags: Container[str], given: Container[str]) -> list[str]:
    """Required options that neither the words nor the configuration give; `text` is tyro's complaint."""
    found = []
    for name, field in model.model_fields.items():
        if field.is_required() and name not in given:
            said = (field.description or name) not in text if is_positional(field) else flag_name(name) in flags
            found += [] if said else [shown_name(model, name)]
    return found


def plain_complaint(text: str, *, missing: Sequence[str]) -> str:
    """tyro's complaint in our words, where it is one of those that it often has."""
    if text.startswith("Missing from") and missing:
        return f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    if absent := re.match(r"Missing value for argument '([^']+)'", text):
        return f"{absent[1]} needs a value"
    if choice := re.match(r"invalid choice '(.*)' for argument '([^']+)'\. Expected one of \((.*)\)", text):
        names = choice[3].replace("'", "").rstrip(",")
        return f'field "{choice[2]}": {choice[1]!r} is none of {names}'
    if wrong := re.match(WRONG_NUMBER, text):
        kind = {"I": "a whole number", "F": "a number", "B": "true or false"}[wrong[2][0].upper()]
        given = "" if wrong[3] is None else f", not {wrong[3]!r}"
        return f'field "{wrong[1]}": expected {kind}{given}'
    return text
