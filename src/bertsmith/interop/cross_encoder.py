"""The files by which sentence-transformers knows what a `CrossEncoder` answers: read, in the places of all versions.

Not here: the directories of embedders (`interop.sentence_transformers`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bertsmith.errors import InputError
from bertsmith.interop.sentence_transformers import (
    MODEL_CONFIG,
    MODULES,
    TRANSFORMER_CONFIG,
    optional,
    read_prompts,
    read_transformer,
)

SIGMOIDS = ("torch.nn.modules.activation.Sigmoid", "torch.nn.Sigmoid")
IDENTITIES = ("torch.nn.modules.linear.Identity", "torch.nn.Identity")


@dataclass(frozen=True)
class CrossEncoderFiles:
    """What the files of a `CrossEncoder` say; it cuts what is too long."""

    has_sigmoid: bool
    """Whether its one number goes through a sigmoid; else it is the logit."""
    max_seq_length: int | None
    """Most tokens of a pair, if another file than the tokenizer's says so."""


def read_cross_encoder(directory: Path, *, outputs: int) -> CrossEncoderFiles | None:
    """What the files of `directory`, a classifier of so many outputs, say; None if no `CrossEncoder` wrote it.

    Raises `InputError` naming file and field for what is not computed here: an activation of one output that is neither
    sigmoid nor identity, a default prompt, lower-casing.
    """
    model, config = directory / MODEL_CONFIG, directory / "config.json"
    values, older = optional(model), optional(config)
    stored = older.get("sentence_transformers")
    places = (  # of version 6, of 4 and 5, of those before
        (model, values, "activation_fn"),
        (config, stored if isinstance(stored, dict) else {}, "activation_fn"),
        (config, older, "sbert_ce_default_activation_function"),
    )
    found = [(file, content[field], field) for file, content, field in places if content.get(field) is not None]
    if not found and values.get("model_type") != "CrossEncoder":
        return None
    file, activation, field = found[0] if found else (model, SIGMOIDS[0], "activation_fn")
    if outputs == 1 and activation not in SIGMOIDS + IDENTITIES:
        fix = f"known are {SIGMOIDS[0]} and {IDENTITIES[0]}, with which the answer is the logit"
        raise InputError(f"unknown activation {activation!r}; {fix}", file=file, field=field)
    own = read_prompts(values, model)
    if own["prompts"].get(own["default_prompt_name"]):
        fix = "set it to null, and put the prompt before the first text of each pair"
        raise InputError(f"no prompt is put before pairs here; {fix}", file=model, field="default_prompt_name")
    limit = None
    if (directory / MODULES).is_file():
        settings = read_transformer(directory, task="sequence-classification", output="scores")
        if settings["do_lower_case"]:
            fix = "set it to false, and lower-case the texts"
            raise InputError(
                f"is not known of a CrossEncoder; {fix}", file=directory / TRANSFORMER_CONFIG, field="do_lower_case"
            )
        limit = settings["max_seq_length"]
    return CrossEncoderFiles(activation in SIGMOIDS, limit)
