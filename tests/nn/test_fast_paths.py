"""The CPU's own paths: the same numbers as torch's, with an error no larger than torch's own."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.nn import half_attention as half
from bertsmith.nn import linear as linears
from bertsmith.nn.attention import ReferenceAttention, packed_attention
from bertsmith.nn.half_attention import Bucket, buckets, half_attention
from bertsmith.nn.linear import Linear, linear, onednn_is_faster
from bertsmith.runtime import fastest_precision, products_in

needs_onednn = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch has no oneDNN product"
)


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take oneDNN whatever the processor."""
    monkeypatch.setattr(linears, "onednn_is_faster", lambda: True)


def gradients(function, inputs: list[Tensor], given: Tensor) -> list[Tensor]:
    leaves = [part.detach().clone().requires_grad_() for part in inputs]
    output = function(*leaves)
    output.backward(given.to(output.dtype))
    return [output.detach(), *(leaf.grad for leaf in leaves)]


@needs_onednn
@pytest.mark.parametrize("shape", [(7,), (1,), (3, 5), (300,)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_linear_equals_torch_with_all_gradients(shape: tuple[int, ...], with_bias: bool, onednn: None) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(*shape, 24), torch.randn(40, 24)] + [torch.randn(40)] * with_bias
    given = torch.randn(*shape, 40)
    ours, theirs = (gradients(f, inputs, given) for f in (linear, F.linear))
    truth = gradients(F.linear, [part.double() for part in inputs], given.double())
    for one, other, exact in zip(ours, theirs, truth, strict=True):
        error, limit = ((part - exact).norm() / exact.norm() for part in (one, other))
        assert error <= max(4 * limit, 1e-6)
    with torch.inference_mode():
        torch.testing.assert_close(linear(*inputs), theirs[0], rtol=1e-5, atol=1e-5)


@needs_onednn
def test_linear_takes_columns_and_slices_as_they_are(onednn: None) -> None:
    torch.manual_seed(0)
    wide, weight = torch.randn(24, 50), torch.randn(8, 24)
    for values in (wide.t(), wide.t()[::2], torch.randn(9, 48)[:, ::2]):
        torch.testing.assert_close(linear(values, weight), F.linear(values, weight), rtol=1e-5, atol=1e-5)


@needs_onednn
def test_onednn_is_left_to_what_it_can_do(onednn: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Doubles, nothing at all, autocast and counters of operations go torch's own way."""
    monkeypatch.setattr(linears, "_product", lambda *_: pytest.fail("oneDNN was called"))
    layer = Linear(6, 4)
    assert layer.double()(torch.randn(3, 6).double()).dtype == torch.float64
    layer = layer.float()
    assert layer(torch.randn(0, 6)).shape == (0, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(3, 6)).dtype == torch.bfloat16
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        layer(torch.randn(3, 6))
    assert counter.get_total_flops() == 2 * 3 * 6 * 4


@needs_onednn
def test_frozen_weights_get_no_gradient(onednn: None) -> None:
    layer = Linear(6, 4)
    layer.weight.requires_grad_(False)
    values = torch.randn(3, 6, requires_grad=True)
    layer(values).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(values.grad, layer.weight.sum(0).expand(3, 6))
    torch.testing.assert_close(layer.bias.grad, torch.full((4,), 3.0))


def test_intels_processors_keep_mkl(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    for vendor, faster in (("GenuineIntel", False), ("AuthenticAMD", True)):
        cpuinfo = tmp_path / vendor
        cpuinfo.write_text(f"vendor_id\t: {vendor}\n")
        monkeypatch.setattr(linears, "Path", lambda _, place=cpuinfo: place)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
        monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", None, raising=False)
        onednn_is_faster.cache_clear()
        assert onednn_is_faster() is (faster and torch.backends.mkldnn.is_available())
    onednn_is_faster.cache_clear()


@pytest.mark.parametrize("lengths", [(128,) * 4, (33,) * 6, (100, 101, 110, 128), (256,), (1, 1, 2, 50)])
@pytest.mark.parametrize(("sharpness", "size"), [(1.0, 64), (4.0, 48)])
def test_half_attention_is_no_further_from_the_truth_than_twice_torchs_kernel(
    lengths: tuple[int, ...], sharpness: float, size: int
) -> None:
    """Output and all gradients, of sequences as long as one another, and of padded ones."""
    torch.manual_seed(0)
    batch = Batch.from_sequences([np.zeros(length, np.int64) for length in lengths])
    query, key, value, given = (torch.randn(batch.total, 3, size) for _ in range(4))
    inputs = [part.bfloat16() for part in (query * sharpness, key, value)]
    bucket = Bucket(lengths, 0)

    def torchs(*parts: Tensor) -> Tensor:
        contexts = [
            F.scaled_dot_product_attention(*(part.transpose(0, 1)[None] for part in of_one))[0].transpose(0, 1)
            for of_one in zip(*(batch.split(part) for part in parts), strict=True)
        ]
        return torch.cat(contexts)

    def exactly(*parts: Tensor) -> Tensor:
        return ReferenceAttention()(*parts, batch, 0.0)

    truth = gradients(exactly, [part.double() for part in inputs], given.bfloat16().double())
    with products_in(torch.bfloat16, torch.device("cpu")):
        ours = gradients(lambda *parts: half_attention(*parts, bucket), inputs, given.bfloat16())
    theirs = gradients(torchs, inputs, given.bfloat16())
    for name, exact, mine, other in zip(("output", "query", "key", "value"), truth, ours, theirs, strict=True):
        assert mine.dtype == torch.bfloat16
        error, limit = ((part.double() - exact).square().mean().sqrt() for part in (mine, other))
        assert error <= 2 * limit, name


def test_rounded_scores_would_be_noticed() -> None:
    """The same attention with scores in bfloat16, as plain autocast would have them, exceeds the limit."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(4, 3, 128, 64).bfloat16() for _ in range(3))
    exact = F.scaled_dot_product_attention(query.double() * 4, key.double(), value.double())
    kernel = F.scaled_dot_product_attention(query * 4, key, value)
    rounded = ((query * 4 / 8) @ key.mT).softmax(-1) @ value
    theirs, wrong = ((part.double() - exact).square().mean().sqrt() for part in (kernel, rounded))
    assert wrong > 2 * theirs


@pytest.mark.parametrize("lengths", [(5, 6, 7, 7, 30, 31, 128, 128), (128,) * 9, (1,), (3, 90)])
def test_packed_attention_in_bfloat16_equals_the_formula(
    lengths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Buckets of all sizes, with the threshold as it is and with none."""
    torch.manual_seed(0)
    batch = Batch.from_sequences([np.zeros(length, np.int64) for length in lengths])
    parts = [torch.randn(batch.total, 2, 16).bfloat16() for _ in range(3)]
    expected = ReferenceAttention()(*(part.double() for part in parts), batch, 0.0)
    for threshold in (half.FEWEST_SCORES, 0):
        monkeypatch.setattr(half, "FEWEST_SCORES", threshold)
        torch.testing.assert_close(packed_attention(*parts, batch, 0.0).double(), expected, rtol=0.02, atol=0.02)


def test_buckets_hold_every_sequence_once_and_little_padding() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        lengths = tuple(sorted(rng.integers(1, 200, rng.integers(1, 40)).tolist()))
        found = buckets(lengths)
        assert tuple(length for bucket in found for length in bucket.lengths) == lengths
        assert [bucket.start for bucket in found] == [0, *np.cumsum([bucket.tokens for bucket in found])[:-1]]
        for bucket in found:
            padded = bucket.longest * len(bucket.lengths)
            assert bucket.tokens >= (1 - half.MOST_PADDING) * padded


def test_half_attention_is_for_many_short_sequences() -> None:
    assert Bucket((128,) * 32, 0).pays_off(4)
    assert not Bucket((512,) * 8, 0).pays_off(4)
    assert not Bucket((30,), 0).pays_off(4)


def test_products_in_bfloat16_leaves_the_process_as_it_was() -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision
    left, right = torch.randn(64, 64), torch.randn(64, 64)
    exact = left @ right
    with products_in(torch.bfloat16, torch.device("cpu")):
        assert (left @ right).dtype == torch.bfloat16
    with pytest.raises(RuntimeError, match="shape"), products_in(torch.bfloat16, torch.device("cpu")):
        torch.randn(2, 3) @ torch.randn(2, 3)
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    assert torch.equal(left @ right, exact)
    with products_in(torch.float32, torch.device("cpu")):
        assert torch.equal(left @ right, exact)


@pytest.mark.parametrize(("bfloat16", "chosen"), [(4.0, "bfloat16"), (1.4, "float32"), (0.3, "float32")])
def test_bfloat16_is_chosen_where_it_pays(bfloat16: float, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {torch.float32: 1.0, torch.bfloat16: bfloat16}
    monkeypatch.setattr("bertsmith.runtime._best_rate", lambda _, dtype, **__: rates[dtype])
    assert fastest_precision(torch.device("cpu")) == chosen


FAULTS = """
import resource, sys, torch
from bertsmith.runtime import keep_memory
if sys.argv[1] == "keep":
    keep_memory()
for _ in range(10):  # the heap finds its shape
    torch.ones(64_000_000 // 4)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(64_000_000 // 4)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="keep_memory is for glibc")
def test_kept_memory_is_used_again_instead_of_fetched_from_the_system() -> None:
    """Twenty blocks of 64 MB, one after the other: 312,500 pages of 4 kB, or almost none."""
    faults = {}
    for mode in ("leave", "keep"):
        result = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True)
        faults[mode] = int(result.stdout)
    assert 50 * faults["keep"] < faults["leave"]
