"""An exported directory, run by onnxruntime: packed batches in, what `Task.join` takes out.

Not here: how a directory is exported (`export.run`), how texts become batches and results answers (`tasks`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bertsmith.batch import Batch
from bertsmith.errors import InputError, import_extra
from bertsmith.files import MANIFEST, read_manifest

KIND = "onnx"
"""`kind` of the manifest of an exported directory."""

DESCRIBED = ("kind", "positions", "per_token")
"""What the manifest must say under `onnx` for the graph to be run."""

GENERATE = "generate"
"""What a model that writes text is for; it is a task's name otherwise, or one of `export.answers`."""

FOLDER = "onnx"
"""Where its graphs lie, as transformers.js, optimum and sentence-transformers look for them."""


PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""What making and running a graph needs beside the core: the extra `onnx`."""


def check_packages(field: str) -> None:
    """Raise `InputError` naming the first of `PACKAGES` that is not there, and `field`, which needs it."""
    for package in PACKAGES:
        import_extra(package, extra="onnx", field=field)


class OnnxModel:
    """The graph of an encoder with its head, ready to run on the CPU.

    `outputs` takes the place of `Task.outputs`: the same arrays, computed from the file.
    """

    def __init__(self, directory: Path, *, threads: int | None = None) -> None:
        """Raises `InputError` for a directory that was not exported by bertsmith, or was changed since, for one that
        writes text, and without onnxruntime. `threads`: by default as many as onnxruntime takes, one for each core.
        """
        manifest = read_manifest(directory, kind=KIND, keys=("task", "onnx"))
        if missing := [name for name in DESCRIBED if name not in manifest["onnx"]]:
            raise InputError(f'"onnx" has no "{missing[0]}"; export it again', file=directory / MANIFEST)
        self.task: dict[str, Any] = manifest["task"]
        """What the model was trained for (`tasks.known.task_from_manifest`)."""
        if manifest["onnx"]["kind"] == GENERATE:
            raise InputError("its graphs write text; an encoder's is needed", file=directory)
        self._open(directory / FOLDER / "model.onnx", manifest["onnx"], threads=threads)

    @classmethod
    def of(cls, graph: bytes, described: Mapping[str, Any], *, threads: int | None = None) -> OnnxModel:
        """A graph that has no directory; `described`: what a manifest would say of it under `onnx`."""
        made = cls.__new__(cls)
        made.task = {}
        made._open(graph, described, threads=threads)
        return made

    def _open(self, graph: Path | bytes, described: Mapping[str, Any], *, threads: int | None) -> None:
        self.per_token = frozenset(described["per_token"])
        self.positions: int = described["positions"]
        self.has_choices = described["kind"] == "choice"
        self.session = open_session(graph, threads=threads)
        self.inputs = tuple(entry.name for entry in self.session.get_inputs())
        self.names = tuple(entry.name for entry in self.session.get_outputs())

    def run(self, batch: Batch) -> dict[str, np.ndarray]:
        """Name -> `[sequences, …]`, or `[sequences, max_seqlen, …]` of what is said about tokens, padding included.

        Raises `InputError` for a sequence longer than the positions.
        """
        if batch.max_seqlen > self.positions:
            raise InputError(
                f"a sequence has {batch.max_seqlen} tokens, the model has {self.positions} positions; shorten the text"
            )
        feeds = dense_feeds(batch)
        if self.has_choices:
            feeds = {name: values[:, None] for name, values in feeds.items()}
        values = run_session(self.session, {name: feeds[name] for name in self.inputs})
        return {name: found[:, 0] for name, found in values.items()} if self.has_choices else values

    def outputs(self, batch: Batch) -> list[np.ndarray]:
        """One float32 array for each input of `batch`, as `Task.outputs` gives it."""
        found = self.run(batch)
        names = [name for name in found if name not in ("last_hidden_state", "pooler_output")] or list(found)[:1]
        values = np.stack([found[name] for name in names], axis=-1) if len(names) > 1 else found[names[0]]
        if names[0] in self.per_token:
            return [row[:length] for row, length in zip(values, batch.lengths, strict=True)]
        if "place" in batch.labels:  # sequences were put in order of length
            values = values[batch.labels["place"].numpy()]
        sizes = batch.labels.get("texts", batch.labels.get("choices"))
        return list(values) if sizes is None else np.split(values, np.cumsum(sizes.tolist())[:-1])


def dense_feeds(batch: Batch) -> dict[str, np.ndarray]:
    """The packed batch as rows: `input_ids`, `attention_mask`, `token_type_ids`, `[sequences, max_seqlen]`, int64."""
    mask = np.arange(batch.max_seqlen) < np.array(batch.lengths)[:, None]
    feeds = {"attention_mask": mask.astype(np.int64)}
    for name in ("input_ids", "token_type_ids"):
        feeds[name] = np.zeros(mask.shape, np.int64)
        feeds[name][mask] = getattr(batch, name).numpy()
    return feeds


def open_session(file: Path | bytes, *, threads: int | None = None, keeps_memory: bool = True) -> Any:
    """An onnxruntime session on the CPU. Raises `InputError` for a file that it cannot run, and without the extra.

    `keeps_memory`: what a run took stays with the session, which makes the next one faster.
    """
    runtime = import_extra("onnxruntime", extra="onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = keeps_memory
    if threads is not None:
        options.intra_op_num_threads = threads
    if isinstance(file, Path) and not file.is_file():
        raise InputError("no such file", file=file)
    try:
        graph = str(file) if isinstance(file, Path) else file
        return runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no class in common
        reason = " ".join(str(error).split())[:200]
        place = file if isinstance(file, Path) else None
        raise InputError(f"onnxruntime cannot run it ({reason}); export it again", file=place) from None


def run_session(session: Any, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Name -> value of every output."""
    names = [entry.name for entry in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))
