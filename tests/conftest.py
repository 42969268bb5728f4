"""Small artefacts that many tests share, made once per session through the same functions that users call."""

from __future__ import annotations

import os
import random
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is imported

import pytest
import torch
from hypothesis import settings

from bertsmith.config.finetune import ClassifyOptions
from bertsmith.config.prepare import PrepareOptions
from bertsmith.config.pretrain import PretrainOptions
from bertsmith.config.tokenizer import TokenizerOptions

settings.register_profile("any machine", deadline=None)  # how long an example takes says nothing where others work
settings.load_profile("any machine")

SUBJECTS = ("the cat", "a dog", "the bird", "one fish", "the old man", "a girl")
VERBS = ("sees", "eats", "likes", "finds", "hears", "paints")
OBJECTS = ("a red ball", "the green tree", "some bread", "two stones", "the blue sky", "a small house")
ENDINGS = ("today", "in the garden", "at night", "with joy", "again", "near the river")


@pytest.fixture(autouse=True, scope="session")
def _two_threads() -> None:
    torch.set_num_threads(2)


def sentence(rng: random.Random) -> str:
    return " ".join(rng.choice(part) for part in (SUBJECTS, VERBS, OBJECTS, ENDINGS)) + "."


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 documents of 2 to 9 sentences."""
    rng = random.Random(0)
    documents = ["\n".join(sentence(rng) for _ in range(rng.randint(2, 9))) for _ in range(120)]
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tokenizer_dir(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from bertsmith.tokenizer.train import train_tokenizer

    out = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    train_tokenizer(TokenizerOptions(files=(corpus,), out=out, vocab_size=90, max_length=64))
    return out


@pytest.fixture(scope="session")
def other_tokenizer(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smaller vocabulary, which cuts words into more pieces."""
    from bertsmith.tokenizer.train import train_tokenizer

    out = tmp_path_factory.mktemp("other") / "tokenizer"
    train_tokenizer(TokenizerOptions(files=(corpus,), out=out, vocab_size=45, max_length=64))
    return out


@pytest.fixture(scope="session")
def shards_dir(corpus: Path, tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from bertsmith.data.prepare import prepare

    out = tmp_path_factory.mktemp("shards") / "shards"
    prepare(PrepareOptions(files=(corpus,), tokenizer=tokenizer_dir, out=out, heldout=0.1))
    return out


def tiny_pretraining(shards: Path, out: Path, **changes: object) -> PretrainOptions:
    """A pretraining that takes about a second."""
    values: dict[str, object] = {
        "data": shards,
        "out": out,
        "layers": 2,
        "hidden": 32,
        "positions": 64,
        "max_length": 32,
        "steps": 12,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "checkpoint_every": 4,
        "eval_every": 6,
        "threads": 2,
    }
    return PretrainOptions(**(values | changes))  # type: ignore[arg-type]


def pretrain_words(options: PretrainOptions) -> list[str]:
    """The command line that gives these options."""
    given = options.model_dump(mode="json", exclude_defaults=True)
    words = ["pretrain", str(given.pop("data"))]
    for name, value in given.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return words


@pytest.fixture(scope="session")
def encoder_dir(shards_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from bertsmith.train.pretrain import pretrain

    out = tmp_path_factory.mktemp("encoder") / "encoder"
    pretrain(tiny_pretraining(shards_dir, out))
    return out


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.tsv and dev.tsv: is it about a cat or a dog?"""
    rng = random.Random(1)
    folder = tmp_path_factory.mktemp("rows")
    for name, count in (("train", 80), ("dev", 24)):
        lines = ["text\tlabel"]
        for i in range(count):
            animal = ("cat", "dog")[i % 2]
            lines.append(f"the {animal} {rng.choice(VERBS)} {rng.choice(OBJECTS)}.\t{animal}")
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def classifier_dir(encoder_dir: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from bertsmith.train.finetune import finetune

    out = tmp_path_factory.mktemp("classifier") / "classifier"
    finetune(
        ClassifyOptions(
            model=str(encoder_dir),
            train=rows / "train.tsv",
            dev=rows / "dev.tsv",
            out=out,
            epochs=6,
            batch_size=8,
            learning_rate=2e-3,
            dropout=0.0,
            threads=2,
        )
    )
    return out
