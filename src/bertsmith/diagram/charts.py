"""Two charts of an evaluation, as SVG. Not here: diagrams of models (`diagram.draw`)."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

import numpy as np

from bertsmith.diagram.svg import FAINT, INK, MARGIN, PAPER, SANS, printable, shortened, text_width

CELL, SIZE = 44, 12
BLUE, RED = (53, 114, 168), (180, 83, 92)
"""Of right and of wrong answers."""

PLOT = 320
"""Edge of the reliability chart."""


def confusion_chart(labels: Sequence[str], counts: np.ndarray) -> str:
    """Counts `[truth, answer]`: rows are the truth; the diagonal is right. A cell's colour is its share of its row."""
    names = [shortened(printable(label), 180, size=SIZE) for label in labels]
    wide = max(text_width(name, SIZE) for name in names)
    left, top = MARGIN + wide + 10 + SIZE * 1.6, MARGIN + wide + 10 + SIZE * 1.6
    edge = CELL * len(names)
    root = _root(left + edge + MARGIN, top + edge + MARGIN, "confusion matrix")
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    _text(root, left + edge / 2, MARGIN + SIZE, "answer", anchor="middle", fill=FAINT)
    _text(root, MARGIN + SIZE, top + edge / 2, "truth", anchor="middle", fill=FAINT, turned=True)
    for i, name in enumerate(names):
        middle = (i + 0.5) * CELL
        _text(root, left - 8, top + middle + SIZE / 3, name, anchor="end")
        _text(root, left + middle + SIZE / 3, top - 8, name, anchor="start", turned=True)
        for j in range(len(names)):
            share, (x, y) = float(shares[i, j]), (left + j * CELL, top + i * CELL)
            fill = _mixed(BLUE if i == j else RED, share)
            _element(root, "rect", x=x, y=y, width=CELL, height=CELL, fill=fill, stroke=PAPER)
            if counts[i, j]:
                ink = PAPER if share > 0.55 else INK
                _text(root, x + CELL / 2, y + CELL / 2 + SIZE / 3, f"{counts[i, j]}", anchor="middle", fill=ink)
    return _written(root)


def reliability_chart(bins: Sequence[dict[str, float]]) -> str:
    """Accuracy over confidence: on the dotted line the model is as often right as it says. Bars below: rows."""
    left, top, low = MARGIN + 48.0, float(MARGIN), 60.0
    root = _root(left + PLOT + MARGIN, top + PLOT + low + 2 * MARGIN + 20, "reliability")
    bottom = top + PLOT
    for i in range(6):
        at = i / 5
        x, y = left + at * PLOT, bottom - at * PLOT
        _element(root, "line", x1=left, x2=left + PLOT, y1=y, y2=y, stroke="#e4e7eb")
        _text(root, left - 8, y + SIZE / 3, f"{at:.1f}", anchor="end", fill=FAINT)
        _text(root, x, bottom + low + 22, f"{at:.1f}", anchor="middle", fill=FAINT)
    _text(root, left + PLOT / 2, bottom + low + 44, "confidence", anchor="middle", fill=FAINT)
    _text(root, MARGIN + SIZE - 6, top + PLOT / 2, "accuracy", anchor="middle", fill=FAINT, turned=True)
    dotted = {"stroke-dasharray": "4 4"}
    _element(root, "line", x1=left, x2=left + PLOT, y1=bottom, y2=top, stroke=FAINT, **dotted)
    most = max((bin_["rows"] for bin_ in bins), default=1)
    points = [(left + bin_["confidence"] * PLOT, bottom - bin_["accuracy"] * PLOT) for bin_ in bins]
    blue = _mixed(BLUE, 1.0)
    if len(points) > 1:
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        _element(root, "polyline", points=line, fill="none", stroke=blue, **{"stroke-width": 2})
    for (x, y), bin_ in zip(points, bins, strict=True):
        _element(root, "circle", cx=x, cy=y, r=4, fill=blue)
        tall = (low - 12) * bin_["rows"] / most
        _element(root, "rect", x=x - 5, y=bottom + low - tall, width=10, height=tall, fill="#9aa5b1")
    return _written(root)


def _root(width: float, height: float, title: str) -> ET.Element:
    box = f"0 0 {width:.0f} {height:.0f}"
    size = {"width": f"{width:.0f}", "height": f"{height:.0f}"}
    root = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "viewBox": box, **size, "font-family": SANS})
    ET.SubElement(root, "title").text = title
    _element(root, "rect", width=width, height=height, fill=PAPER)
    return root


def _element(root: ET.Element, tag: str, **values: float | str) -> ET.Element:
    shown = {key: value if isinstance(value, str) else f"{value:g}" for key, value in values.items()}
    return ET.SubElement(root, tag, shown)


def _text(
    root: ET.Element, x: float, y: float, text: str, *, anchor: str, fill: str = INK, turned: bool = False
) -> None:
    turn = {"transform": f"rotate(-90 {x:g} {y:g})"} if turned else {}
    shape = {"font-size": f"{SIZE}", "text-anchor": anchor, **turn}
    _element(root, "text", x=x, y=y, fill=fill, **shape).text = text


def _mixed(colour: tuple[int, int, int], share: float) -> str:
    """From white to `colour`."""
    return "#" + "".join(f"{round(255 - (255 - part) * share):02x}" for part in colour)


def _written(root: ET.Element) -> str:
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"
