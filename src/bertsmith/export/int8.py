"""An ONNX graph in float32 to one with int8 products, by operators of the standard alone.

Weights have a scale for each output, inputs a scale and a zero for each token, found while the graph runs; columns of
the input that are much larger than the others stay float32: the arithmetic of `engines.int8.Int8Linear`. The table
of tokens has a scale for each row. Not here: whether the result is good enough (`export.loss`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from bertsmith.engines.swap import PARTS
from bertsmith.errors import import_extra

TABLE = "embeddings.tokens.weight"
"""End of the name of the token table."""


def layer_of(node: Any) -> str | None:
    """The linear layer of a block that a node multiplies by, `"blocks.0.attention.qkv"`; None for other nodes."""
    if node.op_type not in ("Gemm", "MatMul"):
        return None
    module = node.name.rpartition(".")[0]
    if "blocks." not in module or not module.endswith(PARTS) or "/" in node.name:  # "/": a part of an int8 layer
        return None
    return str(module[module.index("blocks.") :])


def to_int8(graph: Any, columns: Mapping[str, np.ndarray], *, keep: Collection[str] = ()) -> Any:
    """A copy of an `onnx.ModelProto`; `columns`: of each layer the inputs that stay float32; `keep`: layers that do.

    `keep` may name "embeddings" too. A token table that is also the decoder's stays float32.
    """
    onnx = import_extra("onnx", extra="onnx", field="--int8")
    found = onnx.ModelProto()
    found.CopyFrom(graph)
    tensors = {tensor.name: tensor for tensor in found.graph.initializer}
    nodes: list[Any] = []
    gone: set[str] = set()
    for node in found.graph.node:
        layer = layer_of(node)
        if layer is not None and layer not in keep and node.input[1] in tensors:
            weight = onnx.numpy_helper.to_array(tensors[node.input[1]])
            is_transposed = any(field.name == "transB" and field.i for field in node.attribute)
            made, added = _linear(onnx, node, weight.T if is_transposed else weight, columns[layer])
        elif node.op_type == "Gather" and node.input[0].endswith(TABLE) and "embeddings" not in keep:
            if sum(node.input[0] in other.input for other in found.graph.node) > 1:
                nodes.append(node)
                continue
            made, added = _table(onnx, node, onnx.numpy_helper.to_array(tensors[node.input[0]]))
        else:
            nodes.append(node)
            continue
        gone.update(name for name in node.input if name in tensors and not name.endswith("bias"))
        nodes += made
        found.graph.initializer.extend(added)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in found.graph.initializer if tensor.name in used or tensor.name not in gone]
    del found.graph.node[:], found.graph.initializer[:]
    found.graph.node.extend(nodes)
    found.graph.initializer.extend(kept)
    onnx.checker.check_model(found)
    return found


def _linear(onnx: Any, node: Any, weight: np.ndarray, apart: np.ndarray) -> tuple[list[Any], list[Any]]:
    """The nodes and tensors that take the place of a product with `weight` `[in, out]`."""
    name, inputs, output = node.name, list(node.input), node.output[0]
    rest = weight.copy()
    rest[apart] = 0.0
    scales = np.maximum(np.abs(rest).max(0), np.finfo(np.float32).tiny) / 127
    rounded = np.round(rest / scales).astype(np.int8)
    mask = np.ones(len(weight), np.float32)
    mask[apart] = 0.0
    sums = rounded.sum(0, dtype=np.float32) * scales
    tensors = {
        "mask": mask,
        "axis": np.array([-1], np.int64),
        "step": np.array(1 / 255, np.float32),
        "tiny": np.array(1e-30, np.float32),
        "apart": apart.astype(np.int64),
        "weight": rounded,
        "scales": scales.astype(np.float32),
        "sums": np.concatenate([weight[apart], sums[None]]).astype(np.float32),
    }
    steps: list[tuple[str, tuple[str, ...], str, dict[str, Any]]] = [
        ("Mul", ("input", "mask"), "rest", {}),
        ("ReduceMin", ("rest", "axis"), "low", {"keepdims": 1}),
        ("ReduceMax", ("rest", "axis"), "high", {"keepdims": 1}),
        ("Sub", ("high", "low"), "range", {}),
        ("Mul", ("range", "step"), "size", {}),
        ("Max", ("size", "tiny"), "scale", {}),
        ("Sub", ("rest", "low"), "above", {}),
        ("Div", ("above", "scale"), "steps", {}),
        ("Round", ("steps",), "nearest", {}),
        ("Cast", ("nearest",), "bytes", {"to": onnx.TensorProto.UINT8}),
        ("MatMulInteger", ("bytes", "weight"), "sum", {}),
        ("Cast", ("sum",), "product", {"to": onnx.TensorProto.FLOAT}),
        ("Mul", ("product", "scales"), "by_output", {}),
        ("Mul", ("by_output", "scale"), "by_token", {}),
        ("Gather", ("input", "apart"), "large", {"axis": -1}),
        ("Concat", ("large", "low"), "exact", {"axis": -1}),
        ("MatMul", ("exact", "sums"), "correction", {}),
        ("Add", ("by_token", "correction"), "whole", {}),
    ]
    bias = inputs[2] if len(inputs) > 2 else None
    if bias is not None:
        steps.append(("Add", ("whole", "bias"), "result", {}))
    last = steps[-1][2]
    given = {"input": inputs[0], "bias": bias, last: output}

    def named(part: str) -> str:
        return given.get(part) or f"{name}/{part}"

    nodes = [
        onnx.helper.make_node(kind, [named(part) for part in parts], [named(made)], f"{name}/{kind}_{i}", **fields)
        for i, (kind, parts, made, fields) in enumerate(steps)
    ]
    return nodes, [onnx.numpy_helper.from_array(value, named(part)) for part, value in tensors.items()]


def _table(onnx: Any, node: Any, weight: np.ndarray) -> tuple[list[Any], list[Any]]:
    """The nodes and tensors that take the place of a look-up in `weight` `[tokens, size]`."""
    name, ids, output = node.name, node.input[1], node.output[0]
    scales = np.maximum(np.abs(weight).max(1, keepdims=True), np.finfo(np.float32).tiny) / 127
    tensors = {"weight": np.round(weight / scales).astype(np.int8), "scales": scales.astype(np.float32)}
    make = onnx.helper.make_node
    nodes = [
        make("Gather", [f"{name}/weight", ids], [f"{name}/bytes"], f"{name}/Gather_0"),
        make("Cast", [f"{name}/bytes"], [f"{name}/numbers"], f"{name}/Cast", to=onnx.TensorProto.FLOAT),
        make("Gather", [f"{name}/scales", ids], [f"{name}/scale"], f"{name}/Gather_1"),
        make("Mul", [f"{name}/numbers", f"{name}/scale"], [output], f"{name}/Mul"),
    ]
    return nodes, [onnx.numpy_helper.from_array(value, f"{name}/{part}") for part, value in tensors.items()]
