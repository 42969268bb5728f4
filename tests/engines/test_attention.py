"""The compiled attention against the formula, and the inputs that it leaves to torch."""

from __future__ import annotations

import importlib.util
import math
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
from llvmlite import binding
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.engines import attention, tiles
from bertsmith.engines.attention import ENOUGH_TOKENS, bulk_attention, fast_attention
from bertsmith.nn.attention import ReferenceAttention, packed_attention


def parts_of(lengths: tuple[int, ...], *, heads: int, size: int, value_size: int) -> tuple[list[Tensor], Batch]:
    torch.manual_seed(sum(lengths))
    sizes = (size, size, value_size)
    whole = torch.randn(sum(lengths), heads * sum(sizes))  # parts of one matrix, as the encoder has them
    parts = [part.unflatten(1, (heads, -1)) for part in whole.split([heads * each for each in sizes], dim=1)]
    return parts, Batch.from_sequences([np.ones(n, np.int64) for n in lengths])


@torch.inference_mode()
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 8, 8), (2, 32, 32), (2, 64, 64), (2, 7, 80), (1, 96, 16)])
@pytest.mark.parametrize("lengths", [(1,), (3, 16, 17), (33, 5, 64, 65), (96, 127, 128, 129), (512, 300), (2,) * 50])
def test_it_is_the_formula(lengths: tuple[int, ...], shape: tuple[int, int, int]) -> None:
    heads, size, value_size = shape
    parts, batch = parts_of(lengths, heads=heads, size=size, value_size=value_size)
    for window in (None, 0, 3, 16, 64, 700):
        expected = ReferenceAttention()(*(part.double() for part in parts), batch, 0.0, window)
        found = fast_attention(*parts, batch, 0.0, window)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize(("machine", "expected"), [("x86_64", (8, 6, 2)), ("arm64", (4, 8, 3))])
def test_it_is_the_formula_with_narrower_registers(
    machine: str, expected: tuple[int, int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = binding.get_host_cpu_features()
    features["avx512f"] = False
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: features)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    spec = importlib.util.spec_from_file_location("narrower_tiles", tiles.__file__)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(narrower := importlib.util.module_from_spec(spec))
    assert expected == (narrower.LANES, narrower.ROWS, narrower.WIDTH)
    monkeypatch.setattr(tiles, "attend", narrower.attend)
    for size, value_size in ((32, 32), (20, 9)):
        parts, batch = parts_of((1, 7, 8, 50, 129), heads=2, size=size, value_size=value_size)
        for window in (None, 20):
            exact = ReferenceAttention()(*(part.double() for part in parts), batch, 0.0, window)
            found = fast_attention(*parts, batch, 0.0, window)
            torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_negative_scores_alone_do_not_vanish() -> None:
    parts, batch = parts_of((5, 19, 33), heads=2, size=16, value_size=16)
    query, key = parts[0].abs() * 40, -parts[1].abs() * 40
    expected = ReferenceAttention()(query.double(), key.double(), parts[2].double(), batch, 0.0)
    found = fast_attention(query, key, parts[2], batch, 0.0)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)


@torch.inference_mode()
@pytest.mark.parametrize("place", [0, 2, 17, 18])
def test_numbers_that_are_none_stay_in_their_sequence(place: int) -> None:
    parts, batch = parts_of((5, 19, 1, 6, 33), heads=2, size=16, value_size=16)
    expected = fast_attention(*parts, batch, 0.0)
    for part in parts:
        part[5 + place] = math.nan
    found = fast_attention(*parts, batch, 0.0)
    assert found[5:24].isnan().all()
    assert torch.equal(found[:5], expected[:5])
    assert torch.equal(found[24:], expected[24:])


@torch.inference_mode()
def test_a_key_that_no_window_shows_is_not_read() -> None:
    parts, batch = parts_of((50,), heads=2, size=16, value_size=16)
    expected = fast_attention(*parts, batch, 0.0, 7)
    parts[1][10] = math.nan
    found = fast_attention(*parts, batch, 0.0, 7)
    assert found[3:18].isnan().all()
    assert torch.equal(found[:3], expected[:3])
    assert torch.equal(found[18:], expected[18:])


@torch.inference_mode()
def test_large_scores_neither_overflow_nor_vanish() -> None:
    parts, batch = parts_of((40, 9), heads=2, size=32, value_size=32)
    parts = [parts[0] * 60, parts[1] * 60, parts[2]]
    expected = ReferenceAttention()(*(part.double() for part in parts), batch, 0.0)
    torch.testing.assert_close(fast_attention(*parts, batch, 0.0).double(), expected, rtol=1e-3, atol=1e-3)
    parts[0].zero_()
    mean = torch.cat([part.mean(0, keepdim=True).expand_as(part) for part in batch.split(parts[2])])
    torch.testing.assert_close(fast_attention(*parts, batch, 0.0), mean, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [{"dtype": torch.float64}, {"grad": True}, {"dtype": torch.bfloat16}, {"turned": True}],
)
def test_other_inputs_go_the_usual_way(change: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    parts, batch = parts_of((20, 7), heads=2, size=8, value_size=8)
    parts = [part.to(change.get("dtype", torch.float32)) for part in parts]
    if "turned" in change:
        parts[1] = parts[1].transpose(1, 2).contiguous().transpose(1, 2)
    asked = []

    def watched(*arguments: Any) -> Tensor:
        asked.append(arguments)
        return packed_attention(*arguments)

    monkeypatch.setattr(attention, "packed_attention", watched)
    with torch.set_grad_enabled(change.get("grad", False)):
        found = fast_attention(*parts, batch, 0.0)
        torch.testing.assert_close(found, packed_attention(*parts, batch, 0.0))
        assert len(asked) == 1


@torch.inference_mode()
def test_few_tokens_are_not_worth_loading_it(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = []
    monkeypatch.setattr(attention, "fast_attention", lambda *_: chosen.append("fast"))
    monkeypatch.setattr(attention, "packed_attention", lambda *_: chosen.append("packed"))
    for lengths in ((ENOUGH_TOKENS - 1,), (ENOUGH_TOKENS,)):
        parts, batch = parts_of(lengths, heads=1, size=4, value_size=4)
        bulk_attention(*parts, batch, 0.0)
    monkeypatch.setattr(attention, "has_numba", lambda: False)
    bulk_attention(*parts, batch, 0.0)
    assert chosen == ["packed", "fast", "packed"]


@pytest.mark.parametrize(
    ("numba_package", "environment"),
    [("raise ImportError('Numba needs NumPy 2.3 or less')", {}), ("", {"NUMBA_DISABLE_JIT": "1"})],
)
def test_a_numba_that_does_not_work_is_none(numba_package: str, environment: dict[str, str], tmp_path: Path) -> None:
    if numba_package:
        (tmp_path / "numba.py").write_text(numba_package)
    script = "from bertsmith.engines.attention import has_numba; print(has_numba())"
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path, **environment}
    found = subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True)
    assert found.stdout.decode().strip() == "False"
