"""A drawing of `bertsmith show --svg`, parsed: its boxes, lines and texts."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass

SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Rectangle:
    """In the coordinates of SVG: `top` is less than `bottom`."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def of(cls, element: ET.Element) -> Rectangle:
        x, y, width, height = (float(element.get(name, "0")) for name in ("x", "y", "width", "height"))
        return cls(x, y, x + width, y + height)

    @classmethod
    def of_text(cls, element: ET.Element) -> Rectangle:
        """By the widths of DejaVu, one of the widest fonts in use: 0.6 em for a sign, 0.69 em for a bold one."""
        size = float(element.get("font-size", "0"))
        width = size * len(element.text or "") * (0.69 if element.get("font-weight") == "bold" else 0.602)
        x, y = float(element.get("x", "0")), float(element.get("y", "0"))
        left = x - width / 2 if element.get("text-anchor") == "middle" else x
        return cls(left, y - 0.8 * size, left + width, y + 0.22 * size)

    def holds(self, other: Rectangle) -> bool:
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.top <= other.top
            and other.bottom <= self.bottom
        )

    def meets(self, other: Rectangle) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def has_on_its_edge(self, x: float, y: float) -> bool:
        inside = self.left - 0.2 <= x <= self.right + 0.2 and self.top - 0.2 <= y <= self.bottom + 0.2
        edges = (x - self.left, x - self.right, y - self.top, y - self.bottom)
        return inside and min(map(abs, edges)) < 0.2


class Picture:
    """A parsed drawing."""

    def __init__(self, svg: str) -> None:
        self.root = ET.fromstring(svg)
        self.groups = [
            (Rectangle.of(group.find(f"{SVG}rect")), list(group.iter(f"{SVG}text")))
            for group in self.root.iter(f"{SVG}g")
        ]
        self.boxes = [rectangle for rectangle, _ in self.groups]
        self.frames = [Rectangle.of(e) for e in self.root.iter(f"{SVG}rect") if e.get("class") == "frame"]
        self.frame = self.frames[0]
        self.sums = [
            Rectangle(x - r, y - r, x + r, y + r)
            for e in self.root.iter(f"{SVG}circle")
            for x, y, r in [tuple(float(e.get(name, "0")) for name in ("cx", "cy", "r"))]
        ]
        self.free_texts = self.root.findall(f"{SVG}text")
        self.paths = [
            (
                [tuple(map(float, point.split())) for point in e.get("d", "")[2:].split(" L ")],
                e.get("marker-end") is not None,
            )
            for e in self.root.findall(f"{SVG}path")
            if e.get("class") != "plus"
        ]

    @property
    def paper(self) -> Rectangle:
        left, top, width, height = map(float, self.root.get("viewBox", "").split())
        return Rectangle(left, top, width, height)

    @property
    def titles(self) -> list[str]:
        """Of the boxes, from below."""
        ordered = sorted(self.groups, key=lambda group: (-group[0].bottom, group[0].left))
        return [texts[0].text or "" for _, texts in ordered]

    def details(self, title: str) -> set[tuple[str, ...]]:
        """The small lines of the boxes of that title."""
        return {tuple(text.text or "" for text in texts[1:]) for _, texts in self.groups if texts[0].text == title}
