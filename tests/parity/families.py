"""Tiny models of transformers for each family, every parameter redrawn, and ours read from the same configuration."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.config.encoder import EncoderConfig
from bertsmith.config.families import FAMILIES, read_fields
from bertsmith.interop.families import canonical, exclusive_head, rules
from bertsmith.interop.keymap import to_ours
from bertsmith.models.bert import Bert
from tests.parity.heads import CHOICES, our_logits
from tests.parity.reference import LABELS, redraw

SHAPE: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 1,
}
CONFIGS: dict[str, Any] = {
    "roberta": (transformers.RobertaConfig, {"type_vocab_size": 1, "layer_norm_eps": 1e-5}),
    "xlm-roberta": (transformers.XLMRobertaConfig, {"type_vocab_size": 1}),
    "camembert": (transformers.CamembertConfig, {"hidden_act": "gelu_new"}),
    "distilbert": (transformers.DistilBertConfig, {"pad_token_id": 0}),
    "electra": (transformers.ElectraConfig, {"embedding_size": 24, "pad_token_id": 0, "hidden_act": "gelu_new"}),
    "modernbert": (
        transformers.ModernBertConfig,
        {"local_attention": 8, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3},
    ),
}
DISTILBERT = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
}
SUFFIXES = (
    "Model",
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
)
CASES = [(family, suffix) for family in CONFIGS for suffix in SUFFIXES] + [("electra", "ForPreTraining")]


def their_model(family: str, suffix: str, *, dtype: torch.dtype = torch.float64, **changes: Any) -> Any:
    """A model of transformers with drawn weights, without dropout, in evaluation mode."""
    kind, own = CONFIGS[family]
    values = SHAPE | own | changes
    if family == "distilbert":
        values = {DISTILBERT.get(name, name): value for name, value in values.items()}
        values |= {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0, "qa_dropout": 0.0}
    elif family != "modernbert":
        values |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "summary_last_dropout": 0.0}
    labels = 2 if suffix == "ForQuestionAnswering" else LABELS
    config = kind(**values, num_labels=labels, attn_implementation="eager")
    model = getattr(transformers, FAMILIES[family].title + suffix)(config).to(dtype).eval()
    redraw(model)
    return model


def our_model(theirs: Any) -> Bert:
    """Ours with the configuration and the weights of `theirs`."""
    values = theirs.config.to_dict()
    config = EncoderConfig(**read_fields(values, family=values["model_type"]))
    state = canonical(theirs.state_dict(), family=config.family, tied=config.tie_word_embeddings)
    head = exclusive_head(config.family, state, [type(theirs).__name__])
    tensors, unknown = to_ours(state, rules(config, (head,)), config=config)
    assert not unknown
    heads = {name.split(".")[0] for name in tensors} - {"encoder"}
    dtype = next(theirs.parameters()).dtype
    model = Bert(config, heads=heads, num_labels=LABELS).to(dtype).eval()
    model.load_state_dict(tensors)
    return model


def inputs_of(family: str) -> tuple[Tensor, Tensor, Tensor]:
    """(input_ids, attention_mask, token_type_ids), `[6, 20]`, right-padded with the padding id.

    ModernBERT's are padded by no more than its window: a padding token that sees no real one is NaN in transformers,
    and spoils its neighbours in the next layer.
    """
    generator = torch.Generator().manual_seed(4)
    lengths = torch.tensor((20, 17, 18, 18, 16, 19) if family == "modernbert" else (20, 7, 13, 13, 2, 5))
    ids = torch.randint(4, SHAPE["vocab_size"], (len(lengths), 20), generator=generator)
    mask = (torch.arange(20) < lengths[:, None]).long()
    pad = SHAPE["pad_token_id"] if family not in ("distilbert", "electra") else 0
    segments = {"camembert": 2, "electra": 2}.get(family, 1)
    return ids.masked_fill(mask == 0, pad), mask, torch.randint(0, segments, ids.shape, generator=generator)


def run_theirs(theirs: Any, family: str, ids: Tensor, mask: Tensor, types: Tensor, **labels: Tensor) -> Any:
    """Their forward; token types where the family has them."""
    shape = (len(ids) // CHOICES, CHOICES, -1) if type(theirs).__name__.endswith("Choice") else ids.shape
    types_given = {} if family in ("distilbert", "modernbert") else {"token_type_ids": types.reshape(shape)}
    return theirs(
        ids.reshape(shape),
        attention_mask=mask.reshape(shape),
        **types_given,
        output_hidden_states=True,
        output_attentions=True,
        **labels,
    )


def their_outputs(suffix: str, output: Any, mask: Tensor) -> dict[str, Tensor]:
    """Their outputs under the names of `our_outputs`."""
    keep = mask.bool()
    if suffix == "Model":
        pooled = getattr(output, "pooler_output", None)
        found = {"states": output.last_hidden_state[keep]}
        return found if pooled is None else found | {"pooled": pooled}
    if suffix == "ForQuestionAnswering":
        return {"answer": torch.stack([output.start_logits, output.end_logits], -1)[keep]}
    if suffix == "ForPreTraining":
        return {"replaced": output.logits[keep]}
    name = {
        "ForMaskedLM": "mlm",
        "ForSequenceClassification": "class",
        "ForTokenClassification": "tokens",
        "ForMultipleChoice": "choice",
    }[suffix]
    logits = output.logits.flatten() if name == "choice" else output.logits
    return {name: logits[keep] if name in ("mlm", "tokens") else logits}


def our_outputs(model: Bert, batch: Batch, **options: Any) -> dict[str, Tensor]:
    """Every output that ours has; the hidden states only of a bare encoder."""
    found = our_logits(model, batch, **options)
    if model.discriminator is not None:
        found["replaced"] = model.replaced_logits(found["states"])
    if set(found) - {"states", "pooled"}:
        del found["states"]
    return found
