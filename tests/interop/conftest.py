"""A directory of transformers that the tests of sentence-transformers build on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.sentence_models import bert_directory


@pytest.fixture
def bert(tokenizer_dir: Path, tmp_path: Path) -> Path:
    return bert_directory(tmp_path / "bert", tokenizer_dir)
