"""The report of an evaluation: what `evaluate --out` writes.

report.json         metrics, intervals, classes, confusion, mistakes
report.md           the same for people, with the pictures
confusion.svg       which class is taken for which (up to 40 classes)
reliability.svg     how often answers of a confidence are right
predictions.jsonl   one answer a row
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bertsmith.config.inference import EvaluateOptions
from bertsmith.diagram.charts import confusion_chart, reliability_chart
from bertsmith.files import new_directory, to_json, write_file, write_manifest
from bertsmith.metrics.judgement import CONFIDENCE, RESAMPLES, Mistake

if TYPE_CHECKING:
    from bertsmith.evaluate import Evaluation

MOST_CLASSES, MOST_MISTAKES = 40, 20

LONGEST = 160
"""Characters of a text in a table."""


def write_report(options: EvaluateOptions, found: Evaluation, metrics: dict[str, Any]) -> None:
    """Write the directory `options.out`."""
    assert options.out is not None
    judgement, rows = found.judgement, found.rows
    drawn = "queries" if "queries" in judgement.counts else "rows"
    intervals = judgement.intervals()
    mistakes = [_mistake(mistake, rows, measure=judgement.measure) for mistake in judgement.mistakes]
    report: dict[str, Any] = {
        "model": options.model,
        "data": str(options.data),
        "task": found.task.name,
        "metrics": metrics,
        "intervals": {name: list(ends) for name, ends in intervals.items()},
        "interval_method": f"percentile bootstrap, {RESAMPLES} samples of {drawn}, {CONFIDENCE:.0%}",
        "per_class": list(judgement.per_class),
        "mistakes": mistakes,
    }
    pictures = {}
    confusion = judgement.confusion
    if confusion is not None:
        report["confusion"] = {"labels": list(judgement.labels), "rows_are": "truth", "counts": confusion.tolist()}
        if len(confusion) <= MOST_CLASSES:
            pictures["confusion.svg"] = confusion_chart(judgement.labels, confusion)
    if judgement.confidences is not None and judgement.is_right is not None:
        bins = reliability(judgement.confidences, judgement.is_right)
        report["reliability"] = bins
        pictures["reliability.svg"] = reliability_chart(bins)
    with new_directory(options.out, overwrite=options.overwrite) as directory:
        for name, picture in pictures.items():
            write_file(directory / name, picture)
        write_file(directory / "predictions.jsonl", _predictions(found))
        write_file(directory / "report.json", to_json(report))
        write_file(directory / "report.md", to_markdown(report, pictures=tuple(pictures)))
        write_manifest(directory, {}, kind="report")


def reliability(confidences: np.ndarray, is_right: np.ndarray, bins: int = 10) -> list[dict[str, float]]:
    """For each tenth of confidence that occurs: mean `confidence`, `accuracy` and number of `rows`."""
    places = np.minimum((confidences * bins).astype(int), bins - 1)
    return [
        {
            "confidence": float(confidences[places == place].mean()),
            "accuracy": float(is_right[places == place].mean()),
            "rows": int((places == place).sum()),
        }
        for place in np.unique(places)
    ]


def to_markdown(report: dict[str, Any], *, pictures: Sequence[str]) -> str:
    """`report.md`."""
    intervals = report["intervals"]
    lines = [
        f"# {Path(report['model']).name} on {Path(report['data']).name}",
        "",
        f"Task: {report['task']}, {report['metrics']['rows']:,} rows. Intervals: {report['interval_method']}.",
        "",
        "| metric | value | interval |",
        "|---|---|---|",
    ]
    for name, value in report["metrics"].items():
        ends = intervals.get(name)
        shown = f"{value:.4f}" if isinstance(value, float) else f"{value:,}"
        lines.append(f"| {_cell(name)} | {shown} | {f'{ends[0]:.4f} to {ends[1]:.4f}' if ends else ''} |")
    if report["per_class"]:
        lines += ["", "## Classes", "", "| class | precision | recall | F1 | rows |", "|---|---|---|---|---|"]
        lines += [
            f"| {_cell(row['label'])} | {row['precision']:.3f} | {row['recall']:.3f} | {row['f1']:.3f} "
            f"| {row['support']:,} |"
            for row in report["per_class"]
        ]
    titles = {"confusion.svg": "Which class is taken for which", "reliability.svg": "How far its confidence holds"}
    for name in pictures:
        lines += ["", f"## {titles[name]}", "", f"![{titles[name]}]({name})"]
    if report["mistakes"]:
        measure = next(name for name in ("confidence", "error") if name in report["mistakes"][0])
        lines += [
            "",
            "## The surest mistakes" if measure == "confidence" else "## The largest errors",
            "",
            f"| line | text | truth | answer | {measure} |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {row['line']} | {_cell(row['text'])} | {_cell(row['truth'])} | {_cell(row['answer'])} "
            f"| {row[measure]:.3f} |"
            for row in report["mistakes"][:MOST_MISTAKES]
        ]
    return "\n".join(lines) + "\n"


def _mistake(mistake: Mistake, rows: Sequence[Any], *, measure: str) -> dict[str, Any]:
    row = rows[mistake.row]
    return {
        "line": row.line,
        "text": " ".join(row.words) if hasattr(row, "words") else " · ".join(filter(None, row.content)),
        "truth": mistake.truth,
        "answer": mistake.answer,
        measure: mistake.score,
    }


def _predictions(found: Evaluation) -> str:
    lines = []
    for row, result in zip(found.rows, found.results, strict=True):
        answer = {"line": row.line, "answer": found.task.decode(row, result)}
        lines.append(json.dumps(answer, ensure_ascii=False, allow_nan=False) + "\n")
    return "".join(lines)


def _cell(text: str) -> str:
    """A text that stays in its cell: one line, no bars, not endless."""
    flat = " ".join(text.split())
    short = flat if len(flat) <= LONGEST else flat[: LONGEST - 1] + "…"
    return short.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
