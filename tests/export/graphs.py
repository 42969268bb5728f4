"""Graphs written for a test, and opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bertsmith.export.answers import EncoderGraph, encoder_part, reads_segments
from bertsmith.export.engine import open_session
from bertsmith.export.graph_file import write_graph
from bertsmith.export.part import Part
from bertsmith.export.verify import Difference, compare_encoder, verify
from bertsmith.models.bert import Bert
from bertsmith.models.sentence import SentenceModules


def sessions_of(folder: Path, parts: list[Part], **options: Any) -> dict[str, Any]:
    """Stem -> session."""
    for part in parts:
        write_graph(folder, part, metadata={}, **options)
    return {part.stem: open_session(folder / f"{part.stem}.onnx", threads=1) for part in parts}


def verified(
    folder: Path, model: Bert, kind: str, modules: SentenceModules | None = None, **options: Any
) -> tuple[Any, list[Difference]]:
    """The session of a model's graph, after the nine shapes."""
    graph = EncoderGraph(model, kind, modules or SentenceModules())
    sessions = sessions_of(folder, [encoder_part(graph)], **options)
    config = model.config
    differences = verify(
        compare_encoder(graph),
        sessions,
        positions=config.max_position_embeddings,
        tokens=config.vocab_size,
        segments=2 if reads_segments(model) else 1,
        width=config.vocab_size,
    )
    return sessions["model"], differences
