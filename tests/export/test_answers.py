"""The graph of every family and task: what torch says at nine shapes, and what transformers says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bertsmith.config.encoder import EncoderConfig
from bertsmith.export.engine import run_session
from bertsmith.export.verify import SHAPES
from bertsmith.models.bert import Bert
from bertsmith.models.pooling import Projection
from bertsmith.models.sentence import SentenceModules
from bertsmith.presets import LAYOUTS
from tests.export.graphs import verified
from tests.parity.families import CASES, inputs_of, our_model, run_theirs, their_model, their_outputs
from tests.parity.heads import CHOICES, their_logits
from tests.parity.heads import run_theirs as run_bert
from tests.parity.reference import HEADS, dense_input, pair, redraw

KINDS = {
    "Model": "encode",
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "classify",
    "ForTokenClassification": "tag",
    "ForQuestionAnswering": "qa",
    "ForMultipleChoice": "choice",
    "ForPreTraining": "replaced",
    "ForNextSentencePrediction": "next-sentence",
}
SOME = [
    (family, suffix)
    for family, suffix in CASES
    if suffix in ("ForMaskedLM", "ForPreTraining")
    or (family == "modernbert" and suffix in ("ForSequenceClassification", "ForTokenClassification"))
]
"""Every family, and heads unlike BERT's; `test_dense` has all of them."""

LONG = {"max_position_embeddings": 514}


def run(
    session: object, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor, *, choices: bool
) -> dict[str, np.ndarray]:
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    if choices:
        feeds = {name: values.unflatten(0, (-1, CHOICES)) for name, values in feeds.items()}
    wanted = {entry.name for entry in session.get_inputs()}  # type: ignore[attr-defined]
    return run_session(session, {name: values.numpy() for name, values in feeds.items() if name in wanted})


def flattened(found: dict[str, np.ndarray], keep: torch.Tensor, suffix: str) -> dict[str, torch.Tensor]:
    """Under the names of `their_outputs`."""
    tensors = {name: torch.from_numpy(values) for name, values in found.items()}
    if suffix == "ForQuestionAnswering":
        return {"answer": torch.stack([tensors["start_logits"], tensors["end_logits"]], -1)[keep]}
    if suffix == "Model":
        names = {"last_hidden_state": "states", "pooler_output": "pooled"}
        return {names[name]: values[keep] if values.dim() == 3 else values for name, values in tensors.items()}
    logits = tensors["logits"]
    return {
        "logits": logits[keep]
        if logits.shape[:2] == keep.shape
        else logits.flatten()
        if suffix == "ForMultipleChoice"
        else logits
    }


@pytest.mark.slow
@pytest.mark.parametrize(("family", "suffix"), SOME)
def test_every_family_and_head(family: str, suffix: str, tmp_path: Path) -> None:
    theirs = their_model(family, suffix, dtype=torch.float32)
    session, differences = verified(tmp_path, our_model(theirs), KINDS[suffix])
    assert len(differences) == len(SHAPES) == 9
    ids, mask, types = inputs_of(family)
    with torch.inference_mode():
        expected = their_outputs(suffix, run_theirs(theirs, family, ids, mask, types), mask)
    found = flattened(run(session, ids, mask, types, choices=suffix == "ForMultipleChoice"), mask.bool(), suffix)
    if suffix not in ("Model", "ForQuestionAnswering"):
        expected = {"logits": next(iter(expected.values()))}
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert ((found[name] - values).abs() / values.abs().clamp(min=1)).max() < 1e-4, name


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in HEADS if name != "BertForPreTraining"])
def test_every_head_of_bert(name: str, tmp_path: Path) -> None:
    theirs, ours = pair(name, dtype=torch.float32, **LONG)
    suffix = name.removeprefix("Bert")
    session, _ = verified(tmp_path, ours, KINDS[suffix])
    ids, mask, types = dense_input()
    with torch.inference_mode():
        expected = their_logits(name, run_bert(name, theirs, ids, mask, types), mask.bool())
    found = flattened(run(session, ids, mask, types, choices=suffix == "ForMultipleChoice"), mask.bool(), suffix)
    if suffix not in ("Model", "ForQuestionAnswering"):
        del expected["states"]
        expected = {"logits": next(iter(expected.values()))}
    for key, values in found.items():
        reference = expected[key]
        assert ((values - reference).abs() / reference.abs().clamp(min=1)).max() < 1e-4, key


SIZES = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
OTHERS: dict[str, dict[str, Any]] = {
    name: LAYOUTS[name] | SIZES | {"max_position_embeddings": 40} for name in ("codertimo", "handwritten", "original")
}
OTHERS["pruned"] = SIZES | {"max_position_embeddings": 40, "pruned_heads": {0: (1, 2), 1: (0,)}}
OTHERS["value heads"] = SIZES | {"max_position_embeddings": 40, "attention_head_size": 6, "value_head_size": 10}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_layouts_that_transformers_does_not_know(name: str, tmp_path: Path) -> None:
    model = Bert(EncoderConfig(**OTHERS[name]), heads=("masked_lm",)).eval()
    redraw(model)
    session, differences = verified(tmp_path, model, "fill-mask")
    assert len(differences) == 9
    assert session.get_outputs()[0].shape == ["batch_size", "sequence_length", 99]


def modules(kinds: tuple[str, ...]) -> SentenceModules:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(7, 32 * len(kinds), generator=generator)
    return SentenceModules(
        kinds,
        (Projection(weight, torch.randn(7, generator=generator), "tanh"),),
        normalize=True,
        truncate_dim=5,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [("mean",), ("max", "cls"), ("weighted",)])
def test_pooling_projection_and_normalisation_are_in_the_graph(kinds: tuple[str, ...], tmp_path: Path) -> None:
    _, ours = pair("BertModel", dtype=torch.float32, **LONG)
    session, differences = verified(tmp_path, ours, "embed", modules(kinds))
    assert [entry.name for entry in session.get_outputs()] == ["last_hidden_state", "sentence_embedding"]
    assert session.get_outputs()[1].shape == ["batch_size", 5]
    assert len(differences) == 9


@pytest.mark.slow
def test_a_row_without_tokens_spoils_no_other(tmp_path: Path) -> None:
    _, ours = pair("BertModel", dtype=torch.float32)
    session, _ = verified(tmp_path, ours, "embed", SentenceModules(normalize=True))
    ids, mask, types = dense_input((6, 4))
    both = run(session, ids, mask, types, choices=False)["sentence_embedding"]
    mask[1] = 0
    alone = run(session, ids, mask, types, choices=False)["sentence_embedding"]
    assert np.isfinite(alone).all()
    np.testing.assert_allclose(alone[0], both[0], atol=1e-6)
