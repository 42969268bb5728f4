"""A model directory: a plain Hugging Face directory that also says what it is, with checksums.

    config.json  model.safetensors  tokenizer.json  tokenizer_config.json  vocab.txt  special_tokens_map.json
    modules.json …  of an embedder: the files of sentence-transformers (`interop.sentence_transformers`)
    README.md       the model card
    bertsmith.json  task, labels, provenance, sizes and SHA-256 of all of these; written last

A directory without `bertsmith.json` is read too, if it is a BERT: from transformers, old or new, whole or in shards.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from bertsmith.card import CARD, Card, model_card
from bertsmith.config.encoder import EncoderConfig
from bertsmith.errors import InputError, listing, nearest
from bertsmith.files import MANIFEST, read_json, read_manifest, to_json, write_file, write_manifest
from bertsmith.interop import families
from bertsmith.interop.config_file import PROBLEM_TYPES, architectures, described, read_config
from bertsmith.interop.cross_encoder import read_cross_encoder
from bertsmith.interop.keymap import Rule, their_names, to_ours, to_theirs
from bertsmith.interop.sentence_transformers import read_sentence_modules, write_sentence_modules
from bertsmith.interop.weights import WEIGHTS, read_weights, weights_file
from bertsmith.metrics.tagging import known_scheme
from bertsmith.models.bert import Bert
from bertsmith.models.sentence import SentenceModules
from bertsmith.models.surgery import num_labels
from bertsmith.tokenizer.directory import load_tokenizer
from bertsmith.tokenizer.text_tokenizer import TextTokenizer
from bertsmith.tokenizer.words import surrogate_message

log = logging.getLogger("bertsmith")


@dataclass(frozen=True)
class Bundle:
    """A loaded model directory."""

    path: Path
    model: Bert
    tokenizer: TextTokenizer
    manifest: dict[str, Any]
    """`bertsmith.json`; empty if the directory has none."""
    task: dict[str, Any]
    """What the model was trained for, as its task stored it; `{"name": None}` if unknown."""
    unknown: tuple[str, ...] = ()
    """Tensors of the directory that no part of the model has."""
    sentence: SentenceModules | None = None
    """How texts become vectors, if the directory says so by the files of sentence-transformers."""
    sentence_problem: InputError | None = None
    """Why those files cannot be followed; what does not embed need not care."""
    data: str | None = None
    """What text or rows the model has seen, as its writer told the card."""


def write_bundle(
    directory: Path,
    model: Bert,
    tokenizer: TextTokenizer,
    *,
    task: dict[str, Any],
    provenance: dict[str, Any],
    card: Card,
    sentence: SentenceModules | None = None,
) -> None:
    """Write a model into `directory` (which exists); the manifest comes last, and leaves `train/` out.

    `sentence` makes it a directory that sentence-transformers loads as an embedder.
    """
    theirs = to_theirs(
        dict(model.state_dict()), families.rules(model.config, model.heads), vocab_size=model.config.vocab_size
    )
    state = families.written(theirs, model.heads, family=model.config.family)
    write_description(directory, model, tokenizer, task=task, sentence=sentence)
    write_file(directory / WEIGHTS, save(state, metadata={"format": "pt"}))
    kinds = {"is_embedder": sentence is not None, "is_reranker": task["name"] == "rerank"}
    write_file(directory / CARD, model_card(card, model, labels=list(task.get("labels", ())), **kinds))
    content = {"task": task, "data": card.data, "provenance": provenance}
    write_manifest(directory, content, kind="model", exclude=("train", CARD))


def write_description(
    directory: Path, model: Bert, tokenizer: TextTokenizer, *, task: dict[str, Any], sentence: SentenceModules | None
) -> None:
    """The files beside the weights: the model's shape, how texts become its input, and its output vectors."""
    if task["name"] == "rerank" and "max_length" in task:  # a `CrossEncoder` cuts there
        tokenizer = TextTokenizer(tokenizer.content, tokenizer.config | {"model_max_length": task["max_length"]})
    tokenizer.save(directory)
    token_ids = {"cls_token": tokenizer.cls_id, "sep_token": tokenizer.sep_id}
    write_file(directory / "config.json", to_json(described(model.config, model.heads, task, token_ids)))
    if sentence is not None:
        write_sentence_modules(directory, sentence, hidden_size=model.config.hidden_size)


def resolve(model: str) -> Path:
    """The directory that `model` names: a local path, or `hf:org/name[@revision]` from the hub's cache or the hub.

    Without `hf:` the network is never touched. Raises `InputError` when there is no such directory.
    """
    if model.startswith("hf:"):
        return _download(model.removeprefix("hf:"))
    path = Path(model)
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
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

    def fetch(*weights: str) -> Path:
        patterns = ["*.json", "*.txt", *weights, *(f"*/{name}" for name in weights), "*_Dense/pytorch_model.bin"]
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=patterns))

    try:
        path = fetch("model*.safetensors")
        return path if any(path.glob("model*.safetensors")) else fetch("pytorch_model*.bin")
    except Exception as error:  # the hub's client raises many kinds; all of them mean: not to be had
        reason = str(error).strip().split("\n")[0]
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise InputError(f"hf:{name} could not be fetched{offline}: {reason}", field="MODEL") from error


def load_bundle(path: Path) -> Bundle:
    """Read a model directory, in evaluation mode, on the CPU.

    Raises `InputError` that names the file, tensor or field: damaged files, a configuration that is not a BERT,
    missing tensors, wrong shapes.
    """
    bundle = read_bundle(path)
    check_vocabulary(bundle.model, bundle.tokenizer, path=path)
    return bundle


def read_bundle(path: Path, *, tokenizer: TextTokenizer | None = None) -> Bundle:
    """`load_bundle` without the check that model and tokenizer fit: the caller will change one of them.

    A given `tokenizer` takes the place of the directory's own.
    """
    manifest = read_manifest(path, kind="model") if (path / MANIFEST).is_file() else {}
    try:
        sentence, problem = read_sentence_modules(path), None
    except InputError as error:
        sentence, problem = None, error
    model, unknown = read_model(path)
    tokenizer = tokenizer or load_tokenizer(path)
    task = manifest.get("task") or known_task(path, model, tokenizer)
    if task["name"] is None and (sentence or problem) is not None:
        task = {"name": "embed", "long_docs": "truncate"}
    return Bundle(
        path=path,
        model=model,
        tokenizer=tokenizer,
        manifest=manifest,
        task=task,
        unknown=tuple(unknown),
        sentence=sentence,
        sentence_problem=problem,
        data=manifest.get("data"),
    )


def load_model(path: Path) -> Bert:
    """The network of a directory alone, without a look at its tokenizer; the checksums are verified."""
    if (path / MANIFEST).is_file():
        read_manifest(path, kind="model")
    return read_model(path)[0]


def read_model(path: Path) -> tuple[Bert, list[str]]:
    """The network of a directory, whoever wrote it, and the tensors that no part of it has (also in the log)."""
    config = read_config(path)
    classes = architectures(path)
    file = weights_file(path)
    try:
        state = families.canonical(read_weights(file), family=config.family, tied=config.tie_word_embeddings)
        head = families.exclusive_head(config.family, state, classes)
        model, unknown = build(config, state, rules=families.rules(config, (head,)))
    except InputError as error:
        raise error if error.file else InputError(error.message, file=file) from None
    if unknown:
        log.warning("%s: not read, no part of this BERT has them: %s", file, listing(unknown, 8))
    promised = families.head_of_classes(config.family, classes)
    if promised is not None and promised not in model.heads:
        named = next(name for name in classes if name.endswith(families.SUFFIXES[promised]))
        log.warning("%s: config.json names %s, but its head has no weights here: it must start fresh", path, named)
    return model, unknown


def build(config: EncoderConfig, state: dict[str, Tensor], *, rules: Sequence[Rule]) -> tuple[Bert, list[str]]:
    """A model with the heads that `state` (under their names) holds, in evaluation mode, as float32; and the names
    of what was not read. Nothing is allocated before all shapes have been compared.

    Raises `InputError` naming the tensor that is missing, has another shape, no place, or a value that is no number.
    """
    tensors, unknown = to_ours(state, rules, config=config)
    heads = {name.split(".")[0] for name in tensors} - {"encoder"}
    sizes = [len(t) for name, t in tensors.items() if name.startswith(("classifier.", "token_classifier."))]
    with torch.device("meta"):
        model = Bert(config, heads=heads, num_labels=sizes[0] if sizes else 2)
    encoder = tuple(name for name in unknown if name.startswith(families.encoder_names(config.family)))
    put_in(model, tensors, theirs=their_names(rules), unknown=unknown, without_place=encoder)
    return model, unknown


def put_in(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    theirs: Mapping[str, str],
    unknown: Sequence[str],
    without_place: Sequence[str] = (),
) -> None:
    """Give `model`, built without memory, these tensors as float32, and set it to evaluation mode. `theirs`: their name
    of each; `unknown`: those that no rule knows, of which `without_place` may not be there.

    Raises `InputError` as `build` does.
    """
    wanted = model.state_dict()
    missing = [theirs[name] for name in wanted if name not in tensors]
    if missing:
        others = f"; not recognised: {listing(unknown, 5)}" if unknown else ""
        raise InputError(f"tensors are missing: {listing(missing, 5)}{others}")
    surplus = [theirs[name] for name in tensors if name not in wanted]
    surplus += without_place
    if surplus:
        raise InputError(f"tensors for which config.json leaves no place: {listing(surplus, 5)}")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise InputError(
                f"tensor {theirs[name]} has shape {tuple(tensor.shape)}, "
                f"config.json asks for {tuple(wanted[name].shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise InputError(f"tensor {theirs[name]} holds values that are no numbers; the training of it diverged")
    model.load_state_dict({name: tensors[name].float() for name in wanted}, assign=True)
    model.eval()


def check_vocabulary(model: Bert, tokenizer: TextTokenizer, *, path: Path) -> None:
    """Every id of the tokenizer must have a row; a table with rows to spare is fine."""
    if tokenizer.vocab_size > model.config.vocab_size:
        raise InputError(
            f"the tokenizer has {tokenizer.vocab_size} pieces, vocab_size of config.json is {model.config.vocab_size}; "
            f"`bertsmith convert {path} --vocab-size {tokenizer.vocab_size} --out DIR` adds the rows",
            file=path,
        )


def known_task(path: Path, model: Bert, tokenizer: TextTokenizer) -> dict[str, Any]:
    """The task that `config.json` of another library tells, as far as `predict` can follow it.

    A sequence classifier with its labels and `problem_type`, a `CrossEncoder`, which cuts what is long, a token
    classifier with its tags, whose scheme is read off their names, a model for questions, one for multiple choice. Of
    one label without `problem_type` the sigmoid is the answer, as transformers' pipeline has it.
    """
    config = read_json(path / "config.json")
    names = config.get("id2label") if isinstance(config.get("id2label"), dict) else {}
    problem = config.get("problem_type")
    if problem is not None and problem not in PROBLEM_TYPES:
        raise InputError(
            f"{problem!r} is none of {', '.join(PROBLEM_TYPES)}", file=path / "config.json", field="problem_type"
        )
    positions = model.config.max_position_embeddings
    if model.classifier is None and model.token_classifier is None:
        name = "qa" if model.question_answering is not None else "choice" if model.multiple_choice is not None else None
        return {"name": name} | ({"max_length": positions} if name else {})
    labels = [str(names.get(str(i), f"LABEL_{i}")) for i in range(num_labels(model))]
    for label in labels:
        if surrogate_message(label) is not None:
            raise InputError(
                "a label is no text: it holds half a character", file=path / "config.json", field="id2label"
            )
    if model.classifier is None:
        return {
            "name": "tag",
            "labels": labels,
            "max_length": positions,
            "scheme": known_scheme(labels),
            "constrained": False,
        }
    reads: dict[str, Any] = {"max_length": positions}
    cross = read_cross_encoder(path, outputs=len(labels))
    if cross is not None:
        limit = min(cross.max_seq_length or tokenizer.model_max_length, positions)
        reads = {"max_length": limit, "long_docs": "truncate"}
        if len(labels) == 1 and cross.has_sigmoid:
            return {"name": "rerank", "labels": ["score"]} | reads
        if len(labels) == 1:
            return {"name": "classify", "labels": labels, "problem": "regression"} | reads
    if problem == "regression" and len(labels) > 1:
        message = f"a regression has one output here, this model has {len(labels)}; left out, they are read as classes"
        raise InputError(message, file=path / "config.json", field="problem_type")
    kind = "single" if problem is None else PROBLEM_TYPES[problem]
    if kind == "single" and len(labels) == 1:
        reads |= {"problem": "regression", "sigmoid": True}
    return {"name": "classify", "labels": labels, "problem": kind} | reads


def start_from(
    bundle: Bundle, *, heads: tuple[str, ...], num_labels: int, config: EncoderConfig
) -> tuple[Bert, list[str]]:
    """A model with `heads` whose weights are `bundle`'s where it has them, and the parts that start fresh.

    `config` may differ from the bundle's in dropout only. Fresh parts are drawn from torch's random state.
    """
    model = Bert(config, heads=heads, num_labels=num_labels)
    own, theirs = model.state_dict(), bundle.model.state_dict()
    if config.token_pooler and not any(name.startswith("pooler.") for name in theirs):
        # a family whose heads all read through one and the same layers: those of the MLM head are trained
        shared = {name: f"pooler.{name.partition('.')[2]}" for name in theirs if name.startswith("masked_lm.")}
        theirs |= {new: theirs[old] for old, new in shared.items() if new in own}
    fresh = sorted({name.split(".")[0] for name in own if name not in theirs or own[name].shape != theirs[name].shape})
    kept = {name: tensor for name, tensor in theirs.items() if name in own and name.split(".")[0] not in fresh}
    with torch.no_grad():
        model.load_state_dict(own | kept)
    return model, fresh
