"""Every family and head against transformers: outputs, attentions, loss gradients, both directions, mutations."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.bundle import read_model
from bertsmith.config.encoder import EncoderConfig
from bertsmith.config.families import FAMILIES, differences, read_fields, to_hf
from bertsmith.files import to_json
from bertsmith.interop.families import architecture, rules, written
from bertsmith.interop.keymap import to_theirs
from bertsmith.models.bert import Bert
from bertsmith.nn.attention import ReferenceAttention
from tests.parity.families import (
    CASES,
    CONFIGS,
    inputs_of,
    our_model,
    our_outputs,
    run_theirs,
    their_model,
    their_outputs,
)

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
ROTARY = 1e-6
"""transformers turns queries and keys in float32, whatever the model's type."""


def assert_equal(ours: Tensor, theirs: Tensor, *, family: str) -> None:
    assert ours.shape == theirs.shape
    tolerance = TOLERANCE[ours.dtype]
    if family == "modernbert":
        tolerance = max(tolerance, ROTARY)
    worst = ((ours - theirs).abs() / (tolerance * theirs.abs().clamp(min=1))).max().item()
    assert worst <= 1, f"{worst:.3g} times the tolerance"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("family", "suffix"), CASES)
def test_outputs_states_and_attentions_equal_transformers(family: str, suffix: str, dtype: torch.dtype) -> None:
    theirs = their_model(family, suffix, dtype=dtype)
    ours = our_model(theirs)
    ids, mask, types = inputs_of(family)
    output = run_theirs(theirs, family, ids, mask, types)
    expected = their_outputs(suffix, output, mask)
    batch, states, reference = Batch.from_dense(ids, mask, types), [], ReferenceAttention()
    for found in (our_outputs(ours, batch, hidden_states=states), our_outputs(ours, batch, attention=reference)):
        assert found.keys() == expected.keys()
        for key, logits in found.items():
            assert_equal(logits, expected[key], family=family)
    for mine, yours in zip(states, output.hidden_states, strict=True):
        assert_equal(mine, yours[mask.bool()], family=family)
    for layer, yours in zip(reference.probabilities, output.attentions, strict=True):
        for i, (mine, length) in enumerate(zip(layer, batch.lengths, strict=True)):
            assert_equal(mine, yours[i, :, :length, :length], family=family)


@pytest.mark.parametrize(("family", "suffix"), CASES)
def test_every_gradient_equals_transformers(family: str, suffix: str) -> None:
    theirs = their_model(family, suffix)
    ours = our_model(theirs)
    ids, mask, types = inputs_of(family)
    generator = torch.Generator().manual_seed(8)
    expected = their_outputs(suffix, run_theirs(theirs, family, ids, mask, types), mask)
    found = our_outputs(ours, Batch.from_dense(ids, mask, types))
    for key, values in expected.items():
        weights = torch.randn(values.shape, generator=generator, dtype=values.dtype)
        (values * weights).sum().backward(retain_graph=True)
        (found[key] * weights).sum().backward(retain_graph=True)
    for parameter in theirs.parameters():
        parameter.data = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
    gradients = dict(our_model(theirs).named_parameters())
    for name, parameter in ours.named_parameters():
        grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        worst = (grad - gradients[name]).abs().max() / gradients[name].abs().max().clamp(min=1)
        assert worst <= (1e-5 if family == "modernbert" else 1e-9), (name, worst)


@pytest.mark.parametrize(("family", "suffix"), CASES)
def test_answers_do_not_depend_on_padding_packing_or_order(family: str, suffix: str) -> None:
    ours = our_model(their_model(family, suffix))
    ids, mask, types = inputs_of(family)
    batch = Batch.from_dense(ids, mask, types)
    together = {key: _rows(batch, values) for key, values in our_outputs(ours, batch).items()}
    order = torch.tensor([3, 0, 4, 2, 1, 5])
    permuted = Batch.from_dense(ids[order], mask[order], types[order])
    for key, values in our_outputs(ours, permuted).items():
        for mine, i in zip(_rows(permuted, values), order.tolist(), strict=True):
            torch.testing.assert_close(mine, together[key][i])


def _rows(batch: Batch, values: Tensor) -> list[Tensor]:
    return list(values) if len(values) == len(batch.lengths) else batch.split(values)


@pytest.mark.parametrize(("family", "suffix"), CASES)
def test_directories_go_both_ways(family: str, suffix: str, tmp_path: Path) -> None:
    theirs = their_model(family, suffix, dtype=torch.float32)
    theirs.save_pretrained(tmp_path / "theirs")
    ours, unknown = read_model(tmp_path / "theirs")
    assert not unknown
    assert not differences(ours.config)
    ids, mask, types = inputs_of(family)
    batch = Batch.from_dense(ids, mask, types)
    expected = their_outputs(suffix, run_theirs(theirs, family, ids, mask, types), mask)
    for key, values in our_outputs(ours, batch).items():
        assert_equal(values, expected[key], family=family)
    again = loaded_by_transformers(ours, tmp_path / "ours")
    assert type(again).__name__ == type(theirs).__name__
    for key, values in their_outputs(suffix, run_theirs(again, family, ids, mask, types), mask).items():
        assert_equal(values, expected[key], family=family)


def loaded_by_transformers(ours: Bert, out: Path, **labels: Any) -> Any:
    """transformers' model from what we write; a missing or unexpected tensor fails."""
    out.mkdir()
    family = ours.config.family
    state = to_theirs(dict(ours.state_dict()), rules(ours.config, ours.heads), vocab_size=ours.config.vocab_size)
    save_file(written(state, ours.heads, family=family), out / "model.safetensors", metadata={"format": "pt"})
    name = architecture(family, ours.heads)
    heads = [head for head in (ours.classifier, ours.token_classifier) if head is not None]
    count = heads[0].linear.out_features if heads else 2
    config = to_hf(ours.config) | {"architectures": [name], "id2label": {str(i): str(i) for i in range(count)}}
    (out / "config.json").write_text(to_json(config))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, info = getattr(transformers, name).from_pretrained(
            out, output_loading_info=True, attn_implementation="eager"
        )
    assert not info["missing_keys"], info
    assert not info["unexpected_keys"], info
    return model.eval()


@pytest.mark.parametrize("family", CONFIGS)
def test_config_json_comes_back_with_equal_values(family: str) -> None:
    theirs = CONFIGS[family][0]()
    values = theirs.to_dict()
    written_values = to_hf(EncoderConfig(**read_fields(values, family=family)))
    again = CONFIGS[family][0](**{key: value for key, value in written_values.items() if key != "model_type"})
    shared = {key for key in again.to_dict() if key in values} - {"architectures", "transformers_version", "dtype"}
    changed = {key: (again.to_dict()[key], values[key]) for key in shared if again.to_dict()[key] != values[key]}
    assert changed.keys() <= {"classifier_dropout", "qa_dropout"}, changed


MUTATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "a rotary base of 10,000 in layers that see all": ("modernbert", {"rope_theta": 10_000.0}),
    "the other rotary base in local layers": ("modernbert", {"local_rope_theta": 160_000.0}),
    "no window": ("modernbert", {"layer_types": None}),
    "a window one token wider": ("modernbert", {"local_attention": 10}),
    "a norm before the first attention": ("modernbert", {"first_norm": True}),
    "tanh in the head": ("modernbert", {"pooler_activation": "tanh", "masked_lm_activation": "tanh"}),
    "positions that start a row too early": ("roberta", {"position_offset": 1, "max_position_embeddings": 39}),
    "hidden_act in the MLM head": ("camembert", {"masked_lm_activation": None}),
    "the wrong activation of the generator": ("electra", {"masked_lm_activation": "relu"}),
    "another activation": ("distilbert", {"hidden_act": "relu"}),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_wrong_axis_is_seen(name: str) -> None:
    """The comparison above would fail for each of these."""
    family, change = MUTATIONS[name]
    theirs = their_model(family, "ForMaskedLM")
    ours = our_model(theirs)
    changed = Bert(EncoderConfig(**ours.config.model_dump() | change), heads=ours.heads).double().eval()
    state = dict(ours.state_dict())
    for key, tensor in changed.state_dict().items():
        if key not in state:  # a norm more than there was
            state[key] = torch.ones_like(tensor)
    state = {key: value[: len(changed.state_dict()[key])] for key, value in state.items()}
    changed.load_state_dict(state)
    ids, mask, types = inputs_of(family)
    expected = their_outputs("ForMaskedLM", run_theirs(theirs, family, ids, mask, types), mask)
    found = our_outputs(changed, Batch.from_dense(ids, mask, types))
    assert (found["mlm"] - expected["mlm"]).abs().max() > 1e-4


@pytest.mark.parametrize("part", ["gate and value", "query and key", "two norms"])
def test_swapped_weights_are_seen(part: str) -> None:
    theirs = their_model("modernbert", "ForMaskedLM")
    ours = our_model(theirs)
    block = ours.encoder.blocks[1]
    with torch.no_grad():
        if part == "gate and value":
            weight = block.get_parameter("feedforward.intermediate.weight")
            weight.copy_(weight.roll(len(weight) // 2, 0))
        elif part == "query and key":
            weight = block.get_parameter("attention.qkv.weight")
            query, key, value = weight.clone().chunk(3)
            weight.copy_(torch.cat([key, query, value]))
        else:
            one, other = block.get_parameter("attention_norm.weight"), block.get_parameter("feedforward_norm.weight")
            kept = one.data.clone()
            one.data.copy_(other.data)
            other.data.copy_(kept)
    ids, mask, types = inputs_of("modernbert")
    expected = their_outputs("ForMaskedLM", run_theirs(theirs, "modernbert", ids, mask, types), mask)
    assert (our_outputs(ours, Batch.from_dense(ids, mask, types))["mlm"] - expected["mlm"]).abs().max() > 1e-4


def test_every_family_says_what_it_cannot_express() -> None:
    for family in FAMILIES:
        config = EncoderConfig(**read_fields({}, family=family))
        assert differences(config) == []
        assert to_hf(config)["model_type"] == family
        other = config.model_copy(update={"embedding_scale": True})
        assert differences(other) == ["embedding_scale"]
        assert to_hf(other)["model_type"] == "bertsmith"


def test_a_default_rope_is_known_by_either_name() -> None:
    for name in ("rope_type", "type"):
        fields = read_fields(
            {"rope_parameters": {"full_attention": {name: "default", "rope_theta": 7.0}}}, family="modernbert"
        )
        assert fields["rope_theta"] == 7.0


def test_modernbert_has_one_activation_for_all_heads() -> None:
    config = EncoderConfig(**read_fields({"classifier_activation": "relu"}, family="modernbert"))
    assert (config.pooler_activation, config.masked_lm_activation) == ("relu", "relu")
    assert to_hf(config)["classifier_activation"] == "relu"
    assert differences(config.model_copy(update={"masked_lm_activation": "tanh"})) == ["masked_lm_activation"]


@pytest.mark.parametrize(
    ("family", "values", "message"),
    [
        ("roberta", {"max_position_embeddings": 2}, "leaves no position"),
        ("electra", {"summary_type": "mean"}, "summary_type 'mean'"),
        ("modernbert", {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "'yarn'"),
        ("modernbert", {"rope_parameters": {"sliding_attention": {"type": "linear", "factor": 4.0}}}, "'linear'"),
        (
            "modernbert",
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 100.0}},
            "^rope_parameters .* object for",
        ),
        ("modernbert", {"rope_parameters": [100.0]}, "^rope_parameters .* object for each"),
        ("modernbert", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "^rope_scaling .* 'linear'"),
        ("modernbert", {"global_attn_every_n_layers": 0}, "global_attn_every_n_layers 0"),
    ],
)
def test_a_variant_without_a_field_is_refused(family: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_fields(values, family=family)
