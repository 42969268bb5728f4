"""How results look on stdout when `--json` is not given: functions (result, options) -> lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any


def figures(result: dict[str, Any], _options: Any) -> Iterator[str]:
    """A line for each figure, nested ones with a dotted name: `splits.train.tokens   485,120`."""
    flat = dict(_flatten(result))
    width = max(map(len, flat), default=0)
    for name, value in flat.items():
        yield f"{name:<{width}}  {_text(value)}"


def json_lines(result: Iterable[dict[str, Any]], _options: Any) -> Iterator[str]:
    """One JSON object a line."""
    for row in result:
        yield json.dumps(row, ensure_ascii=False, allow_nan=False)


def guesses(result: list[list[dict[str, Any]]], _options: Any) -> Iterator[str]:
    """For each [MASK] its guesses: probability, token, and the text with it put in."""
    for number, answers in enumerate(result, 1):
        if len(result) > 1:
            yield f"[MASK] {number}:"
        for answer in answers:
            yield f"{answer['score']:7.4f}  {answer['token']:<16}  {answer['text']}"


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
        return ", ".join(map(str, value))
    return str(value)
