"""A recipe sets what no flag and no file sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from bertsmith.cli.parser import parse
from bertsmith.config.pretrain import PretrainOptions
from bertsmith.errors import InputError
from bertsmith.presets import RECIPES, WITHOUT_PAIRS

WORDS = ["shards", "--out", "encoder"]


def parsed(*words: str, config: Path | None = None) -> PretrainOptions:
    options = parse(PretrainOptions, [*WORDS, *words], prog="bertsmith pretrain", config=config)
    assert isinstance(options, PretrainOptions)
    return options


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_sets_its_options_and_flags_override_it_even_with_a_default(recipe: str, tmp_path: Path) -> None:
    options = parsed("--recipe", recipe)
    assert {name: getattr(options, name) for name in RECIPES[recipe]} == RECIPES[recipe]
    default = PretrainOptions.model_fields["dropout"].default
    assert parsed("--recipe", recipe, "--dropout", str(default)).dropout == default
    (tmp_path / "run.yaml").write_text(f"recipe: {recipe}\nlearning_rate: 0.5\n")
    options = parsed("--warmup=0.3", config=tmp_path / "run.yaml")
    assert (options.learning_rate, options.warmup) == (0.5, 0.3)
    assert options.optimizer == RECIPES[recipe]["optimizer"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_knows_whether_there_are_pairs(recipe: str) -> None:
    alone, pairs = parsed("--recipe", recipe, "--objective", "none"), parsed("--recipe", recipe, "--objective", "sop")
    expected = RECIPES[recipe] | WITHOUT_PAIRS.get(recipe, {})
    assert {name: getattr(alone, name) for name in expected} == expected
    assert {name: getattr(pairs, name) for name in RECIPES[recipe]} == RECIPES[recipe]
    assert parsed("--recipe", recipe, "--objective", "none", "--schedule", "linear").schedule == "linear"
    assert (alone.schedule == pairs.schedule) == (recipe == "classic")


def test_without_a_recipe_the_defaults_stand(tmp_path: Path) -> None:
    options = parsed()
    for name, field in PretrainOptions.model_fields.items():
        if name not in ("data", "out"):
            assert getattr(options, name) == field.default, name
    assert PretrainOptions(data=Path("shards"), out=Path("encoder")) == options


def test_python_callers_use_recipes_too_and_an_unknown_one_is_refused() -> None:
    assert PretrainOptions(data=Path("a"), out=Path("b"), recipe="fast").optimizer == "muon"
    with pytest.raises(InputError, match="--recipe"):
        parsed("--recipe", "slow")
