"""Small files for each task, which a tiny model can learn, and the models that learnt them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from bertsmith.bundle import write_bundle
from bertsmith.card import Card
from bertsmith.config.encoder import EncoderConfig
from bertsmith.config.finetune import (
    ChoiceOptions,
    ClassifyOptions,
    EmbedderOptions,
    FinetuneOptions,
    QaOptions,
    RerankerOptions,
    TagOptions,
)
from bertsmith.models.bert import Bert
from bertsmith.tokenizer.directory import load_tokenizer
from tests.conftest import OBJECTS, SUBJECTS, VERBS

ANIMALS = {"cat": "PET", "dog": "PET", "bird": "WILD", "fish": "WILD"}

OPTIONS: dict[str, type[FinetuneOptions]] = {
    "classify": ClassifyOptions,
    "multi": ClassifyOptions,
    "regression": ClassifyOptions,
    "tag": TagOptions,
    "qa": QaOptions,
    "choice": ChoiceOptions,
    "embed": EmbedderOptions,
    "scores": EmbedderOptions,
    "rerank": RerankerOptions,
}

SUFFIX = {
    "classify": "tsv",
    "multi": "jsonl",
    "regression": "csv",
    "tag": "conll",
    "qa": "jsonl",
    "choice": "jsonl",
    "embed": "tsv",
    "scores": "csv",
    "rerank": "jsonl",
}


def write_rows(kind: str, path: Path, *, count: int, seed: int) -> Path:
    """A file of `count` rows."""
    rng = random.Random(seed)
    heads = {
        "classify": "text\tlabel",
        "regression": "text,score",
        "embed": "anchor\tpositive",
        "scores": "text_a,text_b,score",
    }
    lines = [heads[kind]] if kind in heads else []
    for i in range(count):
        animal, verb, thing = ("cat", "dog", "bird", "fish")[i % 4], rng.choice(VERBS), rng.choice(OBJECTS)
        text = f"the {animal} {verb} {thing}"
        if kind == "classify":
            lines.append(f"{text}\t{animal}")
        elif kind == "multi":
            labels = [ANIMALS[animal], *(["colour"] if thing.split()[1] in ("red", "green", "blue") else [])]
            lines.append(json.dumps({"text": text, "labels": labels}))
        elif kind == "regression":
            lines.append(f"{text},{i % 4}.5")
        elif kind == "tag":
            lines += [f"{word}\t{'B-' + ANIMALS[word] if word in ANIMALS else 'O'}" for word in text.split()] + [""]
        elif kind == "qa":
            context = f"{text}. {rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(OBJECTS)}."
            lines.append(json.dumps({"question": "the cat?", "context": context, "answers": [f"the {animal}"]}))
        elif kind == "embed":
            lines.append(f"{text}\t{thing} {verb} the {animal} again")
        elif kind == "scores":
            other, same = rng.choice(list(ANIMALS)), rng.random() < 0.5
            second = f"the {other} {verb} {thing if same else rng.choice(OBJECTS)}"
            lines.append(f"{text},{second},{2 * (other == animal) + 2 * (thing in second) + 1}")
        elif kind == "rerank":
            label = int(i % 3 == 0)
            query = animal if label else rng.choice([other for other in ANIMALS if other != animal])
            lines.append(json.dumps({"query": f"a {query}", "passage": text, "label": label}))
        else:
            others = [other for other in ANIMALS if other != animal]
            choices = [*rng.sample(others, 2), animal]
            rng.shuffle(choices)
            lines.append(json.dumps({"text": text, "choices": choices, "label": choices.index(animal)}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def options(kind: str, encoder: Path, folder: Path, **changes: object) -> FinetuneOptions:
    """A fine-tuning of some seconds; files are written into `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    values: dict[str, object] = {
        "model": str(encoder),
        "train": write_rows(kind, folder / f"train.{SUFFIX[kind]}", count=96, seed=0),
        "dev": write_rows(kind, folder / f"dev.{SUFFIX[kind]}", count=24, seed=1),
        "out": folder / "model",
        "steps": {"choice": 200, "classify": 480, "rerank": 300}.get(kind, 60),
        "batch_size": 16,
        "learning_rate": 3e-3,
        "eval_every": 20,
        "threads": 2,
    }
    values |= {"score_range": "0,5"} if kind == "scores" else {}
    # at 3e-3 one seed in three stays on the plateau of the first steps
    values |= {"dropout": 0.0, "learning_rate": 1e-3} if kind == "classify" else {}
    return OPTIONS[kind](**(values | changes))  # type: ignore[arg-type]


def write_model(out: Path, tokenizer_dir: Path, *, task: Any, heads: tuple[str, ...] = (), labels: int = 2) -> Path:
    """A random model of width 16 that says it is for `task`."""
    tokenizer = load_tokenizer(tokenizer_dir)
    config = EncoderConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    out.mkdir(parents=True)
    model = Bert(config, heads=heads, num_labels=labels)
    card = Card(title="t", origin="Made by a test.", data="none")
    write_bundle(out, model, tokenizer, task=task, provenance={}, card=card)
    return out
