"""Where the boxes of the drawing stand: data flows upward, as in the figures of the papers.

    heads, side by side
    hidden states
    final norm                        of a pre-norm encoder
    ┌ norm, (+) and feed-forward ┐
    │ norm, (+) and attention    │ × L
    └────────────────────────────┘
    norm, (+)
    token, position and segment embedding

Not here: what the boxes say (`diagram.labels`), and the SVG (`diagram.svg`). Vaswani et al. 2017, figure 1; Devlin et
al. 2018, figure 2; for pre-norm, Xiong et al. 2020, figure 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bertsmith.anatomy import Work, parameters
from bertsmith.diagram.labels import Labels, counted
from bertsmith.diagram.svg import Box, Canvas, Label
from bertsmith.models.bert import Bert

GAP = 22
"""Between a box and the next one above or beside it."""
FORK = 16
"""From a fork to the boxes above it."""
LANE = 26
"""From the boxes to the line of a residual, and from there to the frame."""
NARROWEST = 150
"""Of the three boxes that stand side by side."""


def diagram(model: Bert, work: Work, *, name: str) -> str:
    """An SVG file of `model`; `work` gives the batch and the length that its shapes show."""
    labels = Labels(model, work)
    drawing = Drawing(model, labels)
    drawing.embeddings()
    drawing.blocks()
    drawing.outputs()
    drawing.canvas.caption(name, labels.summary())
    kind, heads = f"{model.config.norm_position}-norm", ", ".join(model.heads) or "none"
    description = " · ".join((*labels.summary(), kind, f"heads: {heads}"))
    return drawing.canvas.to_svg(title=f"Architecture of {name}", description=description)


@dataclass(frozen=True)
class Cross:
    """A decoder's attention to a source."""

    projections: Sequence[Label]
    """Of value, key and query."""
    attention: Sequence[Label]
    """From scores to the output projection."""
    counts: Sequence[int]
    """Parameters of each whole block."""


class Drawing:
    """Stacks boxes around x = 0; `y` is the top of what was drawn, where the data comes out."""

    def __init__(self, model: Bert, labels: Labels, *, cross: Cross | None = None) -> None:
        self.model, self.config, self.labels, self.cross = model, model.config, labels, cross
        self.canvas = Canvas()
        self.y = 0.0
        self.states = Box(0, 0, 0, 0)
        """What comes out of the blocks."""
        self.source: list[Box] = []
        """Value and key of the attention to a source."""
        beside = [*labels.inputs(), *labels.tables(), *labels.projections(), *(cross.projections if cross else ())]
        alone = [*labels.attention(), *labels.feedforward(), labels.norm()]
        narrow = (max(label.width for label in alone) - 2 * GAP) / 3
        self.column = max(NARROWEST, narrow, *(label.width for label in beside))
        self.width = 3 * self.column + 2 * GAP

    def embeddings(self) -> None:
        """Ids, tables, their sum, and the norm if there is one."""
        inputs = self._row(self.labels.inputs(), 0)
        tables = self._row(self.labels.tables(), inputs[0].top + GAP)
        if len(tables) == 1:
            self.canvas.arrow((0, inputs[0].top), (0, tables[0].bottom))
            self.y = tables[0].top
        else:
            self._sum(inputs, tables)
        if self.config.embedding_norm:
            self._stack(self.labels.embedding_norm())
        projection = self.labels.embedding_projection()
        if projection is not None:
            self._stack(projection)

    def _sum(self, inputs: Sequence[Box], tables: Sequence[Box]) -> None:
        """The sum of what the tables give, above them."""
        added = self.canvas.sum(0, tables[0].top + GAP)
        for ids, table in zip(inputs, tables, strict=True):
            self.canvas.arrow((ids.x, ids.top), (table.x, table.bottom))
            if table.x == 0:
                self.canvas.arrow((0, table.top), (0, added.bottom))
            else:
                side = added.left if table.x < 0 else added.right
                self.canvas.arrow((table.x, table.top), (table.x, added.middle), (side, added.middle))
        self.y = added.top

    def blocks(self) -> None:
        """One block in a frame that says how many there are."""
        bottom = self.y + GAP
        self._line_to(bottom)
        self._sublayer(self._attention, "" if self.config.first_norm else ", not in the first block")
        if self.cross is not None:
            self._sublayer(self._cross)
        self._sublayer(self._feedforward)
        frame = self.canvas.frame(0, bottom, width=self.width + 4 * LANE, height=self.y + GAP - bottom)
        self._line_to(frame.top)
        counts = self.cross.counts if self.cross else [parameters(block) for block in self.model.encoder.blocks]
        count, unit = counted(*counts).split()
        x = frame.right + 16
        self.canvas.text(x, frame.middle, f"× {self.config.num_hidden_layers}", size=30, bold=True)
        for line, text in enumerate((count, unit, "in each block"), 1):
            self.canvas.text(x, frame.middle - 6 - 16 * line, text, size=12)

    def outputs(self) -> None:
        """The final norm, the hidden states, and the heads that read them."""
        if self.config.has_final_norm:
            self._stack(self.labels.norm(", final"))
        self.states = self._stack(self.labels.states())
        pooler, readers = self.labels.pooler(), self.labels.readers_of_cls()
        on_cls = [pooler] if pooler is not None else readers
        stacks = [[label] for label in on_cls] + self.labels.readers_of_tokens()
        if not stacks:
            return
        above = readers if pooler is not None else []
        narrow = sum(label.width for label in above) + GAP * (len(above) - 1)
        widths = [max(label.width for label in stack) for stack in stacks]
        widths[0] = max(widths[0], narrow)
        lowest = [stack[0] for stack in stacks]
        boxes = self._spread(lowest, widths, (0, self.y), width=self.width)
        for stack, box in zip(stacks, boxes, strict=True):
            for label in stack[1:]:
                higher = self.canvas.box(label, box.x, bottom=box.top + GAP, width=box.width)
                self.canvas.arrow((box.x, box.top), (box.x, higher.bottom))
                box = higher
        if above:
            start = boxes[0]
            self._spread(above, [label.width for label in above], (start.x, start.top), width=start.width)

    def _sublayer(self, inside: Callable[[], None], norm_place: str = "") -> None:
        """What `inside` draws, the residual around it, and the norm on its side."""
        is_pre_norm = self.config.norm_position == "pre"
        branch = self.y + GAP / 2
        self._line_to(branch)
        if is_pre_norm:
            self._stack(self.labels.norm(norm_place))
        inside()
        added = self.canvas.sum(0, self.y + GAP)
        self.canvas.arrow((0, self.y), (0, added.bottom))
        lane = -self.width / 2 - LANE
        self.canvas.arrow((0, branch), (lane, branch), (lane, added.middle), (added.left, added.middle))
        self.y = added.top
        if not is_pre_norm:
            self._stack(self.labels.norm())

    def _attention(self) -> None:
        query, key, value = boxes = self._row(self.labels.projections(), self.y + GAP + FORK)
        self._fork((0, self.y), boxes)
        self._attend(query, key, value, self.labels.attention())

    def _cross(self) -> None:
        """Value, key and query from the left, where the source comes from; its fork is the upper one."""
        assert self.cross is not None
        start, turn = self.y, self.y + GAP
        value, key, query = self._row(self.cross.projections, turn + 2 * FORK)
        self.canvas.arrow((0, start), (0, turn), (query.x, turn), (query.x, query.bottom))
        self.source = [value, key]
        self._attend(query, key, value, self.cross.attention)

    def _attend(self, query: Box, key: Box, value: Box, labels: Sequence[Label]) -> None:
        """From the three boxes to the output projection."""
        label_of_scores, label_of_softmax, label_of_sums, *others = labels
        x, width = (query.x + key.x) / 2, 2 * self.column + GAP
        scores = self.canvas.box(label_of_scores, x, bottom=query.top + GAP, width=width)
        softmax = self.canvas.box(label_of_softmax, x, bottom=scores.top + GAP, width=width)
        sums = self.canvas.box(label_of_sums, 0, bottom=softmax.top + GAP, width=self.width)
        for column, below, above in (
            (query.x, query, scores),
            (key.x, key, scores),
            (x, scores, softmax),
            (x, softmax, sums),
            (value.x, value, sums),
        ):
            self.canvas.arrow((column, below.top), (column, above.bottom))
        self.y = sums.top
        for label in others:
            self._stack(label)

    def _feedforward(self) -> None:
        for label in self.labels.feedforward():
            self._stack(label)

    def _stack(self, label: Label) -> Box:
        """A box over the full width, with an arrow from what is below."""
        box = self.canvas.box(label, 0, bottom=self.y + GAP, width=self.width)
        self.canvas.arrow((0, self.y), (0, box.bottom))
        self.y = box.top
        return box

    def _line_to(self, y: float) -> None:
        self.canvas.line((0, self.y), (0, y))
        self.y = y

    def _row(self, labels: Sequence[Label], bottom: float) -> list[Box]:
        """Boxes of one size side by side, around the middle."""
        height = max(label.height for label in labels)
        step, first = self.column + GAP, -(len(labels) - 1) / 2
        return [
            self.canvas.box(label, (first + i) * step, bottom=bottom, width=self.column, height=height)
            for i, label in enumerate(labels)
        ]

    def _spread(
        self, labels: Sequence[Label], widths: Sequence[float], source: tuple[float, float], *, width: float
    ) -> list[Box]:
        """Boxes side by side above `source`, at least so wide each and `width` together, with arrows to them."""
        spare = max(0.0, width - sum(widths) - GAP * (len(widths) - 1)) / len(widths)
        left = source[0] - (sum(widths) + GAP * (len(widths) - 1) + spare * len(widths)) / 2
        height = max(label.height for label in labels)
        bottom = source[1] + GAP + (FORK if len(labels) > 1 else 0)
        boxes = []
        for label, needed in zip(labels, widths, strict=True):
            x = left + (needed + spare) / 2
            boxes.append(self.canvas.box(label, x, bottom=bottom, width=needed + spare, height=height))
            left += needed + spare + GAP
        self._fork(source, boxes)
        return boxes

    def _fork(self, source: tuple[float, float], boxes: Sequence[Box]) -> None:
        """Arrows from one point to boxes of the same bottom."""
        x, y = source
        fork = boxes[0].bottom - FORK
        self.canvas.line((x, y), (x, fork))
        for box in boxes:
            bend = [(x, fork)] if abs(box.x - x) < 0.5 else [(x, fork), (box.x, fork)]
            self.canvas.arrow(*bend, (box.x, box.bottom))
