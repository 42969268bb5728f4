"""Boxes, arrows and text, and the SVG that they make: a canvas for diagrams that grow upward.

Not here: what is drawn (`diagram.draw`). The origin is at the bottom left, y grows upward, and the size follows from
what was placed; `Canvas.to_svg` turns it round. Lengths are pixels. Text is measured by an estimate that is rather too
wide, since nobody knows which font a viewer has; boxes are made as wide as their text.
"""

from __future__ import annotations

import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

MARGIN = 24
PADDING = 9
"""Between the edge of a box and its text."""
TITLE, DETAIL = 14, 11.5
"""Font sizes: the first line of a box, and the others."""
HEADING, CAPTION = 20, 12.5
"""Font sizes above the drawing: its name, and what is below that."""
LEADING = 1.3
"""Distance of lines, in font sizes."""
SANS, MONO = "Helvetica, Arial, 'DejaVu Sans', sans-serif", "Menlo, Consolas, 'DejaVu Sans Mono', monospace"
INK, FAINT, PAPER = "#1f2933", "#5c6773", "#ffffff"
FILLS = {
    "data": ("#ffffff", "#7b8794"),
    "embedding": ("#fbe3e4", "#b4535c"),
    "attention": ("#fdebd3", "#b9741b"),
    "norm": ("#fdf6c9", "#a08a13"),
    "feedforward": ("#dcecfb", "#3572a8"),
    "head": ("#def2df", "#3f8a4a"),
}
"""Kind of box -> (fill, edge)."""


def text_width(text: str, size: float, *, mono: bool = False, bold: bool = False) -> float:
    """An upper estimate for common fonts, DejaVu among them; wide East Asian signs count an em, others 0.6 to 0.7."""
    em = 0.61 if mono else 0.7 if bold else 0.62
    return size * sum(1.05 if unicodedata.east_asian_width(sign) in "WF" else em for sign in text)


def printable(text: str) -> str:
    """Without the signs that XML forbids or nobody sees: each becomes `�`."""
    return "".join(sign if sign.isprintable() else "�" for sign in text)


def shortened(text: str, width: float, *, size: float) -> str:
    """A bold text, or its two ends around an ellipsis, so that it is at most `width` wide."""
    short = text
    for kept in range((len(text) - 1) // 2, -1, -1):
        if text_width(short, size, bold=True) <= width:
            break
        short = f"{text[:kept]}…{text[len(text) - kept :]}"
    return short


@dataclass(frozen=True)
class Label:
    """What stands in a box: a title, and lines of detail in a smaller fixed-width font."""

    title: str
    details: tuple[str, ...] = ()
    kind: str = "data"

    @property
    def width(self) -> float:
        """Of the narrowest box that holds it."""
        details = (text_width(line, DETAIL, mono=True) for line in self.details)
        return 2 * PADDING + max([text_width(self.title, TITLE, bold=True), *details])

    @property
    def height(self) -> float:
        """Of its box."""
        return 2 * PADDING + LEADING * (TITLE + DETAIL * len(self.details))


@dataclass(frozen=True)
class Box:
    """A placed rectangle; of a circle, the square around it."""

    x: float
    """Of its middle."""
    bottom: float
    width: float
    height: float

    @property
    def top(self) -> float:
        """Upper edge."""
        return self.bottom + self.height

    @property
    def left(self) -> float:
        """Left edge."""
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        """Right edge."""
        return self.x + self.width / 2

    @property
    def middle(self) -> float:
        """Height of its middle."""
        return self.bottom + self.height / 2


@dataclass
class Canvas:
    """Takes shapes in any order; frames and lines are drawn beneath boxes."""

    frames: list[Box] = field(default_factory=list)
    boxes: list[tuple[Box, Label]] = field(default_factory=list)
    sums: list[Box] = field(default_factory=list)
    lines: list[tuple[tuple[tuple[float, float], ...], bool]] = field(default_factory=list)
    texts: list[tuple[float, float, str, float, bool]] = field(default_factory=list)
    """(left, baseline, text, size, bold)."""

    def box(self, label: Label, x: float, *, bottom: float, width: float = 0, height: float = 0) -> Box:
        """A box around `x`, as large as its text or larger."""
        placed = Box(x, bottom, max(width, label.width), max(height, label.height))
        self.boxes.append((placed, label))
        return placed

    def sum(self, x: float, bottom: float) -> Box:
        """A circle with a plus sign: what arrives is added."""
        placed = Box(x, bottom, 20, 20)
        self.sums.append(placed)
        return placed

    def frame(self, x: float, bottom: float, *, width: float, height: float) -> Box:
        """A dashed rectangle behind everything."""
        self.frames.append(Box(x, bottom, width, height))
        return self.frames[-1]

    def arrow(self, *points: tuple[float, float]) -> None:
        """A line through these points with a head at its end."""
        self.lines.append((points, True))

    def line(self, *points: tuple[float, float]) -> None:
        """A line without a head."""
        self.lines.append((points, False))

    def put(self, other: Canvas, x: float) -> None:
        """Take everything of `other`, so far to the right."""
        self.frames += [replace(box, x=box.x + x) for box in other.frames]
        self.boxes += [(replace(box, x=box.x + x), label) for box, label in other.boxes]
        self.sums += [replace(box, x=box.x + x) for box in other.sums]
        self.lines += [(tuple((px + x, y) for px, y in points), has_head) for points, has_head in other.lines]
        self.texts += [(left + x, y, text, size, bold) for left, y, text, size, bold in other.texts]

    def text(self, left: float, y: float, text: str, *, size: float, bold: bool = False) -> None:
        """A line of text that stands free; `y` is its baseline."""
        self.texts.append((left, y, text, size, bold))

    def caption(self, name: str, lines: Sequence[str]) -> None:
        """A heading above everything, cut to the width of the drawing, and smaller lines below it."""
        left, _, right, top = self.extent()
        y = top + MARGIN + LEADING * CAPTION * (len(lines) - 1)
        self.text(left, y + LEADING * HEADING, shortened(name, right - left, size=HEADING), size=HEADING, bold=True)
        for line in lines:
            self.text(left, y, line, size=CAPTION)
            y -= LEADING * CAPTION

    def extent(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) of everything."""
        shapes = [*self.frames, *self.sums, *(box for box, _ in self.boxes)]
        edges = [(shape.left, shape.bottom, shape.right, shape.top) for shape in shapes]
        edges += [(x, y, x, y) for points, _ in self.lines for x, y in points]
        for left, y, text, size, bold in self.texts:
            edges.append((left, y - 0.3 * size, left + text_width(text, size, bold=bold), y + size))
        lefts, bottoms, rights, tops = zip(*edges, strict=True)
        return min(lefts), min(bottoms), max(rights), max(tops)

    def to_svg(self, *, title: str, description: str) -> str:
        """The whole drawing as a file of its own, on white paper; the two texts are for those who cannot see it."""
        left, bottom, right, top = self.extent()
        width, height = right - left + 2 * MARGIN, top - bottom + 2 * MARGIN
        return _Writer(left - MARGIN, top + MARGIN, width, height).write(self, title=title, description=description)


class _Writer:
    """Turns the canvas round: the origin of SVG is at the top left."""

    def __init__(self, left: float, top: float, width: float, height: float) -> None:
        self.left, self.top, self.width, self.height = left, top, width, height

    def write(self, canvas: Canvas, *, title: str, description: str) -> str:
        size = {"width": _number(self.width), "height": _number(self.height)}
        box = f"0 0 {size['width']} {size['height']}"
        root = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "viewBox": box, "role": "img", **size})
        ET.SubElement(root, "title").text = printable(title)
        ET.SubElement(root, "desc").text = printable(description)
        head = ET.SubElement(ET.SubElement(root, "defs"), "marker", id="head", viewBox="0 0 8 8", refX="7.5", refY="4")
        head.attrib |= {"markerWidth": "8", "markerHeight": "8", "orient": "auto", "markerUnits": "userSpaceOnUse"}
        ET.SubElement(head, "path", d="M 0 0.5 L 8 4 L 0 7.5 z", fill=INK)
        ET.SubElement(root, "rect", {"class": "paper", "fill": PAPER, **size})
        for frame in canvas.frames:
            style = {"fill": "#f7f8fa", "stroke": "#9aa5b1", "stroke-dasharray": "6 4", "rx": "12"}
            ET.SubElement(root, "rect", {"class": "frame", **self._place(frame), **style})
        for points, has_head in canvas.lines:
            self._line(root, points, has_head=has_head)
        for placed in canvas.sums:
            self._sum(root, placed)
        for placed, label in canvas.boxes:
            self._box(root, placed, label)
        for x, y, text, font, bold in canvas.texts:
            self._text(root, x, y, text, size=font, anchor="start", bold=bold)
        ET.indent(root)
        return ET.tostring(root, encoding="unicode", short_empty_elements=True) + "\n"

    def _place(self, box: Box) -> dict[str, str]:
        values = {"x": box.left - self.left, "y": self.top - box.top, "width": box.width, "height": box.height}
        return {name: _number(value) for name, value in values.items()}

    def _line(self, root: ET.Element, points: tuple[tuple[float, float], ...], *, has_head: bool) -> None:
        path = " L ".join(f"{_number(x - self.left)} {_number(self.top - y)}" for x, y in points)
        style = {"fill": "none", "stroke": INK, "stroke-width": "1.3", "stroke-linejoin": "round"}
        ET.SubElement(root, "path", {"d": f"M {path}", **style, **({"marker-end": "url(#head)"} if has_head else {})})

    def _sum(self, root: ET.Element, placed: Box) -> None:
        x, y, radius = placed.x - self.left, self.top - placed.middle, placed.width / 2
        style = {"fill": PAPER, "stroke": INK, "stroke-width": "1.3"}
        ET.SubElement(root, "circle", {"cx": _number(x), "cy": _number(y), "r": _number(radius), **style})
        cross = f"M {_number(x - 5)} {_number(y)} h 10 M {_number(x)} {_number(y - 5)} v 10"
        ET.SubElement(root, "path", {"class": "plus", "d": cross, "stroke": INK, "stroke-width": "1.3"})

    def _box(self, root: ET.Element, placed: Box, label: Label) -> None:
        group = ET.SubElement(root, "g", {"class": "box"})
        fill, edge = FILLS[label.kind]
        ET.SubElement(group, "rect", {**self._place(placed), "rx": "6", "fill": fill, "stroke": edge})
        y = placed.middle + label.height / 2 - PADDING - TITLE
        self._text(group, placed.x, y, label.title, size=TITLE, bold=True)
        for line in label.details:
            y -= LEADING * DETAIL
            self._text(group, placed.x, y, line, size=DETAIL, mono=True)

    def _text(
        self,
        parent: ET.Element,
        x: float,
        y: float,
        text: str,
        *,
        size: float,
        anchor: str = "middle",
        bold: bool = False,
        mono: bool = False,
    ) -> None:
        place = {"x": _number(x - self.left), "y": _number(self.top - y), "font-size": _number(size)}
        font = {"font-family": MONO if mono else SANS, "text-anchor": anchor, "fill": FAINT if mono else INK}
        element = ET.SubElement(parent, "text", {**place, **font, **({"font-weight": "bold"} if bold else {})})
        element.text = printable(text)


def _number(value: float) -> str:
    """`12.0 -> 12`, `12.345 -> 12.3`."""
    return f"{value:.1f}".removesuffix(".0")
