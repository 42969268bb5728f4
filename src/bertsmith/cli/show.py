"""How results look on stdout when `--json` is not given: functions (result, options) -> lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from textwrap import shorten
from typing import Any

from bertsmith.errors import listing, printable

EXCERPT = 300
"""Characters of a passage that `hits` shows; `--json` has all of it."""


def figures(result: dict[str, Any], _options: Any) -> Iterator[str]:
    """A line for each figure, nested ones with a dotted name: `splits.train.tokens   485,120`."""
    flat = dict(_flatten(result))
    width = max(map(len, flat), default=0)
    for name, value in flat.items():
        yield f"{name:<{width}}  {_text(value)}"


def finetuned(result: dict[str, Any], options: Any) -> Iterator[str]:
    """The figures, and of a student the table that compares it with its teacher."""
    yield from figures({name: value for name, value in result.items() if name != "distillation"}, options)
    if "distillation" in result:
        from bertsmith.train.distill import to_markdown

        yield f"\n{to_markdown(result['distillation'])}"


def json_lines(result: Iterable[dict[str, Any]], _options: Any) -> Iterator[str]:
    """One JSON object a line."""
    for row in result:
        yield json.dumps(row, ensure_ascii=False, allow_nan=False)


def checked(result: dict[str, Any], options: Any) -> Iterator[str]:
    """What `check` found: figures of each file, then findings, the worst first, and the command."""
    for name, values in result["files"].items():
        yield f"{name}: {result['task']}"
        yield from (f"  {line}" for line in figures(values, options))
        yield ""
    for kind in ("errors", "warnings", "notes"):
        yield from result[kind]
    if not any(result[kind] for kind in ("errors", "warnings", "notes")):
        yield "nothing to complain about"
    if result["command"]:
        yield f"\n{result['command']}"


def guesses(result: list[list[dict[str, Any]]], _options: Any) -> Iterator[str]:
    """For each [MASK] its guesses: probability, token, and the text with it put in."""
    for number, answers in enumerate(result, 1):
        if len(result) > 1:
            yield f"[MASK] {number}:"
        for answer in answers:
            yield f"{answer['score']:7.4f}  {answer['token']:<16}  {answer['text']}"


def hits(result: dict[str, Any], _options: Any) -> Iterator[str]:
    """A line for each passage found, `rank  score  file:first-last`, its beginning below; in colours on a terminal."""
    coloured = sys.stdout.isatty()
    for rank, hit in enumerate(result["hits"], 1):
        first, last = hit["lines"]
        place = f"{printable(hit['file'])}:{first}" + (f"-{last}" if last != first else "")
        scores = f"{hit['score']:.4f}" + (f"  reranked {hit['rerank_score']:.4f}" if "rerank_score" in hit else "")
        copies = f"  (also {listing(map(printable, hit['copies']), 3)})" if "copies" in hit else ""
        text = printable(shorten(hit["passage"], EXCERPT, placeholder=" …"))
        if coloured:
            scores, place = _rich(scores, "green"), _rich(place, "bold cyan")
        yield f"{rank:>3}  {scores}  {place}{copies}"
        yield f"     {text}"


def _rich(text: str, style: str) -> str:
    """`text` as a terminal shows it in `style`; NO_COLOR is honoured."""
    from rich.console import Console
    from rich.text import Text

    console = Console(width=10_000)
    with console.capture() as captured:
        console.print(Text(text, style=style), end="")
    return captured.get()


def doctor(result: dict[str, Any], options: Any) -> Iterator[str]:
    """The machine, and the problems found with their fixes."""
    problems = result["problems"]
    yield from figures({key: value for key, value in result.items() if key != "problems"}, options)
    yield ""
    yield from (f"problem: {problem}" for problem in problems)
    yield "all is well" if not problems else f"{len(problems)} problem(s)"


def report_card(result: dict[str, Any], options: Any) -> Iterator[str]:
    """The report card of the demo, as Markdown."""
    from bertsmith.demo.report import to_markdown

    yield to_markdown(result, options.out)


def parts(result: dict[str, Any], options: Any) -> Iterator[str]:
    """The parts of a model as a table, what its columns mean, and what the letters stand for."""
    total = result["total"]
    last = {**total, "part": "total", "layers": "", "complexity": "", "activation_complexity": ""}
    rows = [("part", "×", "parameters", "FLOPs", "kept", "work grows as", "kept grows as")]
    rows += [
        (
            part["part"],
            str(part["layers"]),
            f"{part['parameters']:,}" if part["parameters"] else "–",
            _scaled(part["flops"], ("", "k", "M", "G", "T", "P"), base=1000),
            _scaled(part["activation_bytes"], ("B", "KiB", "MiB", "GiB", "TiB", "PiB"), base=1024),
            part["complexity"],
            part["activation_complexity"] if part["activation_bytes"] else "–",
        )
        for part in (*result["parts"], last)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    signs = "<>>>><<"
    lines = [
        "  ".join(f"{cell:{sign}{width}}" for cell, sign, width in zip(row, signs, widths, strict=True)) for row in rows
    ]
    rule = "─" * max(map(len, lines))
    yield f"{result['model']}: {result['batch_size']:,} sequences of {result['length']:,} tokens"
    yield ""
    yield from (line.rstrip() for line in (lines[0], rule, *lines[1:-1], rule, lines[-1]))
    yield ""
    yield f"work grows as {total['complexity']}, what is kept as {total['activation_complexity']}"
    yield ", ".join(f"{letter} = {value:,}" for letter, value in result["symbols"].items())
    yield "FLOPs: matrix products of a forward pass"
    yield "kept: float32 values that a training step without dropout holds for its backward pass"
    if options.svg is not None:
        yield f"drawn: {options.svg}"


def _scaled(value: int, units: tuple[str, ...], *, base: int) -> str:
    """Three digits and a unit: `1_234_567 -> 1.23 M`; nothing is a dash."""
    number, power = float(value), 0
    while number >= base and power < len(units) - 1:
        number, power = number / base, power + 1
    digits = 0 if power == 0 or number >= 100 else 1 if number >= 10 else 2
    return f"{number:,.{digits}f} {units[power]}".strip() if value else "–"


def _flatten(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _flatten(item, f"{prefix}{key}.")
        else:
            yield prefix + key, item


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)
