"""The verb `export`: a model directory to one that runs without torch, checked before it is in place.

OUT/onnx/model.onnx        encoder, head, pooling and normalisation
OUT/onnx/encoder_model.onnx  decoder_model.onnx  decoder_with_past_model.onnx    of an encoder-decoder
OUT/config.json tokenizer.json …                                                as the model directory has them
OUT/modules.json 1_Pooling/config.json …                                        of an embedder
OUT/bertsmith.json         task, inputs and outputs, differences to torch, sizes and SHA-256; written last
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bertsmith.bundle import Bundle, load_bundle, resolve, write_description
from bertsmith.card import CARD, licence_of
from bertsmith.config.export import ExportOptions
from bertsmith.errors import InputError, import_extra
from bertsmith.export.answers import KINDS, EncoderGraph, encoder_part, kind_of, reads_segments
from bertsmith.export.card import export_card
from bertsmith.export.decoders import causal_part, seq2seq_parts
from bertsmith.export.engine import FOLDER, GENERATE, KIND, check_packages, open_session
from bertsmith.export.graph_file import OPSET, write_graph
from bertsmith.export.loss import FEW, Measure, quantised
from bertsmith.export.part import Part
from bertsmith.export.verify import (
    LENGTHS,
    ROWS,
    Compare,
    compare_causal,
    compare_encoder,
    compare_seq2seq,
    summary,
    verify,
)
from bertsmith.files import check_output, check_source, new_directory, read_json, write_file, write_manifest
from bertsmith.models.sentence import SentenceModules
from bertsmith.models.seq2seq import Seq2Seq
from bertsmith.runtime import set_threads, versions
from bertsmith.tasks.embedding import sentence_limit
from bertsmith.writer import load_writer

log = logging.getLogger("bertsmith")

QUANTISED = "model_quantized.onnx"
"""Name of the int8 graph, as transformers.js and sentence-transformers look for it."""

CACHE = ("past_key_values.", "present.")
"""How names of a decoder's cache begin."""


@dataclass(frozen=True, eq=False)
class Job:
    """A model, taken apart for export."""

    kind: str
    """A name of `KINDS`, or `GENERATE`."""
    task: dict[str, Any]
    """As the model's manifest has it."""
    parts: list[Part]
    compare: Compare
    sizes: dict[str, Any]
    """Arguments of `verify`."""
    describe: Callable[[Path], None]
    """Writes the files beside the graphs into a directory."""
    max_length: int
    """Most tokens of a text, special tokens included."""
    per_token: tuple[str, ...] = ()
    """Outputs about tokens."""
    encoder: tuple[Bundle, EncoderGraph] | None = None
    """What an encoder's graph was made of, with the task that it answers."""


def export(options: ExportOptions) -> dict[str, Any]:
    """Read, trace, write, compare; returns what was done. Nothing stays when anything is wrong.

    Raises `InputError` for a model that cannot be exported and without the extra, `RunError` for a graph that does not
    say what torch says.
    """
    check_output(options.out, overwrite=options.overwrite, kind=KIND)
    check_packages("export")
    threads = set_threads(options.threads)
    path = resolve(options.model)
    check_source(options.out, path)
    name = options.model.removeprefix("hf:") if options.model.startswith("hf:") else path.absolute().name
    job = job_of(path, options.task)
    measure = _measure(job, options)
    with new_directory(options.out, overwrite=options.overwrite) as directory:
        sizes, described = _write(directory, job, source=name, threads=threads)
        if measure is not None:
            size, described["int8"] = _write_int8(directory, job, measure, described, options, threads=threads)
            sizes[f"{FOLDER}/{QUANTISED}"] = size
        card = export_card(options.out.name, name, described, licence=licence_of(path))
        write_file(directory / CARD, card)
        provenance = {"source": options.model, "versions": versions()}
        content = {"task": job.task, "onnx": described, "provenance": provenance}
        write_manifest(directory, content, kind=KIND, exclude=(CARD,))
    first = next(iter(described["graphs"].values()))
    return {
        "out": str(options.out),
        "task": job.kind,
        "files": sizes,
        "opset": OPSET,
        "inputs": [name for name in first["inputs"] if not name.startswith(CACHE)],
        "outputs": [name for name in first["outputs"] if not name.startswith(CACHE)],
        "shapes": [f"{found['rows']}x{found['length']}" for found in described["shapes"]],
        "largest_difference": described["largest_difference"],
        "largest_relative_difference": described["largest_relative_difference"],
        "limit": described["limit"],
        **({"int8": described["int8"]} if measure is not None else {}),
    }


def _measure(job: Job, options: ExportOptions) -> Measure | None:
    """How the loss of int8 is measured, if it is asked for."""
    if not options.int8:
        return None
    if job.encoder is None:
        raise InputError("is there for encoders, and the model writes text; leave it out", field="--int8")
    if job.kind != job.encoder[0].task["name"]:
        what = f"is there for models with a task and for vectors of texts, not for {job.kind}"
        raise InputError(f"{what}; give --task embed, or leave it out", field="--int8")
    assert options.data is not None
    return Measure(job.encoder[0], options.data, columns=options.columns)


def _write_int8(
    directory: Path, job: Job, measure: Measure, described: dict[str, Any], options: ExportOptions, *, threads: int
) -> tuple[int, dict[str, Any]]:
    """Write the int8 graph beside the float32 one; its bytes, and what it loses."""
    onnx = import_extra("onnx", extra="onnx", field="--int8")
    assert job.encoder is not None
    exact = onnx.load(directory / FOLDER / "model.onnx")
    limit = options.max_loss
    graph, loss = quantised(exact, job.encoder[1], measure, described=described, max_loss=limit, threads=threads)
    if loss.texts < FEW:
        log.warning("int8 was judged by %d row%s; give --data of %d or more", loss.texts, "s"[: loss.texts != 1], FEW)
    content = graph.SerializeToString()
    write_file(directory / FOLDER / QUANTISED, content)
    return len(content), loss.described(limit)


def _write(directory: Path, job: Job, *, source: str, threads: int) -> tuple[dict[str, int], dict[str, Any]]:
    """Write and compare the graphs; bytes of each file, and what the manifest says of them."""
    folder = directory / FOLDER
    folder.mkdir()
    job.describe(directory)
    metadata = {"task": job.kind, "max_length": str(job.max_length), "source": source}
    files: list[str] = []
    for part in job.parts:
        log.info("tracing %s/%s.onnx", FOLDER, part.stem)
        files += write_graph(folder, part, metadata=metadata)
    opened = {part.stem: folder / f"{part.stem}.onnx" for part in job.parts}
    sessions = {stem: open_session(file, threads=threads, keeps_memory=False) for stem, file in opened.items()}
    log.info("comparing with torch, up to %d x %d tokens", max(ROWS), min(max(LENGTHS), job.sizes["positions"]))
    differences = verify(job.compare, sessions, **job.sizes)
    graphs = {
        f"{part.stem}.onnx": {
            "inputs": {name: list(axes) for name, axes in part.inputs.items()},
            "outputs": {name: list(axes) for name, axes in part.outputs.items()},
        }
        for part in job.parts
    }
    described = {
        "kind": job.kind,
        "opset": OPSET,
        "max_length": job.max_length,
        "positions": job.sizes["positions"],
        "graphs": graphs,
        "per_token": list(job.per_token),
        **summary(differences),
    }
    return {f"{FOLDER}/{name}": (folder / name).stat().st_size for name in files}, described


def job_of(path: Path, wanted: str | None) -> Job:
    """What is to be exported of a model directory. Raises `InputError` for one that cannot be read, or cannot answer
    what is `wanted`.
    """
    file = path / "config.json"
    values = read_json(file) if file.is_file() else {}
    writes = isinstance(values, dict) and (values.get("model_type") == "encoder-decoder" or values.get("is_decoder"))
    if writes and wanted is not None:
        raise InputError("the model writes text; leave it out", field="--task")
    return _writer_job(path) if writes else _encoder_job(path, wanted)


def _encoder_job(path: Path, wanted: str | None) -> Job:
    bundle = load_bundle(path)
    kind, model = kind_of(bundle, wanted), bundle.model
    task: dict[str, Any] = bundle.task if kind == bundle.task["name"] else {"name": kind}
    if kind == "embed":
        task = {"long_docs": "truncate"} | task
    graph = EncoderGraph(model, kind, bundle.sentence or SentenceModules())
    part = encoder_part(graph)
    sentence = bundle.sentence if kind != "embed" else graph.sentence

    def describe(directory: Path) -> None:
        write_description(directory, model, bundle.tokenizer, task=task, sentence=sentence)

    width = max(size for axes in part.outputs.values() for size in (axes[-1], 1) if isinstance(size, int))
    sizes = {
        "positions": model.config.max_position_embeddings,
        "tokens": model.config.vocab_size,
        "segments": 2 if reads_segments(model) else 1,
        "width": width,
    }
    usual = min(model.config.max_position_embeddings, bundle.tokenizer.model_max_length)
    most = sentence_limit(bundle) if kind == "embed" else int(task.get("max_length") or usual)
    per_token = tuple(sorted(KINDS[kind].per_token))
    # vectors may be asked for of what was trained for another task; nothing else may be that has a task's name
    answering = replace(bundle, task=task, sentence=graph.sentence) if kind == "embed" else bundle
    return Job(kind, task, [part], compare_encoder(graph), sizes, describe, most, per_token, (answering, graph))


def _writer_job(path: Path) -> Job:
    writer = load_writer(path)
    model = writer.model
    config = model.encoder.config if isinstance(model, Seq2Seq) else model.config
    sizes = {
        "positions": config.max_position_embeddings,
        "tokens": config.vocab_size,
        "segments": 1,
        "width": config.hidden_size if isinstance(model, Seq2Seq) else config.vocab_size,
        "left": not isinstance(model, Seq2Seq),
    }

    def describe(directory: Path) -> None:
        writer.tokenizer.save(directory)
        for name in ("config.json", "generation_config.json"):
            if (path / name).is_file():
                shutil.copyfile(path / name, directory / name)

    task = writer.task or {"name": GENERATE}
    if isinstance(model, Seq2Seq):
        return Job(GENERATE, task, seq2seq_parts(model), compare_seq2seq(model), sizes, describe, writer.limit)
    return Job(GENERATE, task, [causal_part(model)], compare_causal(model), sizes, describe, writer.limit)
