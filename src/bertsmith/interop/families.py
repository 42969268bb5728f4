"""Whose tensors a checkpoint holds: the rules of its family and heads, its class, and older spellings of the names.

Not here: the names themselves (`interop.tables`), and `config.json` (`config.families`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from bertsmith.config.encoder import EncoderConfig
from bertsmith.config.families import FAMILIES
from bertsmith.interop.keymap import Drop, Rule, expand
from bertsmith.interop.tables import TABLES

SUFFIXES = {
    "classifier": "ForSequenceClassification",
    "token_classifier": "ForTokenClassification",
    "multiple_choice": "ForMultipleChoice",
    "question_answering": "ForQuestionAnswering",
    "discriminator": "ForPreTraining",
}
"""Head -> what the name of transformers' class of a model that has it ends with."""


def rules(config: EncoderConfig, heads: Collection[str]) -> list[Rule]:
    """The table of a model of this shape; `heads` tells whose the names are that several heads have."""
    table = TABLES[config.family]
    named = [head for head in table.exclusive if head in heads]
    if len(named) > 1:
        raise ValueError(f"transformers has one name for the tensors of each of these heads: {named}; keep one")
    own = table.exclusive.get(named[0] if named else "", [])
    has_pooler = any(not isinstance(rule, Drop) and rule.ours == "pooler.dense.weight" for rule in own)
    return expand([*table.rules, *own, *([] if has_pooler else table.pooler)], config)


def architecture(family: str, heads: Collection[str]) -> str:
    """The transformers class that has these heads: `("pooler", "classifier")` -> the classification class.

    A family without a class for next sentence is named by its other heads.
    """
    title = FAMILIES[family].title
    for head, suffix in SUFFIXES.items():
        if head in heads:
            return title + suffix
    follows = "next_sentence" in heads and family == "bert"
    if "masked_lm" in heads:
        return f"{title}ForPreTraining" if follows else f"{title}ForMaskedLM"
    return f"{title}ForNextSentencePrediction" if follows else f"{title}Model"


def head_of_classes(family: str, architectures: Sequence[str]) -> str | None:
    """The head of `SUFFIXES` that the classes of a config.json name; None if they name none."""
    title = FAMILIES[family].title
    named = (head for head, suffix in SUFFIXES.items() if title + suffix in architectures)
    return next((head for head in named if head != "discriminator" or family == "electra"), None)


def exclusive_head(family: str, state: Collection[str], architectures: Sequence[str]) -> str:
    """Which of our heads the tensors are whose names several heads have: by the class that config.json names, or by
    what else is there.
    """
    table = TABLES[family]
    named = head_of_classes(family, architectures)
    if named in table.exclusive:
        return str(named)
    return next(head for tensor, head in table.hints if not tensor or tensor in state)


def canonical(state: Mapping[str, Tensor], *, family: str, tied: bool) -> dict[str, Tensor]:
    """The tensors under the names of today's transformers, whoever wrote them.

    `module.` of a parallel wrapper goes, `gamma` and `beta` of the norms become `weight` and `bias`, a bare encoder
    gets its prefix; of tied weights that were stored once, or twice, one remains.
    """
    table = TABLES[family]
    prefix, modules = f"{table.prefix}.", tuple(f"{module}." for module in table.modules)
    wrapped = all(name.startswith("module.") for name in state)
    bare = not any(name.removeprefix("module.").startswith(prefix) for name in state)
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        name = name.removeprefix("module.") if wrapped else name
        name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))
        found[prefix + name if bare and name.startswith(modules) else name] = tensor
    first, *others = table.decoder_bias
    for other in others:
        bias = found.pop(other, None)
        if bias is not None and not (tied and first in found):
            found[first] = bias
    if tied and (decoder := found.pop(table.decoder, None)) is not None:
        tokens = next(
            rule.theirs
            for rule in table.rules
            if not isinstance(rule, Drop) and rule.ours == "encoder.embeddings.tokens.weight"
        )
        found.setdefault(str(tokens), decoder)
    return found


def written(state: dict[str, Tensor], heads: Collection[str], *, family: str) -> dict[str, Tensor]:
    """The tensors as today's transformers writes them: a bare encoder without its prefix, an untied decoder with the
    bias in every place.
    """
    table = TABLES[family]
    first, *others = table.decoder_bias
    if table.decoder in state and first in state:
        state = state | {other: state[first].clone() for other in others}
    if architecture(family, heads).endswith("Model"):
        state = {name.removeprefix(f"{table.prefix}."): tensor for name, tensor in state.items()}
    return state


def encoder_names(family: str) -> tuple[str, ...]:
    """What the names of all tensors of an encoder begin with: `("bert.embeddings.", "bert.encoder.", …)`."""
    table = TABLES[family]
    return tuple(f"{table.prefix}.{module}." for module in table.modules if module != "pooler")
