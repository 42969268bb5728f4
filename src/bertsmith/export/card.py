"""The card of an exported directory: what it is, from what, how exact, how to run it elsewhere."""

from __future__ import annotations

from typing import Any

PIPELINES = {
    "classify": "text-classification",
    "rerank": "text-classification",
    "tag": "token-classification",
    "qa": "question-answering",
    "embed": "feature-extraction",
    "encode": "feature-extraction",
    "fill-mask": "fill-mask",
}
"""Kind of a graph -> transformers.js's pipeline."""


def export_card(title: str, source: str, described: dict[str, Any], *, licence: str) -> str:
    """Markdown. `source`: name of the model; `described`: what the manifest says under `onnx`."""
    pipeline = PIPELINES.get(described["kind"])
    tag = f"pipeline_tag: {pipeline}\n" if pipeline else ""
    graphs = "\n".join(
        f"| `onnx/{name}` | {_listed(graph['inputs'])} | {_listed(graph['outputs'])} |"
        for name, graph in described["graphs"].items()
    )
    shapes = ", ".join(f"{shape['rows']} x {shape['length']}" for shape in described["shapes"])
    javascript = f"""
In JavaScript, by transformers.js:

```js
import {{ pipeline }} from '@huggingface/transformers';
const run = await pipeline('{pipeline}', 'DIR', {{ dtype: 'fp32' }});
```
"""
    return f"""---
library_name: transformers.js
license: {licence}
{tag}---

# {title}

`{source}` as ONNX, written by `bertsmith export`, operators of version {described["opset"]}.

| file | inputs | outputs |
|---|---|---|
{graphs}

Largest difference to torch: {described["largest_difference"]:.2g}, over batches of {shapes} tokens, padded and not.

## How to run it

By onnxruntime, with the tokenizer in `tokenizer.json`; inputs are int64, `attention_mask` is 1 where tokens are:

```python
import onnxruntime

session = onnxruntime.InferenceSession("DIR/onnx/{next(iter(described["graphs"]))}")
```
{javascript if pipeline else ""}
"""


def _listed(tensors: dict[str, list[Any]]) -> str:
    """`{"logits": ["batch_size", 2]}` -> "`logits` [batch_size, 2]"; of many the first ones, and their number."""
    shown = [f"`{name}` [{', '.join(map(str, axes))}]" for name, axes in list(tensors.items())[:4]]
    return ", ".join(shown) + (f", … ({len(tensors)} in all)" if len(tensors) > len(shown) else "")
