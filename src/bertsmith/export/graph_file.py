"""From a `Part` to a file of ONNX, by torch's exporter, with our names for inputs, outputs and axes.

Not here: what the graphs compute (`export.answers`, `export.decoders`), and whether a file is right (`export.verify`).
"""

from __future__ import annotations

import ast
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from bertsmith import __version__
from bertsmith.errors import import_extra
from bertsmith.export.part import Axes, Part
from bertsmith.files import new_file, write_file

OPSET = 18
"""Version of ONNX's operators: the first that torch's exporter writes, and LayerNorm is one of them."""

MOST_BYTES = 2**31 - 2**24
"""Most bytes of a file: protobuf ends at 2 GiB. Weights of a larger one lie beside it, in `NAME.onnx_data`."""

ALIGNMENT = 4096
"""Of weights that lie beside the graph, so that they can be mapped into memory."""

LOGGERS = ("torch.onnx", "torch.export", "torch.__trace", "onnxscript", "onnx_ir")
"""Those of the exporter."""

SMALL = 1024
"""Bytes of a tensor that always stays in the graph."""


def write_graph(folder: Path, part: Part, *, metadata: Mapping[str, str], most_bytes: int = MOST_BYTES) -> list[str]:
    """Write `folder/STEM.onnx` (and `STEM.onnx_data`); returns the names of the files. Raises `OSError` on a full disk,
    naming the file.
    """
    graph = traced(part)
    for key, value in metadata.items():
        entry = graph.metadata_props.add()
        entry.key, entry.value = key, value
    name = f"{part.stem}.onnx"
    names = [name]
    if _weight(graph) > most_bytes:
        names.append(f"{name}_data")
        _move_weights(graph, folder / names[1])
    write_file(folder / name, graph.SerializeToString())
    return names


def traced(part: Part) -> Any:
    """The `onnx.ModelProto` of a part."""
    onnx = import_extra("onnx", extra="onnx")
    axes = iter(part.inputs.values())
    shapes = tuple(_named(argument, axes) for argument in part.example)
    with _quiet():
        program: Any = torch.onnx.export(
            part.module.eval(),
            part.example,
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            dynamic_shapes=shapes,
            opset_version=OPSET,
            verbose=False,
        )
        graph = program.model_proto
    graph.producer_name, graph.producer_version = "bertsmith", __version__
    graph.graph.name = part.stem
    _tidy(graph.graph)
    for values, named in ((graph.graph.input, part.inputs), (graph.graph.output, part.outputs)):
        for value in values:
            _set_axes(value, named[value.name])
    if _weight(graph) < MOST_BYTES:  # the checker takes no larger ones
        onnx.checker.check_model(graph)
    return graph


def _tidy(graph: Any) -> None:
    """Name nodes after the modules that they come from, and drop the exporter's notes: they name files of ours."""
    count: Counter[str] = Counter()
    for node in graph.node:
        notes = {note.key: note.value for note in node.metadata_props}
        scopes = ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", "['']"))
        name = f"{scopes[-2]}.{node.op_type}" if len(scopes) > 1 and scopes[-2] else node.op_type
        count[name] += 1
        node.name = f"{name}_{count[name]}" if count[name] > 1 else name
        node.doc_string = ""
    for noted in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        noted.ClearField("metadata_props")


def _weight(graph: Any) -> int:
    """Bytes of the tensors of a graph."""
    return sum(len(tensor.raw_data) for tensor in graph.graph.initializer)


def _named(argument: Any, axes: Iterator[Axes]) -> Any:
    """For each tensor of an argument, axis number -> name, as the exporter wants it."""
    if isinstance(argument, torch.Tensor):
        return {i: name for i, name in enumerate(next(axes)) if isinstance(name, str)}
    return tuple(_named(part, axes) for part in argument)


def _set_axes(value: Any, axes: Axes) -> None:
    """Name the axes of an input or output, where the exporter may have put a formula."""
    dimensions = value.type.tensor_type.shape.dim
    if len(dimensions) != len(axes):
        raise ValueError(f"{value.name} has {len(dimensions)} axes, not {len(axes)}")
    for dimension, axis in zip(dimensions, axes, strict=True):
        if isinstance(axis, str):
            dimension.dim_param = axis
        else:
            dimension.dim_value = axis


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter speaks of its own insides, in warnings and logs that no user can do anything about."""
    loggers = [
        logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch.__trace", "onnxscript", "onnx_ir")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _move_weights(graph: Any, file: Path) -> None:
    """Put the large tensors of `graph` into `file`, and leave their places in it."""
    onnx = import_extra("onnx", extra="onnx")
    offset = 0
    with new_file(file) as stream:
        for tensor in graph.graph.initializer:
            content = tensor.raw_data
            if len(content) <= SMALL:
                continue
            stream.write(b"\0" * (-offset % ALIGNMENT))
            offset += -offset % ALIGNMENT
            stream.write(content)
            onnx.external_data_helper.set_external_data(tensor, file.name, offset=offset, length=len(content))
            tensor.ClearField("raw_data")
            offset += len(content)
