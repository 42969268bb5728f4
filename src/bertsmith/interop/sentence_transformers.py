"""The files by which sentence-transformers knows how a directory turns texts into vectors: read and written.

    modules.json                       which modules, in which order: Transformer, Pooling, Dense …, Normalize
    sentence_bert_config.json          where texts are cut, and whether they are lower-cased first; of old versions also
                                       sentence_roberta_config.json …
    config_sentence_transformers.json  prompts, similarity
    1_Pooling/config.json              how token vectors become one
    2_Dense/config.json, weights       a linear map after it

Not here: what the modules compute (`models.sentence`), what a `CrossEncoder` answers (`interop.cross_encoder`), and the
encoder and tokenizer of the same directory (`bundle`). Modules are told by the last part of their class name; no class
is imported by a name that a file gives. What cannot be computed exactly is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from safetensors.torch import save

from bertsmith.errors import InputError, listing
from bertsmith.files import read_json, to_json, write_file
from bertsmith.interop.weights import WEIGHTS, read_weights, weights_file
from bertsmith.models.pooling import Projection
from bertsmith.models.sentence import SentenceModules

MODULES = "modules.json"
TRANSFORMER_CONFIG = "sentence_bert_config.json"
TRANSFORMER_CONFIGS = (
    TRANSFORMER_CONFIG,
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
"""Old versions named it after the encoder; the first that is there and not empty counts."""
MODEL_CONFIG = "config_sentence_transformers.json"

FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_weightedmean_tokens": "weighted",
}
"""The old format's flags; the vectors of several stand in this order, whatever that of the file."""

MODES = {"cls": "cls", "max": "max", "mean": "mean", "weightedmean": "weighted"}
"""The new format's names, of which a file gives one or a list."""

ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": None,
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.SiLU": "silu",
}
"""Class of torch -> our name. Files may also say `torch.nn.Tanh`."""


def read_sentence_modules(directory: Path) -> SentenceModules | None:
    """What the files of `directory` say; None if it is no directory of a `SentenceTransformer`.

    Raises `InputError` naming file and field: damaged files, modules, poolings or settings that are not known here,
    sizes that do not fit, paths that leave the directory.
    """
    file = directory / MODULES
    if not file.is_file():
        return None
    model = optional(directory / MODEL_CONFIG)
    if model.get("model_type", "SentenceTransformer") != "SentenceTransformer":
        return None  # a CrossEncoder or SparseEncoder makes no vectors of texts; its BERT is like any other
    entries = _entries(file)
    if [name for name, _ in entries[:2]] != ["Transformer", "Pooling"]:
        raise _refusal("the first two modules must be Transformer and Pooling", file=file, field="type")
    if entries[0][1] not in ("", "."):
        fix = "save the model again with sentence-transformers 2 or newer, which puts it beside modules.json"
        raise InputError(f'the encoder lies in the folder "{entries[0][1]}"; {fix}', file=file, field="path")
    pooling, width = _read_pooling(directory / entries[1][1] / "config.json", hidden_size=_hidden_size(directory))
    dense: list[Projection] = []
    normalize = False
    for name, folder in entries[2:]:
        if name == "Normalize":
            normalize = True
        elif name == "Dense":
            if normalize:
                raise _refusal("a Dense after Normalize is not known", file=file, field="type")
            dense.append(_read_dense(directory / folder, inputs=width))
            width = len(dense[-1].weight)
        elif name != "Dropout":  # which does nothing once training is over
            raise _refusal(f'unknown module "{name}"', file=file, field="type")
    settings = read_transformer(directory) | read_prompts(model, directory / MODEL_CONFIG)
    return SentenceModules(pooling=pooling, dense=tuple(dense), normalize=normalize, **settings)


def _refusal(message: str, *, file: Path, field: str) -> InputError:
    fix = "what the model computes is not known here; without modules.json the directory is a plain encoder"
    return InputError(f"{message}; {fix}", file=file, field=field)


def _entries(file: Path) -> list[tuple[str, str]]:
    """`[("Transformer", ""), ("Pooling", "1_Pooling")]`: class name and folder of each module."""
    content = read_json(file)
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise InputError("not a list of modules; the file is damaged", file=file)
    found = []
    for entry in content:
        folder, kind = entry.get("path"), entry.get("type")
        if not isinstance(kind, str) or not kind.startswith("sentence_transformers."):
            raise _refusal(f"{kind!r} is no module of sentence-transformers", file=file, field="type")
        if (
            not isinstance(folder, str)
            or PureWindowsPath(folder).anchor
            or ".." in PureWindowsPath(folder).parts
            or "\0" in folder
        ):
            raise InputError(f"names a place outside the directory: {folder!r}", file=file, field="path")
        found.append((kind.rpartition(".")[2], folder))
    return found


def _object(file: Path) -> dict[str, Any]:
    content = read_json(file)
    if not isinstance(content, dict):
        raise InputError("not a JSON object; the file is damaged", file=file)
    return content


def optional(file: Path) -> dict[str, Any]:
    """The JSON object in `file`; empty if there is none."""
    return _object(file) if file.is_file() else {}


def _hidden_size(directory: Path) -> int | None:
    size = optional(directory / "config.json").get("hidden_size")
    return size if isinstance(size, int) else None


def _whole(values: Mapping[str, Any], name: str, *, file: Path, least: int = 1) -> int | None:
    value = values.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"is {value!r}; expected a whole number of at least {least}", file=file, field=name)
    return value


def _flag(values: Mapping[str, Any], name: str, *, file: Path, default: bool = False) -> bool:
    value = values.get(name)
    if value is not None and not isinstance(value, bool):
        raise InputError(f"is {value!r}; expected true or false", file=file, field=name)
    return default if value is None else value


def _read_pooling(file: Path, *, hidden_size: int | None) -> tuple[tuple[str, ...], int]:
    """The poolings, and how wide their vectors are together."""
    values = _object(file)
    if not _flag(values, "include_prompt", file=file, default=True):
        raise _refusal("leaving the prompt out of the pooling is not known", file=file, field="include_prompt")
    name = "embedding_dimension" if "embedding_dimension" in values else "word_embedding_dimension"
    width = _whole(values, name, file=file)
    if width is None:
        raise InputError("is missing", file=file, field=name)
    if hidden_size not in (None, width):
        raise InputError(f"is {width}, hidden_size of config.json is {hidden_size}", file=file, field=name)
    kinds: list[str] = []
    if "pooling_mode" in values:
        given = values["pooling_mode"]
        for mode in given if isinstance(given, list) else [given]:
            if not isinstance(mode, str) or mode not in MODES:
                raise _refusal(f"unknown pooling {mode!r}", file=file, field="pooling_mode")
            kinds.append(MODES[mode])
    else:
        on = [flag for flag in values if flag.startswith("pooling_mode_") and _flag(values, flag, file=file)]
        for flag in on:
            if flag not in FLAGS:
                raise _refusal("unknown pooling", file=file, field=flag)
        kinds = [kind for flag, kind in FLAGS.items() if flag in on]
    kinds = kinds or ["mean"]
    return tuple(kinds), width * len(kinds)


def _read_dense(folder: Path, *, inputs: int) -> Projection:
    file = folder / "config.json"
    values = _object(file)
    for name in ("module_input_name", "module_output_name"):
        if values.get(name) not in (None, "sentence_embedding"):
            raise _refusal(f"{values[name]!r} is not the pooled vector", file=file, field=name)
    if _flag(values, "use_residual", file=file):
        raise _refusal("a residual connection is not known", file=file, field="use_residual")
    shape = (_whole(values, "out_features", file=file), _whole(values, "in_features", file=file))
    if shape[1] != inputs:
        raise InputError(f"is {shape[1]}, the modules before it give {inputs}", file=file, field="in_features")
    activation = values.get("activation_function", "torch.nn.modules.activation.Tanh")
    names = ACTIVATIONS | {f"torch.nn.{path.rpartition('.')[2]}": kind for path, kind in ACTIVATIONS.items()}
    if not isinstance(activation, str) or activation not in names:
        raise _refusal(f"unknown activation {activation!r}", file=file, field="activation_function")
    weights = weights_file(folder)
    tensors = read_weights(weights)
    expected: dict[str, tuple[int | None, ...]] = {"linear.weight": shape}
    if _flag(values, "bias", file=file, default=True):
        expected["linear.bias"] = shape[:1]
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        raise InputError(f"holds {found}; config.json beside it asks for {expected}", file=weights)
    bias = tensors.get("linear.bias")
    return Projection(tensors["linear.weight"].float(), None if bias is None else bias.float(), names[activation])


def read_transformer(
    directory: Path, *, task: str = "feature-extraction", output: str = "token_embeddings"
) -> dict[str, Any]:
    """`max_seq_length` and `do_lower_case`; version 6 may hold the first among the tokenizer's arguments."""
    files = [directory / name for name in TRANSFORMER_CONFIGS]
    file = next((file for file in files if optional(file)), files[0])
    values = optional(file)
    known = {"transformer_task": task, "module_output_name": output}
    for name, value in known.items():
        if values.get(name) not in (None, value):
            raise _refusal(f"is {values[name]!r}, not {value!r}", file=file, field=name)
    for name in ("processing_kwargs", "tokenizer_name_or_path"):
        if values.get(name):
            raise _refusal("is not known", file=file, field=name)
    limit = _whole(values, "max_seq_length", file=file, least=2)
    for name in ("processor_kwargs", "tokenizer_args"):
        arguments = values.get(name) or {}
        if not isinstance(arguments, dict):
            raise InputError("not a table of names and values", file=file, field=name)
        unknown = arguments.keys() - {"model_max_length", "use_fast"}
        if unknown:
            raise _refusal(f"{listing(sorted(unknown))} is not known", file=file, field=name)
        limit = _whole(arguments, "model_max_length", file=file, least=2) or limit
    return {"max_seq_length": limit, "do_lower_case": _flag(values, "do_lower_case", file=file)}


def read_prompts(values: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Prompts, the default one, similarity and `truncate_dim` of `config_sentence_transformers.json`."""
    prompts = values.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(text is None or isinstance(text, str) for text in prompts.values()):
        raise InputError("not a table of names and texts", file=file, field="prompts")
    default = values.get("default_prompt_name")
    if default is not None and default not in list(prompts):
        raise InputError(
            f"{default!r} is not among the prompts: {listing(prompts)}", file=file, field="default_prompt_name"
        )
    similarity = values.get("similarity_fn_name")
    if similarity is not None and not isinstance(similarity, str):
        raise InputError(f"is {similarity!r}; expected a name", file=file, field="similarity_fn_name")
    return {
        "prompts": {name: text or "" for name, text in prompts.items()},
        "default_prompt_name": default,
        "similarity": similarity,
        "truncate_dim": _whole(values, "truncate_dim", file=file),
    }


# Written is the format of version 2: class paths below `sentence_transformers.models`, one flag for each pooling, no
# folder for Normalize. Versions 2.3.1, 2.7.0, 3.4.1, 4.1.0, 5.0.0 and 6.2.0 gave equal vectors (tried by hand with
# transformers 4.57, the last with 5.23). What fails in versions before, because they have no word for it: poolings
# in another order than that of the flags (5.0; hence their newest format there), Dense weights in safetensors (2.7; a
# `.bin` would be a pickle), prompts (2.3) and `truncate_dim` (5.0), which they leave out.
def write_sentence_modules(directory: Path, modules: SentenceModules, *, hidden_size: int) -> None:
    """Write the files into `directory`, which exists and holds, or will hold, the encoder and its tokenizer."""
    names = ["Transformer", "Pooling", *["Dense"] * len(modules.dense), *["Normalize"] * modules.normalize]
    folders = ["" if i == 0 else f"{i}_{name}" for i, name in enumerate(names)]
    for folder, projection in zip(folders[2:], modules.dense, strict=False):
        _write_dense(directory / folder, projection)
    (directory / folders[1]).mkdir(exist_ok=True)
    write_file(directory / folders[1] / "config.json", to_json(_pooling_config(modules.pooling, hidden_size)))
    settings = {"max_seq_length": modules.max_seq_length, "do_lower_case": modules.do_lower_case}
    write_file(directory / TRANSFORMER_CONFIG, to_json(settings))
    model: dict[str, Any] = {
        "model_type": "SentenceTransformer",
        "prompts": dict(modules.prompts),
        "default_prompt_name": modules.default_prompt_name,
        "similarity_fn_name": modules.similarity,
    }
    if modules.truncate_dim is not None:
        model["truncate_dim"] = modules.truncate_dim
    write_file(directory / MODEL_CONFIG, to_json(model))
    entries = [
        {"idx": i, "name": str(i), "path": folder, "type": f"sentence_transformers.models.{name}"}
        for i, (name, folder) in enumerate(zip(names, folders, strict=True))
    ]
    write_file(directory / MODULES, to_json(entries))


def _pooling_config(kinds: Sequence[str], hidden_size: int) -> dict[str, Any]:
    if list(kinds) != [kind for kind in FLAGS.values() if kind in kinds]:
        modes = {kind: mode for mode, kind in MODES.items()}
        return {"embedding_dimension": hidden_size, "pooling_mode": [modes[kind] for kind in kinds]}
    flags = {flag: kind in kinds for flag, kind in FLAGS.items() if kind in kinds or kind != "weighted"}
    return {"word_embedding_dimension": hidden_size, **flags, "pooling_mode_mean_sqrt_len_tokens": False}


def _write_dense(folder: Path, projection: Projection) -> None:
    folder.mkdir(exist_ok=True)
    tensors = {"linear.weight": projection.weight}
    if projection.bias is not None:
        tensors["linear.bias"] = projection.bias
    outputs, inputs = projection.weight.shape
    config = {
        "in_features": inputs,
        "out_features": outputs,
        "bias": projection.bias is not None,
        "activation_function": next(path for path, kind in ACTIVATIONS.items() if kind == projection.activation),
    }
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_file(folder / WEIGHTS, save(contiguous, metadata={"format": "pt"}))
    write_file(folder / "config.json", to_json(config))
