"""The drawing: well-formed, nothing overlaps or leaves its box, arrows meet boxes, and the numbers are the model's."""

from __future__ import annotations

import re
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from bertsmith.anatomy import Work, anatomy, total
from bertsmith.config.encoder import ACTIVATIONS, EncoderConfig
from bertsmith.diagram.draw import diagram
from bertsmith.diagram.labels import span
from bertsmith.diagram.svg import printable, shortened, text_width
from bertsmith.models.bert import HEADS, Bert
from bertsmith.presets import LAYOUTS, size_fields
from tests.cli.run import bertsmith
from tests.picture import SVG, Picture, Rectangle

PRETRAINING = ("pooler", "masked_lm", "next_sentence")
MODELS: dict[str, tuple[dict[str, Any], tuple[str, ...], Work]] = {
    "MiniLM": (
        {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536},
        ("masked_lm",),
        Work(8, 128),
    ),
    "pre-norm, untied": ({"norm_position": "pre", "tie_word_embeddings": False}, PRETRAINING, Work(4, 32, 0.15)),
    "classifier": ({}, ("pooler", "classifier"), Work(32, 64)),
    "classifier without pooler": ({"cls_pooler": False}, ("classifier",), Work(32, 64)),
    "all axes off": (
        {
            "norm_position": "pre",
            "final_norm": False,
            "norm_kind": "std_norm",
            "embedding_norm": False,
            "embedding_scale": True,
            "position_kind": "sinusoidal",
            "type_vocab_size": 0,
            "cls_pooler": False,
            "masked_lm_transform": False,
            "attention_head_size": 20,
            "value_head_size": 48,
            "hidden_act": "gelu_pytorch_tanh",
        },
        ("masked_lm", "next_sentence"),
        Work(2, 3),
    ),
    "modern": (
        LAYOUTS["modern"] | size_fields(6, 384, layout="modern"),
        ("masked_lm",),
        Work(8, 128, 0.4),
    ),
    "tokens through the pooler": (LAYOUTS["modern"], ("token_classifier", "question_answering"), Work(8, 128)),
    "narrow embeddings, discriminator": (
        {"embedding_size": 128, "hidden_size": 256, "num_attention_heads": 4, "pooler_activation": "gelu"},
        ("discriminator", "classifier"),
        Work(8, 128),
    ),
    "smallest": (
        {
            "vocab_size": 1,
            "hidden_size": 1,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "intermediate_size": 1,
            "max_position_embeddings": 1,
        },
        (),
        Work(1, 1),
    ),
    "huge, pruned, every head": (
        {
            "vocab_size": 1_250_002,
            "hidden_size": 16384,
            "num_hidden_layers": 128,
            "num_attention_heads": 128,
            "intermediate_size": 65536,
            "max_position_embeddings": 131072,
            "pruned_heads": {0: tuple(range(120)), 3: (1, 2)},
        },
        HEADS,
        Work(16384, 131072),
    ),
}

every_model = pytest.mark.parametrize("kind", MODELS)


def make(kind: str, **changes: Any) -> tuple[Bert, Work]:
    shape, heads, work = MODELS[kind]
    with torch.device("meta"):  # shapes without memory
        return Bert(EncoderConfig(**(shape | changes)), heads=heads, num_labels=12345), work


def draw(kind: str, *, name: str = "a model", **changes: Any) -> Picture:
    model, work = make(kind, **changes)
    return Picture(diagram(model, work, name=name))


@every_model
def test_no_boxes_overlap_and_all_lie_on_the_paper(kind: str) -> None:
    picture = draw(kind)
    shapes = [*picture.boxes, *picture.sums]
    assert len(picture.boxes) >= 15
    assert not [(one, two) for one, two in combinations(shapes, 2) if one.meets(two)]
    assert all(picture.paper.holds(shape) for shape in [*shapes, picture.frame])
    assert all(picture.frame.holds(shape) or not picture.frame.meets(shape) for shape in shapes)


@every_model
def test_every_text_stays_in_its_box_and_free_texts_meet_nothing(kind: str) -> None:
    picture = draw(kind, name="a name that is far too long for the paper " * 9)
    for box, texts in picture.groups:
        lines = [Rectangle.of_text(text) for text in texts]
        assert all(box.holds(line) for line in lines), [text.text for text in texts]
        assert not [pair for pair in pairwise(lines) if pair[0].meets(pair[1])]
    free = [Rectangle.of_text(text) for text in picture.free_texts]
    assert all(picture.paper.holds(text) for text in free)
    assert not [pair for pair in combinations([*free, picture.frame], 2) if pair[0].meets(pair[1])]
    assert not [(text, box) for text in free for box in picture.boxes if text.meets(box)]


@every_model
def test_every_arrow_leads_from_a_shape_or_another_line_to_a_shape(kind: str) -> None:
    picture = draw(kind)
    shapes = [*picture.boxes, *picture.sums]
    segments = [segment for points, _ in picture.paths for segment in pairwise(points)]
    for points, has_head in picture.paths:
        start, end = points[0], points[-1]
        assert any(shape.has_on_its_edge(*start) for shape in shapes) or _on_another(start, points, segments)
        if has_head:
            assert any(shape.has_on_its_edge(*end) for shape in shapes)
        else:
            assert any(other[0] == end for other, _ in picture.paths)
        for (x1, y1), (x2, y2) in pairwise(points):
            assert x1 == x2 or y1 == y2, "lines are horizontal or vertical"
            line = Rectangle(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
            inner = [Rectangle(s.left + 1, s.top + 1, s.right - 1, s.bottom - 1) for s in shapes]
            assert not any(line.meets(shape) for shape in inner), "lines cross no box"
    for shape in shapes:
        assert any(shape.has_on_its_edge(*points[end]) for points, _ in picture.paths for end in (0, -1))


def _on_another(point: tuple[float, ...], own: list[tuple[float, ...]], segments: list[Any]) -> bool:
    x, y = point
    others = [segment for segment in segments if segment not in list(pairwise(own))]
    return any(min(x1, x2) <= x <= max(x1, x2) and min(y1, y2) <= y <= max(y1, y2) for (x1, y1), (x2, y2) in others)


def test_the_numbers_are_those_of_the_model() -> None:
    picture = draw("MiniLM")
    assert picture.details("Token embedding") == {("[30522, 384]", "11,720,448 parameters")}
    assert picture.details("Position embedding") == {("[512, 384]", "196,608 parameters")}
    assert picture.details("Segment embedding") == {("[2, 384]", "768 parameters")}
    for title in ("Query", "Key", "Value"):
        assert picture.details(title) == {("384 → 12 × 32", "[8, 128, 12, 32]", "147,840 parameters")}
    assert picture.details("Scores: Q Kᵀ / √32") == {("[8, 12, 128, 128]",)}
    assert picture.details("Concatenated heads") == {("[8, 128, 384]",)}
    assert picture.details("Output projection") == {("384 → 384 · [8, 128, 384] · 147,840 parameters",)}
    assert picture.details("Feed-forward in") == {("384 → 1536 · [8, 128, 1536] · 591,360 parameters",)}
    assert picture.details("GELU") == {("[8, 128, 1536]",)}
    assert picture.details("Feed-forward out") == {("1536 → 384 · [8, 128, 384] · 590,208 parameters",)}
    assert picture.details("LayerNorm") == {("[8, 128, 384] · 768 parameters",)}
    decoder = ("384 → 30522 · tied to token embedding", "[1024, 30522]", "30,522 parameters")
    assert picture.details("Masked LM decoder") == {decoder}
    free = [text.text for text in picture.free_texts]
    assert {"× 6", "1,774,464", "a model"} <= set(free)


@every_model
def test_the_parameters_in_the_boxes_add_up_to_those_of_the_table(kind: str) -> None:
    model, work = make(kind, pruned_heads={})
    picture = Picture(diagram(model, work, name="a model"))
    blocks = model.config.num_hidden_layers
    added = 0
    for box, texts in picture.groups:
        words = " ".join(text.text or "" for text in texts)
        found = re.findall(r"([\d,]+) parameters", words)
        times = blocks - ("not in the first block" in words) if picture.frame.holds(box) else 1
        added += sum(int(count.replace(",", "")) for count in found) * times
    assert added == total(anatomy(model, work)).parameters
    assert any(f"{added:,} parameters" in (text.text or "") for text in picture.free_texts)


def test_norms_stand_where_the_model_has_them() -> None:
    feedforward = ["Feed-forward in", "GELU", "Feed-forward out"]
    post = draw("classifier").titles
    assert post[6:8] == ["LayerNorm", "Query"]  # the first is that of the embeddings
    heads = ["Pooler", "Classifier"]
    assert post[14:] == ["Output projection", "LayerNorm", *feedforward, "LayerNorm", "Hidden states", *heads]
    pre = draw("pre-norm, untied").titles
    assert pre[6:8] == ["LayerNorm", "LayerNorm"]  # of the embeddings, then of the block's attention
    heads = ["Pooler", "Masked LM transform", "Next sentence", "Masked LM decoder"]
    assert pre[15:] == ["Output projection", "LayerNorm", *feedforward, "LayerNorm, final", "Hidden states", *heads]
    bare = draw("all axes off").titles
    assert not {"LayerNorm, final", "Segment embedding", "Position embedding", "Pooler"} & set(bare)
    assert "Sinusoidal positions" in bare


def test_residuals_go_around_the_sub_layer_and_in_pre_norm_around_its_norm_too() -> None:
    for kind, norms_inside in (("classifier", 0), ("pre-norm, untied", 1)):
        picture = draw(kind)
        residuals = [points for points, _ in picture.paths if len(points) == 4 and points[1][0] < picture.boxes[0].left]
        assert len(residuals) == 2
        for start, *_, end in residuals:
            inside = [texts[0].text for box, texts in picture.groups if end[1] < box.top and box.bottom < start[1]]
            assert inside.count("LayerNorm") == norms_inside
            assert ("Feed-forward in" in inside) != ("Query" in inside)


def test_pruned_heads_are_shown_as_a_range() -> None:
    picture = draw("MiniLM", pruned_heads={0: (1, 3, 5), 2: (0,)})
    (details,) = picture.details("Query")
    assert details == ("384 → 9–12 × 32", "[8, 128, 9–12, 32]", "110,880–147,840 parameters")
    assert picture.details("Concatenated heads") == {("[8, 128, 288–384]",)}
    assert span([12, 12]) == "12"


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_the_activation_is_named(act: str) -> None:
    titles = draw("classifier", hidden_act=act).titles
    name = titles[titles.index("Feed-forward in") + 1].split(" (")[0]
    assert name.casefold() == ("gelu" if "gelu" in act else "silu" if act == "swish" else act)


def test_names_are_escaped_shortened_and_printable() -> None:
    name = "a<b>&\"c'\x00\x1b " + "wide 漢字 " * 40
    picture = draw("MiniLM", name=name)
    heading = picture.free_texts[-3].text or ""
    assert heading.startswith("a<b>&\"c'��")
    assert "…" in heading
    assert text_width(heading, 20, bold=True) < picture.paper.right
    assert picture.root.find(f"{SVG}title").text == printable(f"Architecture of {name}")
    assert shortened("short", 1000, size=10) == "short"
    assert shortened("abcdefghij", 42, size=10) == "ab…ij"
    assert shortened("abcdefghij", 0, size=10) == "…"


def test_the_drawing_needs_nothing_else_and_brings_its_paper() -> None:
    model, work = make("MiniLM")
    svg = diagram(model, work, name="a model")
    assert "<style" not in svg
    assert not re.findall(r"(?:href|src|url)\b(?!\(#head\))", svg)
    picture = Picture(svg)
    first = picture.root.find(f"{SVG}rect")
    assert first is not None
    assert first.attrib == {
        "class": "paper",
        "fill": "#ffffff",
        "width": picture.root.get("width"),
        "height": picture.root.get("height"),
    }
    families = {text.get("font-family", "") for text in picture.root.iter(f"{SVG}text")}
    assert {family.rsplit(" ", 1)[-1] for family in families} == {"sans-serif", "monospace"}


def test_show_writes_the_drawing_and_replaces_one_only_when_told(capsys, encoder_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "new" / "model.svg"
    outcome = bertsmith(capsys, "show", encoder_dir, "--svg", file, "--length", 20)
    assert outcome.code == 0
    assert str(file) in outcome.out
    assert Picture(file.read_text(encoding="utf-8")).details("input_ids") == {("[8, 20]",)}
    outcome = bertsmith(capsys, "show", encoder_dir, "--svg", file)
    assert outcome.code == 2
    assert outcome.errors == [
        f"bertsmith: error: {file}: exists already; give --overwrite to replace it, or another --svg"
    ]
    assert bertsmith(capsys, "show", encoder_dir, "--svg", file, "--length", 30, "--overwrite").code == 0
    assert Picture(file.read_text(encoding="utf-8")).details("input_ids") == {("[8, 30]",)}
    outcome = bertsmith(capsys, "show", encoder_dir, "--svg", tmp_path, "--overwrite")
    assert outcome.code == 2
    assert "a directory" in outcome.errors[0]
    assert [path.name for path in file.parent.iterdir()] == ["model.svg"]
