"""`bertsmith check`: the data doctor. Looks at labelled files as `finetune` would read them, and trains nothing."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from bertsmith import findings
from bertsmith.bundle import Bundle, load_bundle, resolve
from bertsmith.config.check import CheckOptions, TaskName
from bertsmith.config.finetune import (
    ChoiceOptions,
    ClassifyOptions,
    EmbedderOptions,
    FinetuneOptions,
    QaOptions,
    RerankerOptions,
    TagOptions,
)
from bertsmith.data.archives import TAGGED, format_of
from bertsmith.data.text import read_rows
from bertsmith.errors import InputError, InputErrors
from bertsmith.findings import Finding
from bertsmith.tasks.known import read_training
from bertsmith.tasks.relevance import RELEVANT
from bertsmith.train.finetune import longest_sequence

OPTIONS: dict[str, type[FinetuneOptions]] = {
    "classify": ClassifyOptions,
    "tag": TagOptions,
    "qa": QaOptions,
    "choice": ChoiceOptions,
    "embed": EmbedderOptions,
    "rerank": RerankerOptions,
}


SIMILARITY = ("embed", "rerank")


def check(options: CheckOptions) -> dict[str, Any]:
    """Returns `task`, figures by file, `errors` (what `finetune` refuses), `warnings`, `notes`, and `command`."""
    bundle = load_bundle(resolve(options.model)) if options.model is not None else None
    task = options.task or guessed_task(options.files[0], options.columns)
    splits: list[tuple[Path, Sequence[Any]]] = []
    errors: list[str] = []
    for file in options.files:
        try:
            splits.append((file, read_training(_as_training(options, task, file))))
        except InputErrors as error:
            errors += error.lines()
        except InputError as error:
            errors.append(str(error))
    figures: dict[str, dict[str, Any]] = {str(file): {"rows": len(rows)} for file, rows in splits}
    found = list(_found(task, splits))
    if bundle is not None:
        for file, rows in splits:
            limit = longest_sequence(_as_training(options, task, file), bundle)
            counts, more = findings.lengths(file, rows, bundle.tokenizer, limit=limit)
            figures[str(file)] |= counts
            found += more
    for file, rows in splits:
        figures[str(file)] |= _contents(task, rows)
    result: dict[str, Any] = {"task": task, "files": figures}
    result["errors"] = [*errors, *(str(finding) for finding in found if finding.kind == "error")]
    for kind in ("warning", "note"):
        result[f"{kind}s"] = [str(finding) for finding in found if finding.kind == kind]
    result["command"] = command(options, task, splits, found, bundle) if not result["errors"] else None
    return result


def guessed_task(file: Path, columns: str | None = None) -> TaskName:
    """By the extension and the columns of the first row, or those that `--columns` names."""
    extension = format_of(file)[0]
    if extension in TAGGED:
        return "tag"
    if extension == ".json":
        return "qa"
    names = (
        "tokens|words",
        "question",
        "context",
        "choices|options",
        "choice1",
        "text|sentence",
        "text_a",
        "positive",
        "passage",
    )
    given = [entry.partition("=")[0].strip() for entry in (columns or "").split(",")]
    try:
        first = next(iter(read_rows(file, required=(), optional=names, text_columns=())), None)
    except InputError:
        return "classify"  # whose reader says what is wrong
    values = {*(first.values if first is not None else ()), *given}
    if "tokens" in values:
        return "tag"
    if "choices" in values or "choice1" in values:
        return "choice"
    if "positive" in values:
        return "embed"
    if "passage" in values:
        return "rerank"
    return "qa" if {"question", "context"} <= values else "classify"


def _as_training(options: CheckOptions, task: str, file: Path) -> FinetuneOptions:
    """The options with which `finetune` would read `file`."""
    special: dict[str, Any] = {"problem": options.problem, "separator": options.separator} if task == "classify" else {}
    if task in SIMILARITY:
        special = {"score_range": options.score_range}
    base = {"model": options.model or "", "train": file, "out": Path("out"), "columns": options.columns}
    try:
        return OPTIONS[task](**base, max_length=options.max_length, **special)
    except ValidationError as error:
        raise InputError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def _found(task: str, splits: Sequence[tuple[Path, Sequence[Any]]]) -> Iterator[Finding]:
    if not splits:
        return
    for file, rows in splits:
        yield from findings.duplicates(file, rows)
    yield from findings.leakage(splits)
    if task == "classify":
        yield from findings.labels(splits)
        yield from findings.pairs(splits)
    if task == "tag":
        yield from findings.tag_sequences(splits)
    for file, rows in splits:
        if task == "classify":
            yield from findings.texts(file, rows)
        elif task == "qa":
            yield from findings.answers(file, rows, is_training=file is splits[0][0])
        elif task == "choice":
            yield from findings.choices(file, rows)
        elif task == "embed":
            yield from findings.similar(file, rows)
        elif task == "rerank":
            yield from findings.relevance(file, rows, is_training=file is splits[0][0])


def _contents(task: str, rows: Sequence[Any]) -> dict[str, Any]:
    """What the rows hold: labels with their numbers, or the range of scores; words; answers; texts."""
    if task == "embed" and rows[0].kind != "scores":
        anchors = len({row.texts[0] for row in rows})
        negatives = sum(max(len(row.texts) - 2, 0) for row in rows)
        return {"kind": rows[0].kind, "anchors": anchors, "negatives": negatives}
    if task == "rerank":
        relevant = sum(row.label >= RELEVANT for row in rows)
        return {"queries": len({row.text for row in rows}), "relevant": relevant, "others": len(rows) - relevant}
    if task in ("classify", "embed"):
        counts = findings.label_counts(rows)
        if counts:
            return {"labels": dict(counts.most_common(30))}
        scores = np.array([row.label for row in rows if isinstance(row.label, float)])
        if not len(scores):
            return {}
        return {"scores": {"lowest": float(scores.min()), "mean": float(scores.mean()), "highest": float(scores.max())}}
    if task == "tag":
        tags = Counter(tag for row in rows for tag in row.tags or ())
        return {"words": sum(map(len, (row.words for row in rows))), "tags": dict(tags.most_common(30))}
    if task == "qa":
        return {"answerable": sum(bool(row.answers) for row in rows)}
    return {"choices": dict(Counter(str(len(row.choices)) for row in rows))}


def command(
    options: CheckOptions,
    task: str,
    splits: Sequence[tuple[Path, Sequence[Any]]],
    found: Sequence[Finding],
    bundle: Bundle | None,
) -> str:
    """The `finetune` command for these files, with the flags that the findings advise."""
    words = ["bertsmith", "finetune", task, "--model", options.model or "MODEL", "--train", str(options.files[0])]
    if len(splits) > 1:
        words += ["--dev", str(options.files[1])]
    for name in ("columns", "max_length", "separator", "score_range"):
        value = getattr(options, name)
        if value is not None:
            words += ["--" + name.replace("_", "-"), str(value)]
    if task == "classify" and options.problem != "auto":
        words += ["--problem", options.problem]
    if bundle is not None and any("longer than" in finding.message for finding in found):
        words += ["--long-docs", "window" if task == "classify" else "truncate"] if task not in ("tag", "qa") else []
    if task == "classify" and any("--class-weights" in finding.message for finding in found):
        words += ["--class-weights", "auto"]
    name = options.files[0].name.split(".")[0]
    return shlex.join([*words, "--out", f"runs/{name}-{task}"])
