"""A model directory: a plain Hugging Face directory that also says what it is, with checksums.

    config.json  model.safetensors  tokenizer.json  tokenizer_config.json  vocab.txt  special_tokens_map.json
    README.md       the model card
    bertsmith.json  task, labels, provenance, sizes and SHA-256 of all of these; written last

A directory without `bertsmith.json` is read too, if it is a BERT that transformers wrote.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from bertsmith.config.encoder import EncoderConfig
from bertsmith.errors import InputError, listing, nearest
from bertsmith.files import MANIFEST, read_json, read_manifest, to_json, write_file, write_manifest
from bertsmith.interop.bert import RULES, architecture
from bertsmith.interop.keymap import expand, to_ours, to_theirs
from bertsmith.models.bert import Bert
from bertsmith.tokenizer.directory import TextTokenizer, load_tokenizer

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Bundle:
    """A loaded model directory."""

    path: Path
    model: Bert
    tokenizer: TextTokenizer
    manifest: dict[str, Any]
    """`bertsmith.json`; empty if the directory has none."""

    @property
    def task(self) -> dict[str, Any]:
        """What the model was trained for, as its task stored it; `{"name": None}` if unknown."""
        task: dict[str, Any] = self.manifest.get("task", {"name": None})
        return task


def write_bundle(
    directory: Path,
    model: Bert,
    tokenizer: TextTokenizer,
    *,
    task: dict[str, Any],
    provenance: dict[str, Any],
    card: str,
) -> None:
    """Write a model into `directory` (which exists); the manifest comes last, and leaves `train/` out.

    `task["labels"]`, if there, become `id2label` of `config.json`.
    """
    rules = expand(RULES, model.config.num_hidden_layers)
    state = to_theirs(dict(model.state_dict()), rules, rows=model.config.vocab_size)
    if model.masked_lm is None and model.classifier is None:
        state = {name.removeprefix("bert."): tensor for name, tensor in state.items()}
    config = model.config.to_hf() | {"architectures": [architecture(model.heads)]}
    if labels := task.get("labels"):
        config["id2label"] = {str(i): label for i, label in enumerate(labels)}
        config["label2id"] = {label: i for i, label in enumerate(labels)}
        config["problem_type"] = "single_label_classification"
    tokenizer.save(directory)
    write_file(directory / "config.json", to_json(config))
    write_file(directory / WEIGHTS, save(state, metadata={"format": "pt"}))
    write_file(directory / "README.md", card)
    content = {"kind": "model", "version": 1, "task": task, "provenance": provenance}
    write_manifest(directory, content, exclude=("train",))


def resolve(model: str) -> Path:
    """The directory that `model` names: a local path, or `hf:org/name[@revision]` from the hub's cache or the hub.

    Without `hf:` the network is never touched. Raises `InputError` when there is no such directory.
    """
    if model.startswith("hf:"):
        return _download(model.removeprefix("hf:"))
    path = Path(model)
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        hub = (
            f"; for a model of the Hugging Face hub write hf:{model}" if re.fullmatch(r"[\w.-]+/[\w.-]+", model) else ""
        )
        raise InputError(f"no such model directory{nearest(path.name, siblings)}{hub}", file=path)
    if not path.is_dir():
        raise InputError("a model is a directory, this is a file", file=path)
    return path


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    patterns = ["*.json", "*.txt", WEIGHTS]
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=patterns))
    except Exception as error:  # the hub's client raises many kinds; all of them mean: not to be had
        reason = str(error).strip().split("\n")[0]
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise InputError(f"hf:{name} could not be fetched{offline}: {reason}", field="MODEL") from error


def load_bundle(path: Path) -> Bundle:
    """Read a model directory, in evaluation mode, on the CPU.

    Raises `InputError` that names the file, tensor or field: damaged files, a configuration that is not a BERT,
    missing tensors, wrong shapes.
    """
    manifest = read_manifest(path, kind="model") if (path / MANIFEST).is_file() else {}
    config = read_config(path)
    state = _read_weights(path / WEIGHTS)
    rules = expand(RULES, config.num_hidden_layers)
    tensors, unknown = to_ours(state, rules, padded_rows=config.padded_vocab_size)
    if unknown:
        raise InputError(f"tensors that no part of a BERT has: {listing(unknown, 5)}", file=path / WEIGHTS)
    heads = {name.split(".")[0] for name in tensors} - {"encoder"}
    labels = tensors["classifier.classifier.bias"].shape[0] if "classifier.classifier.bias" in tensors else 2
    model = Bert(config, heads=heads, num_labels=labels)
    load_tensors(model, tensors, file=path / WEIGHTS)
    tokenizer = load_tokenizer(path)
    if tokenizer.vocab_size != config.vocab_size:
        raise InputError(
            f"the tokenizer has {tokenizer.vocab_size} pieces, config.json says {config.vocab_size}", file=path
        )
    return Bundle(path=path, model=model.eval(), tokenizer=tokenizer, manifest=manifest)


def read_config(path: Path) -> EncoderConfig:
    """The network's shape from `path/config.json`. Raises `InputError` naming the field that is wrong."""
    file = path / "config.json"
    values = read_json(file)
    if not isinstance(values, dict) or values.get("model_type") != "bert":
        kind = values.get("model_type") if isinstance(values, dict) else None
        raise InputError(f'model_type is {kind!r}; expected "bert"', file=file, field="model_type")
    if values.get("position_embedding_type", "absolute") != "absolute":
        raise InputError("only absolute positions are a BERT's", file=file, field="position_embedding_type")
    known = {name: values[name] for name in EncoderConfig.model_fields if values.get(name) is not None}
    try:
        return EncoderConfig(**known)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or None
        raise InputError(first["msg"].removeprefix("Value error, "), file=file, field=field) from None


def _read_weights(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise InputError("no such file; a model directory holds model.safetensors", file=file)
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise InputError(f"not a readable safetensors file ({error}); it is damaged", file=file) from None


def load_tensors(model: Bert, tensors: dict[str, Tensor], *, file: Path) -> None:
    """Put `tensors` into `model`; all of its parameters must be there, in the right shapes, as float32."""
    wanted = model.state_dict()
    missing = sorted(wanted.keys() - tensors.keys())
    if missing:
        raise InputError(f"tensors are missing: {listing(missing, 5)}", file=file)
    for name, tensor in tensors.items():
        if name in wanted and tensor.shape != wanted[name].shape:
            raise InputError(
                f"tensor {name} has shape {tuple(tensor.shape)}, config.json asks for {tuple(wanted[name].shape)}",
                file=file,
            )
    with torch.no_grad():
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})


def start_from(
    bundle: Bundle, *, heads: tuple[str, ...], num_labels: int, config: EncoderConfig
) -> tuple[Bert, list[str]]:
    """A model with `heads` whose weights are `bundle`'s where it has them, and the parts that start fresh.

    `config` may differ from the bundle's in dropout only. Fresh parts are drawn from torch's random state.
    """
    model = Bert(config, heads=heads, num_labels=num_labels)
    own, theirs = model.state_dict(), bundle.model.state_dict()
    fresh = sorted({name.split(".")[0] for name in own if name not in theirs or own[name].shape != theirs[name].shape})
    kept = {name: tensor for name, tensor in theirs.items() if name in own and name.split(".")[0] not in fresh}
    with torch.no_grad():
        model.load_state_dict(own | kept)
    return model, fresh
