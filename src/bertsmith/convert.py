"""`bertsmith convert`: checkpoints of other systems to a model directory, changes to a model, and the way back.

source                                              becomes
a directory, or hf:org/name                         what `bundle` reads: BERTs old and new, whole or in shards
a google-research checkpoint (TensorFlow)           BERT, with the tanh GELU that it was trained with
a state dict of codertimo, handwritten, original    the layout of that name (`interop.seeds`)
"""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import save

from bertsmith.bundle import build, check_vocabulary, read_bundle, resolve, write_bundle
from bertsmith.card import Card, licence_of
from bertsmith.config.convert import ConvertOptions
from bertsmith.config.encoder import shape_problem
from bertsmith.config.families import FAMILIES, differences, to_hf
from bertsmith.errors import InputError
from bertsmith.files import check_output, new_directory, read_json, write_file
from bertsmith.interop import families
from bertsmith.interop.config_file import parse_config
from bertsmith.interop.seeds import TABLES, convert_state_dict, detect_layout, restore_state_dict
from bertsmith.interop.tensorflow import checkpoint_prefix, read_tensorflow
from bertsmith.interop.weights import read_weights
from bertsmith.models.bert import Bert
from bertsmith.models.sentence import SentenceModules
from bertsmith.models.surgery import prune_heads, resize_vocabulary, restore_heads, with_padding_id
from bertsmith.runtime import versions
from bertsmith.tokenizer.directory import load_tokenizer, tokenizer_from_vocabulary
from bertsmith.tokenizer.text_tokenizer import TextTokenizer

log = logging.getLogger("bertsmith")

STATE_DICTS = (".pt", ".pth", ".bin", ".safetensors")

GOOGLE_LONGEST_WORD = 200
"""`max_input_chars_per_word` of google-research/bert's WordpieceTokenizer; transformers has 100."""


@dataclass(frozen=True)
class Source:
    """What was read."""

    kind: str
    model: Bert
    tokenizer: TextTokenizer
    task: dict[str, Any] = field(default_factory=lambda: {"name": None})
    sentence: SentenceModules | None = None
    unknown: tuple[str, ...] = ()
    """Tensors that were not read."""
    data: str | None = None
    licence: str = "other"
    provenance: dict[str, Any] = field(default_factory=dict)


def convert(options: ConvertOptions) -> dict[str, Any]:
    """Read, change, write; returns what was done. Nothing is written when anything is wrong."""
    check_output(options.out, overwrite=options.overwrite)
    if Path(options.src).absolute().is_relative_to(options.out.absolute()):
        raise InputError("would take the place of its own source; choose another", file=options.out, field="--out")
    source = read_source(options)
    torch.manual_seed(options.seed)
    model, changes = changed(source.model, options)
    if options.tokenizer is not None and source.tokenizer.pad_id < model.config.vocab_size:
        model = with_padding_id(model, source.tokenizer.pad_id)
    if options.to == "directory":
        check_vocabulary(model, source.tokenizer, path=Path(options.src))
        origin = f"Converted by `bertsmith convert` from `{Path(options.src).name}` ({source.kind})."
        if changes:
            origin += f" Changed: {'; '.join(changes)}."
        data = source.data or "not known to the converter; ask the source."
        card = Card(title=options.out.name, origin=origin, data=data, licence=source.licence)
        provenance = {"source": options.src, "kind": source.kind, "changes": changes, "versions": versions()}
        if source.provenance:
            provenance["before"] = source.provenance
        with new_directory(options.out, overwrite=options.overwrite) as directory:
            write_bundle(
                directory,
                model,
                source.tokenizer,
                task=source.task,
                provenance=provenance,
                card=card,
                sentence=source.sentence,
            )
    else:
        write_state_dict(model, options)
    return {
        "out": str(options.out),
        "source": source.kind,
        "architecture": families.architecture(model.config.family, model.heads),
        "model_type": to_hf(model.config)["model_type"],
        "unlike_bert": differences(model.config),
        "heads": list(model.heads),
        "parameters": model.num_parameters,
        "vocab_size": model.config.vocab_size,
        "changes": changes,
        "not_read": list(source.unknown),
    }


def read_source(options: ConvertOptions) -> Source:
    """Whatever `options.src` is. Raises `InputError` naming the file, tensor or flag."""
    named, is_local = Path(options.src), not options.src.startswith("hf:")
    if is_local and named.is_file() and named.suffix in STATE_DICTS:
        return read_state_dict(named, options)
    check_flags(options)
    if is_local and not (named / "config.json").is_file() and (prefix := checkpoint_prefix(named)) is not None:
        return read_google(prefix, options)
    path = resolve(options.src)
    bundle = read_bundle(path, tokenizer=read_vocabulary(options.tokenizer) if options.tokenizer else None)
    if bundle.sentence_problem is not None:
        log.warning("the result will be no embedder: %s", bundle.sentence_problem)
    return Source(
        kind="a model directory of bertsmith" if bundle.manifest else "a BERT directory",
        model=bundle.model,
        tokenizer=bundle.tokenizer,
        task=bundle.task,
        sentence=bundle.sentence,
        unknown=bundle.unknown,
        data=bundle.data,
        licence=licence_of(path),
        provenance=bundle.manifest.get("provenance", {}),
    )


def check_flags(options: ConvertOptions) -> None:
    """Refuse what only a state dict needs: another source says it itself."""
    for name in ("heads", "layout", "positions", "embedding_scale"):
        if getattr(options, name) is not None:
            raise InputError(
                "is for a state dict (.pt .bin .safetensors); this source has a configuration of its own",
                field="--" + name.replace("_", "-"),
            )


def read_google(prefix: Path, options: ConvertOptions) -> Source:
    """A google-research checkpoint: `bert_config.json` and `vocab.txt` stand beside it.

    Its `gelu` is the tanh approximation (google-research/bert, `modeling.gelu`), so `hidden_act` becomes `gelu_new`.
    Whether the vocabulary is lower-cased is told by its pieces.
    """
    config_file = prefix.parent / "bert_config.json"
    values = read_json(config_file)
    if not isinstance(values, dict):
        raise InputError("not a JSON object", file=config_file)
    if values.get("hidden_act") == "gelu":
        values["hidden_act"] = "gelu_new"
    config = parse_config(values, file=config_file)
    state = families.canonical(read_tensorflow(prefix), family="bert", tied=True)
    try:
        model, unknown = build(
            config, state, rules=families.rules(config, (families.exclusive_head("bert", state, ()),))
        )
    except InputError as error:
        raise InputError(error.message, file=prefix) from None
    tokenizer = read_vocabulary(options.tokenizer or prefix.parent / "vocab.txt", longest=GOOGLE_LONGEST_WORD)
    return Source("a google-research checkpoint", model, tokenizer, unknown=tuple(unknown))


def read_state_dict(file: Path, options: ConvertOptions) -> Source:
    """A state dict of one of the source systems."""
    state = read_weights(file)
    layout = options.layout or detect_layout(state)
    if layout is None or layout == "bert":
        raise InputError(
            f"tensors such as {next(iter(state))!r} belong to none of the source systems ({', '.join(TABLES)}); "
            "of a BERT give the directory, with its config.json",
            file=file,
        )
    if options.heads is None:
        raise InputError("a state dict does not say how many attention heads it has; give --heads N", file=file)
    if options.tokenizer is None:
        raise InputError("a state dict has no tokenizer; give --tokenizer DIR, or a vocab.txt", file=file)
    tokenizer = read_vocabulary(options.tokenizer)
    try:
        config, state, rules = convert_state_dict(
            state,
            layout=layout,
            num_attention_heads=options.heads,
            max_position_embeddings=options.positions,
            embedding_scale=options.embedding_scale,
            pad_token_id=tokenizer.pad_id,
        )
        model, unknown = build(config, state, rules=rules)
    except InputError as error:
        raise InputError(error.message, file=file, field=error.field) from None
    except ValidationError as error:
        field, message = shape_problem(error)
        raise InputError(message, file=file, field=field) from None
    return Source(f"a state dict of {layout}", model, tokenizer, unknown=tuple(unknown))


def read_vocabulary(path: Path, *, longest: int = 100) -> TextTokenizer:
    """A tokenizer directory, or a bare vocab.txt: lower-cased unless it has pieces with capital letters."""
    if path.is_dir() or path.name == "tokenizer.json":
        return load_tokenizer(path if path.is_dir() else path.parent)
    if not path.is_file():
        raise InputError("no such tokenizer directory or vocab.txt; name one with --tokenizer", file=path)
    pieces = path.read_text(encoding="utf-8", errors="replace").split("\n")
    cased = any(piece != piece.lower() and piece[0] not in "[<" for piece in pieces)
    log.info("%s: texts %s", path, "keep their capitals, as it has some" if cased else "are lower-cased, as it is")
    return tokenizer_from_vocabulary(path, {"do_lower_case": not cased, "max_input_chars_per_word": longest})


def changed(model: Bert, options: ConvertOptions) -> tuple[Bert, list[str]]:
    """The model after `--prune-heads`, `--to-hf` and `--vocab-size`, and what changed."""
    changes = []
    if options.prune_heads:
        try:
            model = prune_heads(model, options.heads_to_prune)
        except ValidationError as error:
            raise InputError(shape_problem(error)[1], field="--prune-heads") from None
        changes.append(f"heads pruned: {options.prune_heads.strip()}")
    if options.to_hf:
        if model.config.pruned_heads:
            changes.append("pruned heads given back as zeros")
        model = restore_heads(model)
        if unlike := differences(model.config):
            raise InputError(
                f"transformers' {FAMILIES[model.config.family].title} cannot express: {', '.join(unlike)}",
                field="--to-hf",
            )
    if options.vocab_size is not None and options.vocab_size != model.config.vocab_size:
        changes.append(f"vocabulary resized from {model.config.vocab_size} to {options.vocab_size}")
        try:
            model = resize_vocabulary(model, options.vocab_size)
        except ValidationError as error:
            raise InputError(shape_problem(error)[1], field="--vocab-size") from None
    return model, changes


def write_state_dict(model: Bert, options: ConvertOptions) -> None:
    """A state dict that the source system's own class loads with `load_state_dict`."""
    state = restore_state_dict(dict(model.state_dict()), model.config, layout=options.to)
    if options.out.suffix not in (".pt", ".safetensors"):
        raise InputError("a state dict is written as .pt or .safetensors", file=options.out)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if options.out.suffix == ".safetensors":
        write_file(options.out, save(state, metadata={"format": "pt"}))
    else:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_file(options.out, buffer.getvalue())
