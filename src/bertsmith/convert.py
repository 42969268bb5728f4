"""`bertsmith convert`: checkpoints of other systems to a model directory, changes to a model, and the way back.

source                                              becomes
a directory, or hf:org/name                         what `bundle` reads: BERTs old and new, whole or in shards
a google-research checkpoint (TensorFlow)           BERT, with the tanh GELU that it was trained with
a state dict of codertimo, handwritten, original    the layout of that name (`interop.seeds`); of an encoder and a
                                                    decoder of `original`, both (`interop.original`)
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
from torch import Tensor

from bertsmith.bundle import build, check_vocabulary, put_in, read_bundle, resolve, write_bundle
from bertsmith.card import Card, licence_of
from bertsmith.config.convert import ConvertOptions
from bertsmith.config.encoder import shape_problem
from bertsmith.config.families import FAMILIES, differences, to_hf
from bertsmith.errors import InputError
from bertsmith.files import check_output, check_source, new_directory, read_json, write_file
from bertsmith.interop import families
from bertsmith.interop.config_file import parse_config
from bertsmith.interop.decoders import unlike_bert
from bertsmith.interop.keymap import their_names, to_ours
from bertsmith.interop.original import convert_transformer, is_whole, restore_transformer
from bertsmith.interop.seeds import TABLES, convert_state_dict, detect_layout, restore_state_dict
from bertsmith.interop.tensorflow import checkpoint_prefix, read_tensorflow
from bertsmith.interop.weights import read_weights
from bertsmith.models.bert import Bert
from bertsmith.models.sentence import SentenceModules
from bertsmith.models.seq2seq import Seq2Seq
from bertsmith.models.surgery import prune_heads, resize_vocabulary, restore_heads, with_padding_id
from bertsmith.runtime import versions
from bertsmith.tasks.seq2seq import Seq2SeqTask
from bertsmith.tokenizer.directory import load_tokenizer, tokenizer_from_vocabulary
from bertsmith.tokenizer.text_tokenizer import TextTokenizer
from bertsmith.writer import check_vocabularies, is_writer, load_writer, write_writer

log = logging.getLogger("bertsmith")

STATE_DICTS = (".pt", ".pth", ".bin", ".safetensors")

GOOGLE_LONGEST_WORD = 200
"""`max_input_chars_per_word` of google-research/bert's WordpieceTokenizer; transformers has 100."""


@dataclass(frozen=True)
class Source:
    """What was read."""

    kind: str
    model: Bert | Seq2Seq
    tokenizer: TextTokenizer
    task: dict[str, Any] = field(default_factory=lambda: {"name": None})
    sentence: SentenceModules | None = None
    unknown: tuple[str, ...] = ()
    """Tensors that were not read."""
    data: str | None = None
    licence: str = "other"
    provenance: dict[str, Any] = field(default_factory=dict)
    targets: TextTokenizer | None = None
    """The tokenizer of an encoder-decoder's targets, if it is another one."""


def convert(options: ConvertOptions) -> dict[str, Any]:
    """Read, change, write; returns what was done. Nothing is written when anything is wrong."""
    check_output(options.out, overwrite=options.overwrite)
    check_source(options.out, options.src)
    source = read_source(options)
    if isinstance(source.model, Seq2Seq):
        return convert_writer(source, source.model, options)
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
        state = restore_state_dict(dict(model.state_dict()), model.config, layout=options.to)
        write_state_dict(state, options)
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


def convert_writer(source: Source, model: Seq2Seq, options: ConvertOptions) -> dict[str, Any]:
    """The same for an encoder-decoder: a state dict becomes a directory, a directory a state dict."""
    for name in ("vocab_size", "prune_heads", "to_hf"):
        if getattr(options, name):
            raise InputError("is for encoders; leave it out", field=flag(name))
    encoder, decoder = model.encoder.config, model.writer.config
    unlike = unlike_bert(encoder, decoder)
    if options.to == "original":
        write_state_dict(restore_transformer(model), options)
    elif options.to == "directory" and Path(options.src).is_file():
        check_vocabularies(model, source.tokenizer, source.targets, file=Path(options.src))
        card = Card(
            title=options.out.name,
            origin=f"Converted by `bertsmith convert` from `{Path(options.src).name}` ({source.kind}).",
            data="not known to the converter; ask the source.",
        )
        provenance = {"source": options.src, "kind": source.kind, "versions": versions()}
        with new_directory(options.out, overwrite=options.overwrite) as directory:
            write_writer(
                directory,
                model,
                source.tokenizer,
                task=source.task,
                provenance=provenance,
                card=card,
                targets=source.targets,
            )
    else:
        raise InputError("an encoder-decoder's directory becomes a state dict of `original` alone", field="--to")
    return {
        "out": str(options.out),
        "source": source.kind,
        "architecture": "Seq2Seq" if unlike else "EncoderDecoderModel",
        "model_type": "bertsmith" if unlike else "encoder-decoder",
        "unlike_bert": unlike,
        "parameters": model.num_parameters,
        "vocab_size": encoder.vocab_size,
        "target_vocab_size": decoder.vocab_size,
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
    if is_writer(path):
        writer = load_writer(path)
        assert isinstance(writer.model, Seq2Seq)
        return Source("an encoder-decoder", writer.model, writer.tokenizer, writer.task, targets=writer.targets)
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


def flag(name: str) -> str:
    """`embedding_scale` -> `--embedding-scale`."""
    return "--" + name.replace("_", "-")


def check_flags(options: ConvertOptions) -> None:
    """Refuse what only a state dict needs: another source says it itself."""
    for name in ("heads", "layout", "positions", "embedding_scale", "target_tokenizer", "encoder_only"):
        if getattr(options, name) not in (None, type(options).model_fields[name].default):
            raise InputError(
                "is for a state dict (.pt .bin .safetensors); this source has a configuration of its own",
                field=flag(name),
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
    shape: dict[str, Any] = {"num_attention_heads": options.heads, "max_position_embeddings": options.positions}
    scale = options.embedding_scale
    has_decoder = layout == "original" and is_whole(state)
    if has_decoder and scale is None:
        scale = False
        log.info("%s: token vectors are not scaled, as in hyunwoongko's code; --embedding-scale scales them", file)
    for name in ("target_tokenizer", "encoder_only"):
        if getattr(options, name) and not has_decoder:
            raise InputError("is for a state dict with a decoder, and this one has none", field=flag(name))
    try:
        if has_decoder and not options.encoder_only:
            return read_transformer(state, tokenizer, options, shape=shape | {"embedding_scale": scale})
        config, state, rules = convert_state_dict(
            state, layout=layout, **shape, embedding_scale=scale, pad_token_id=tokenizer.pad_id
        )
        model, unknown = build(config, state, rules=rules)
    except InputError as error:
        raise InputError(error.message, file=file, field=error.field) from None
    except ValidationError as error:
        field, message = shape_problem(error)
        raise InputError(message, file=file, field=field) from None
    return Source(f"a state dict of {layout}", model, tokenizer, unknown=tuple(unknown))


def read_transformer(
    state: dict[str, Tensor], tokenizer: TextTokenizer, options: ConvertOptions, *, shape: dict[str, Any]
) -> Source:
    """hyunwoongko's encoder and decoder. Raises as `build` does."""
    targets = None if options.target_tokenizer is None else read_vocabulary(options.target_tokenizer)
    ids = (tokenizer.pad_id, (targets or tokenizer).pad_id)
    encoder, decoder, state, rules = convert_transformer(state, pad_token_ids=ids, **shape)
    tensors, unknown = to_ours(state, rules, config=encoder)
    with torch.device("meta"):
        model = Seq2Seq(encoder, decoder)
    put_in(model, tensors, theirs=their_names(rules), unknown=unknown)
    positions = min(encoder.max_position_embeddings, decoder.max_position_embeddings)
    task = Seq2SeqTask(positions, positions).manifest()
    return Source("a state dict of original", model, tokenizer, task, unknown=tuple(unknown), targets=targets)


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


def write_state_dict(state: dict[str, Tensor], options: ConvertOptions) -> None:
    """A state dict that the source system's own class loads with `load_state_dict`."""
    if options.out.suffix not in (".pt", ".safetensors"):
        raise InputError("a state dict is written as .pt or .safetensors", file=options.out)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if options.out.suffix == ".safetensors":
        write_file(options.out, save(state, metadata={"format": "pt"}))
    else:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_file(options.out, buffer.getvalue())
