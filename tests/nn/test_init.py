"""How weights start."""

from __future__ import annotations

import math

import pytest
import torch

from bertsmith.batch import Batch
from bertsmith.config.encoder import EncoderConfig
from bertsmith.errors import InputError
from bertsmith.models.bert import FINE_TUNED, Bert
from bertsmith.nn.init import initialize, shifted_sines, sinusoidal_, sinusoids

CONFIG = EncoderConfig(
    vocab_size=500, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=96, pad_token_id=3
)


def test_weights_start_as_a_truncated_normal_and_the_padding_row_at_zero() -> None:
    torch.manual_seed(0)
    model = Bert(CONFIG, heads=("masked_lm", "next_sentence"))
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            assert (parameter == 1).all(), name
        elif parameter.dim() == 1:
            assert (parameter == 0).all(), name
        else:
            assert parameter.abs().max() <= 0.04, name
            assert 0.015 < parameter.std() < 0.02, name  # a normal cut at two deviations has 0.88 of its deviation
    table = model.encoder.embeddings.tokens.weight
    assert not table[3].any()
    assert table[4].any()


@pytest.mark.parametrize("name", sorted(FINE_TUNED))
def test_a_head_to_be_fine_tuned_has_the_whole_deviation(name: str) -> None:
    """As transformers draws it: cut at two deviations, what learns through it is an eighth slower at first."""
    torch.manual_seed(0)
    drawn = [Bert(CONFIG, heads=(name,), num_labels=7).get_submodule(name).get_submodule("linear") for _ in range(60)]
    weights = torch.cat([head.get_parameter("weight").flatten() for head in drawn])
    assert weights.std().item() == pytest.approx(0.02, rel=4 / math.sqrt(2 * len(weights)))
    assert weights.abs().max() > 0.05
    assert not any(head.get_parameter("bias").any() for head in drawn)
    with_pooler = Bert(CONFIG, heads=("pooler", name)).get_submodule("pooler.dense").get_parameter("weight")
    assert with_pooler.std().item() == pytest.approx(0.02, rel=0.05)


def test_the_padding_row_gets_no_gradient_from_look_ups() -> None:
    model = Bert(CONFIG)
    batch = Batch.from_dense(torch.tensor([[5, 3, 7]]))
    model.encoder(batch).square().sum().backward()
    gradient = model.encoder.embeddings.tokens.weight.grad
    assert gradient is not None
    assert not gradient[3].any()
    assert gradient[5].any()


@pytest.mark.parametrize(
    ("kind", "bound"), [("xavier", lambda o, i: math.sqrt(6 / (o + i))), ("kaiming", lambda o, i: math.sqrt(6 / i))]
)
def test_xavier_and_kaiming_are_uniform_within_their_bounds(kind: str, bound: object) -> None:
    torch.manual_seed(0)
    model = Bert(CONFIG, heads=("masked_lm",))
    initialize(model, std=0.02, kind=kind)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and "segments" not in name:
            limit = bound(*parameter.shape)
            assert 0.97 * limit < parameter.abs().max() <= limit, name
            assert parameter.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.05), name
    assert not model.encoder.embeddings.tokens.weight[3].any()


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="expected normal, xavier or kaiming"):
        initialize(torch.nn.Linear(2, 2), std=0.02, kind="glorot")


@pytest.mark.parametrize("width", [6, 7])
def test_sinusoids_are_the_paper_s_formula_also_with_an_odd_width(width: int) -> None:
    table = sinusoids(5, width)
    for position in range(5):
        for column in range(width):
            angle = position / 10000 ** (column // 2 * 2 / width)
            expected = math.sin(angle) if column % 2 == 0 else math.cos(angle)
            assert table[position, column] == pytest.approx(expected, abs=1e-6)


def test_learned_positions_can_start_as_sinusoids_of_a_given_deviation() -> None:
    table = torch.zeros(50, 32)
    sinusoidal_(table, std=0.02)
    assert table.std() == pytest.approx(0.02, rel=1e-3)
    torch.testing.assert_close(table / table.abs().max(), sinusoids(50, 32) / sinusoids(50, 32).abs().max())


@pytest.mark.parametrize("kind", ["learned", "sinusoidal"])
def test_a_sequence_beyond_the_positions_is_refused_with_both_numbers(kind: str) -> None:
    model = Bert(EncoderConfig(**CONFIG.model_dump() | {"max_position_embeddings": 4, "position_kind": kind}))
    with pytest.raises(InputError, match="a sequence has 5 tokens, the model has 4 positions"):
        model.encoder(Batch.from_dense(torch.ones(1, 5, dtype=torch.long)))


@pytest.mark.parametrize(("width", "size"), [(32, 16), (33, 7), (8, 16)])
@pytest.mark.parametrize("offset", [-2, -1, 0, 1, 2])
def test_the_product_of_shifted_sines_is_highest_at_the_offset(width: int, size: int, offset: int) -> None:
    query, key = shifted_sines(width, size, offset)
    waves = sinusoids(40, width)
    scores = (waves @ query.T) @ (waves @ key.T).T
    places = torch.arange(5, 35)
    assert torch.equal(scores[5:35].argmax(1), places + offset)
    assert scores[5:35].amax(1) == pytest.approx(min(size, width) // 2, abs=1e-4)
