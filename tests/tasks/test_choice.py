"""Choices that are too long."""

from __future__ import annotations

from pathlib import Path

import pytest

from bertsmith.data.choices import ChoiceExample
from bertsmith.errors import InputError
from bertsmith.tasks.choice import ChoiceTask
from bertsmith.tokenizer.directory import load_tokenizer


@pytest.mark.parametrize("choices", [("cat", "cat cat cat"), ("cat cat cat", "cat")])
def test_each_row_with_a_long_choice_is_named_once(choices: tuple[str, ...], tokenizer_dir: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_dir)
    exact = len(tokenizer.encode("the", "cat").ids)
    row = ChoiceExample(Path("x"), 1, "the", choices, 0)
    with pytest.raises(InputError, match=rf'x:1: field "text": with choice {choices.index("cat cat cat")} it has'):
        ChoiceTask(exact).prepare([row], tokenizer)
    (encoded,) = ChoiceTask(exact, long_docs="truncate").prepare([row], tokenizer)
    assert [len(part) for part in encoded.sequences] == [exact, exact]
