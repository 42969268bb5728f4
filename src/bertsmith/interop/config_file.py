"""`config.json` of a model directory: the shape of the network, and the classes that it names, whoever wrote it; and
what ours says.

Not here: what the families call things (`config.families`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bertsmith.config.encoder import EncoderConfig, shape_problem
from bertsmith.config.families import FAMILIES, read_fields, to_hf
from bertsmith.errors import InputError, listing
from bertsmith.files import read_json
from bertsmith.interop.cross_encoder import SIGMOIDS
from bertsmith.interop.decoders import is_seq2seq
from bertsmith.interop.families import architecture

PROBLEM_TYPES = {
    "single_label_classification": "single",
    "multi_label_classification": "multi",
    "regression": "regression",
}
"""What transformers' sequence classifiers may be for, and our name of it."""

UNFINISHED = "no model yet, its training has not ended; go on with the same command and --resume"


def architectures(path: Path) -> list[str]:
    """The classes that `path/config.json` names; none if it names none."""
    found = read_json(path / "config.json").get("architectures")
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def read_config(path: Path) -> EncoderConfig:
    """The network's shape from `path/config.json`: one of `FAMILIES`, or ours. Raises `InputError` naming the field."""
    file = path / "config.json"
    if not file.is_file() and any(path.glob("*.index")):
        raise InputError("a TensorFlow checkpoint; make a model of it first: bertsmith convert", file=path)
    if not file.is_file():
        is_unfinished = (path / "train").is_dir()
        raise InputError(UNFINISHED if is_unfinished else "no config.json in it: not a model directory", file=path)
    values = read_json(file)
    kind = values.get("model_type") if isinstance(values, dict) else None
    if is_seq2seq(values):
        raise InputError("an encoder-decoder; `bertsmith generate` writes with it", file=file, field="model_type")
    if not isinstance(kind, str) or kind not in (*FAMILIES, "bertsmith"):
        raise InputError(
            f"model_type is {kind!r}; expected one of: {listing([*FAMILIES, 'bertsmith'])}",
            file=file,
            field="model_type",
        )
    if values.get("position_embedding_type", "absolute") != "absolute":
        raise InputError("only absolute positions are a BERT's", file=file, field="position_embedding_type")
    if values.get("is_decoder"):
        fix = "an encoder is needed here; `bertsmith generate` writes with it"
        raise InputError(f"a decoder; {fix}", file=file, field="is_decoder")
    return parse_config(values, file=file, family=None if kind == "bertsmith" else kind)


def parse_config(values: dict[str, Any], *, file: Path, family: str | None = "bert") -> EncoderConfig:
    """The fields of `values` that describe a shape; others are left alone. `family` None: they have our names."""
    try:
        if family is not None:
            return EncoderConfig(**read_fields(values, family=family))
        return EncoderConfig(
            **{name: values[name] for name in EncoderConfig.model_fields if values.get(name) is not None}
        )
    except ValueError as error:
        if isinstance(error, ValidationError):
            field, message = shape_problem(error)
        else:
            field, message = str(error).split()[0], str(error)
        raise InputError(message, file=file, field=field) from None


def described(
    config: EncoderConfig, heads: tuple[str, ...], task: Mapping[str, Any], token_ids: Mapping[str, int]
) -> dict[str, Any]:
    """What `config.json` says of a model: shape, class and task, whose labels become `id2label`.

    `token_ids`: role to id, `{"cls_token": 2, "sep_token": 3}`, for the families that name those.
    """
    values = to_hf(config) | {"architectures": [architecture(config.family, heads)]}
    if values["model_type"] == config.family:
        values |= {name: token_ids[role] for name, role in FAMILIES[config.family].token_ids.items()}
    labels = list(task.get("labels", ()))
    if labels:
        values["id2label"] = {str(i): label for i, label in enumerate(labels)}
        values["label2id"] = {label: i for i, label in enumerate(labels)}
    if task["name"] == "classify" and not task.get("sigmoid"):
        values["problem_type"] = next(
            name for name, ours in PROBLEM_TYPES.items() if ours == task.get("problem", "single")
        )
    if task["name"] == "rerank":
        values["sentence_transformers"] = {"activation_fn": SIGMOIDS[0]}
    return values
