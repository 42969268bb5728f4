"""`--engine`: what is chosen, why, and that it is remembered."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bertsmith.config.encoder import EncoderConfig
from bertsmith.engines import choose
from bertsmith.engines.choose import Measured, chosen, lack_of_bfloat16, lack_of_int8, use
from bertsmith.engines.swap import MAX_LOSS
from bertsmith.errors import InputError
from bertsmith.models.encoder import Encoder
from tests.cli.run import bertsmith as run

CPU = torch.device("cpu")
needs_int8 = pytest.mark.skipif(bool(lack_of_int8(CPU)), reason=str(lack_of_int8(CPU)))


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    return Encoder(EncoderConfig(vocab_size=99, **shape)).eval()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bertsmith" / "engines.json"


@pytest.mark.parametrize(
    ("measured", "pays_off", "line"),
    [
        (
            Measured("int8", 2.94, 0.0004, 0.004),
            True,
            "int8 is 2.9x faster here, largest difference 0.004, mean 1 - cosine 0.0004",
        ),
        (Measured("bf16", 1.1, 0.0004, 0.004), False, "bf16 is hardly faster here (1.1x)"),
        (Measured("int8", 0.4, 0.0004, 0.004), False, "int8 is no faster here (0.4x)"),
        (
            Measured("int8", 3.0, 2 * MAX_LOSS, 0.4),
            False,
            "int8 changes too much (largest difference 0.4, mean 1 - cosine 0.01; limit 0.005)",
        ),
    ],
)
def test_an_engine_must_be_faster_and_true(measured: Measured, pays_off: bool, line: str) -> None:
    assert measured.pays_off is pays_off
    assert str(measured) == line


def test_the_fastest_that_pays_off_is_chosen() -> None:
    half, bytes_ = Measured("bf16", 1.5, 0.0, 0.0), Measured("int8", 2.0, 0.0004, 0.1)
    assert chosen([half, bytes_]) == "int8"
    assert chosen([half, Measured("int8", 2.0, 1.0, 1.0)]) == "bf16"
    assert chosen([Measured("bf16", 1.1, 0.0, 0.0)]) == chosen([]) == "torch"


@needs_int8
def test_a_measurement_is_made_once_and_explained(
    encoder: Encoder, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"1")
    with caplog.at_level("INFO"):
        first = use(copy.deepcopy(encoder), "auto", weights=weights)
    (kept,) = json.loads(cache.read_text()).values()
    found = [Measured(**each) for each in kept]
    assert chosen(found) == first
    (message,) = caplog.messages
    assert all(str(each) in message for each in found)
    assert message.endswith(f": using {first}")
    monkeypatch.setattr(choose, "measure", None)
    assert use(copy.deepcopy(encoder), "auto", weights=weights) == first
    weights.write_bytes(b"22")
    with pytest.raises(TypeError, match="NoneType"):
        use(encoder, "auto", weights=weights)


@needs_int8
def test_a_damaged_or_unwritable_memory_is_no_obstacle(
    encoder: Encoder, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"1")
    cache.parent.parent.write_text("a file where a directory should be")
    assert use(encoder, "auto", weights=weights) in ("torch", "bf16", "int8")
    assert "could not be kept" in caplog.text


@pytest.mark.parametrize(
    "spoil",
    [
        lambda key, kept: "{",
        lambda key, kept: "[" * 100_000,
        lambda key, kept: json.dumps([1]),
        lambda key, kept: json.dumps({key: []}),
        lambda key, kept: json.dumps({key: [{**kept[0], "speed_up": "fast"}]}),
        lambda key, kept: json.dumps({key: [{**kept[0], "loss": None}]}),
        lambda key, kept: json.dumps({key: [{**kept[0], "engine": "onnx"}]}),
    ],
)
def test_a_damaged_memory_is_mended(
    spoil: Callable[[str, Any], str], encoder: Encoder, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"1")
    monkeypatch.setattr(choose, "lack_of_bfloat16", lambda _: None)
    monkeypatch.setattr(choose, "lack_of_int8", lambda _: "none here")
    monkeypatch.setattr(choose, "measure", lambda *_: [Measured("bf16", 1.0, 0.0, 0.0)])
    assert use(copy.deepcopy(encoder), "auto", weights=weights) == "torch"
    ((key, kept),) = json.loads(whole := cache.read_text()).items()
    cache.write_text(spoil(key, kept))
    assert use(copy.deepcopy(encoder), "auto", weights=weights) == "torch"
    assert cache.read_text() == whole


def test_unknown_engines_and_missing_products_are_refused(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="'onnxx' is none of torch, bf16, int8, auto, onnx"):
        use(encoder, "onnxx")
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    with pytest.raises(InputError, match="int8 needs 8-bit products, and this processor has none; use torch"):
        use(encoder, "int8")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    with pytest.raises(InputError, match="bf16 needs products of bfloat16, and this device has none; use torch"):
        use(encoder, "bf16")
    assert use(encoder, "auto") == "torch"


def test_a_missing_extra_is_named(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    monkeypatch.setattr(choose, "has_numba", lambda: False)
    with pytest.raises(InputError, match=r'int8 needs a numba that works here: pip install "bertsmith\[int8\]"'):
        use(copy.deepcopy(encoder), "int8")
    with caplog.at_level("INFO"):
        assert use(encoder, "auto") in ("torch", "bf16")
    assert "bertsmith[int8]" in caplog.text


@needs_int8
def test_the_verbs_answer_by_the_engine_they_are_told(
    capsys: pytest.CaptureFixture[str], encoder_dir: Path, classifier_dir: Path, rows: Path, tmp_path: Path
) -> None:
    data = tmp_path / "texts.txt"
    data.write_text("the cat sees a red ball.\na dog\n" * 5)
    found = {}
    there = ("torch", "int8", "onnx", "auto", *(("bf16",) if lack_of_bfloat16(CPU) is None else ()))
    for engine in there:
        out = tmp_path / f"{engine}.npy"
        assert run(capsys, "embed", encoder_dir, "--data", data, "--out", out, "--engine", engine).code == 0
        found[engine] = np.load(out)
    assert 0 < np.abs(found["torch"] - found["int8"]).max() < 0.2
    assert np.abs(found["torch"] - found.get("bf16", found["torch"])).max() < 0.05
    np.testing.assert_allclose(found["onnx"], found["torch"], rtol=0, atol=1e-5)
    answers = {}
    for engine in set(there) - {"auto"}:
        outcome = run(capsys, "evaluate", classifier_dir, "--data", rows / "dev.tsv", "--engine", engine, "--json")
        assert outcome.code == 0, outcome.err
        answers[engine] = json.loads(outcome.out)["accuracy"]
        assert run(capsys, "predict", classifier_dir, "--text", "a dog", "--engine", engine).code == 0
    assert abs(answers["torch"] - answers["int8"]) < 0.1
    assert answers["onnx"] == answers["torch"]
