"""The drawing of an encoder-decoder: nothing overlaps, lines meet boxes, and the numbers are the model's."""

from __future__ import annotations

import re
from itertools import combinations, pairwise

import pytest

from bertsmith.anatomy import Work
from bertsmith.diagram.seq2seq import seq2seq_diagram
from tests.picture import Picture, Rectangle
from tests.test_anatomy_seq2seq import MODELS, every_model, make


def draw(name: str, *, title: str = "a model") -> Picture:
    return Picture(seq2seq_diagram(make(name), Work(4, 16), name=title))


@every_model
def test_nothing_overlaps_and_all_lies_on_the_paper(name: str) -> None:
    picture = draw(name, title="a name that is far too long for the paper " * 9)
    shapes = [*picture.boxes, *picture.sums]
    assert len(picture.frames) == 2
    assert not [(one, two) for one, two in combinations(shapes, 2) if one.meets(two)]
    assert not picture.frames[0].meets(picture.frames[1])
    assert all(picture.paper.holds(shape) for shape in [*shapes, *picture.frames])
    for frame in picture.frames:
        assert all(frame.holds(shape) or not frame.meets(shape) for shape in shapes)
    free = [Rectangle.of_text(text) for text in picture.free_texts]
    assert all(picture.paper.holds(text) for text in free)
    assert not [pair for pair in combinations([*free, *picture.frames], 2) if pair[0].meets(pair[1])]
    assert not [(text, box) for text in free for box in shapes if text.meets(box)]
    for box, texts in picture.groups:
        assert all(box.holds(Rectangle.of_text(text)) for text in texts), [text.text for text in texts]


@every_model
def test_lines_cross_no_box_and_no_text_and_end_at_boxes(name: str) -> None:
    picture = draw(name)
    shapes = [*picture.boxes, *picture.sums]
    inner = [Rectangle(s.left + 1, s.top + 1, s.right - 1, s.bottom - 1) for s in shapes]
    free = [Rectangle.of_text(text) for text in picture.free_texts]
    for points, has_head in picture.paths:
        assert not has_head or any(shape.has_on_its_edge(*points[-1]) for shape in shapes)
        for (x1, y1), (x2, y2) in pairwise(points):
            assert x1 == x2 or y1 == y2, "lines are horizontal or vertical"
            line = Rectangle(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
            assert not any(line.meets(shape) for shape in [*inner, *free])


@every_model
def test_the_decoder_reads_the_encoders_states(name: str) -> None:
    picture = draw(name)
    named = [(texts[0].text, box) for box, texts in picture.groups]
    (key,) = [box for title, box in named if title == "Key of the source"]
    ends = [points for points, has_head in picture.paths if has_head and key.has_on_its_edge(*points[-1])]
    (source,) = [points for points in ends if len(points) == 5]
    wanted = "Projection of states" if name == "a wide encoder" else "Hidden states"
    first = next(box for title, box in named if title == wanted)
    assert first.has_on_its_edge(*source[0])
    assert first.right <= picture.frames[1].left
    assert picture.frames[1].holds(key)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("shared halves", "original, shared")])
def test_the_parameters_in_the_boxes_are_those_of_the_model(name: str) -> None:
    picture, model = draw(name), make(name)
    layers = (model.encoder.config.num_hidden_layers, model.writer.config.num_hidden_layers)
    added = 0
    for box, texts in picture.groups:
        found = re.findall(r"([\d,]+) parameters", " ".join(text.text or "" for text in texts))
        times = next((n for n, frame in zip(layers, picture.frames, strict=True) if frame.holds(box)), 1)
        added += sum(int(count.replace(",", "")) for count in found) * times
    assert added == model.num_parameters
    assert any(f"{added:,} parameters" in (text.text or "") for text in picture.free_texts)
    blocks = [sum(p.numel() for p in half.blocks[0].parameters()) for half in (model.encoder, model.writer.decoder)]
    assert {f"{count:,}" for count in blocks} <= {text.text for text in picture.free_texts}


def test_a_decoders_tokens_see_what_was_before_and_all_of_the_source() -> None:
    titles = [title for title in draw("original").titles if title.startswith("Softmax")]
    assert titles == ["Softmax over the keys", "Softmax over the keys so far", "Softmax over the keys"]


def test_what_is_shared_is_said() -> None:
    texts = [text.text or "" for text in draw("shared halves").free_texts]
    assert any(text.endswith("the halves are one but for the attention to the source") for text in texts)
    block = make("shared halves").writer.decoder.blocks[0]
    own = sum(p.numel() for name, p in block.named_parameters() if name.startswith("cross"))
    assert f"{own:,}" in texts
    assert ("[256, 48]", "the encoder's") in draw("shared tokens").details("Token embedding")
    assert any(text.endswith("one token table") for text in [t.text or "" for t in draw("shared tokens").free_texts])
