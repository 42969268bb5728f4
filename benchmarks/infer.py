"""From strings to vectors, here and by the peers at their best: texts per second, latency, and what int8 costs.

Sets: SST-2 (short), 20 Newsgroups cut at 256 tokens (mixed lengths), the same cut at 128 where all are as long. Peers,
each with texts sorted by length and its best batch size of 1 to 64: sentence-transformers, transformers, ONNX Runtime
(float32, and its dynamic int8 by channels), OpenVINO (float32). Sides take turns; medians count. `--quality` measures
int8 on STS-B and on an SST-2 classifier that is fine-tuned first. `--compiled` adds transformers under torch.compile
with frozen weights, which needs a C++ compiler and a minute for each model and set.

    python benchmarks/infer.py [--quick] [--models minilm base] [--threads 2] [--rounds 5] [--quality] [--compiled]
                               [--texts 400] [--work DIR]

Data come from $BERTSMITH_DATA; `--quick` makes texts up.
"""

from __future__ import annotations

import argparse
import gzip
import logging
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import sentence_transformers
import torch
import transformers
from onnxruntime.quantization import QuantType, quantize_dynamic
from tokenizers import Tokenizer

import bertsmith
from bertsmith.bundle import write_bundle
from bertsmith.card import Card
from bertsmith.config.encoder import EncoderConfig
from bertsmith.config.export import ExportOptions
from bertsmith.engines.choose import lack_of_bfloat16
from bertsmith.export.engine import open_session
from bertsmith.export.run import export
from bertsmith.models.bert import Bert
from bertsmith.models.flops import encoder_flops
from bertsmith.models.sentence import SentenceModules
from bertsmith.runtime import measure_peak
from infer_quality import quality
from report import finish, row
from samples import mini_lm

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
Side = Callable[[Sequence[str]], np.ndarray]


def main() -> None:
    """Time all sides, print a table and one JSON line."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--quick", action="store_true", help="made-up texts, the small model, one round")
    arguments.add_argument("--models", nargs="+", choices=("minilm", "base"), default=["minilm", "base"])
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--texts", type=int, default=400, help="texts of the short set; a quarter of the others")
    arguments.add_argument("--quality", action="store_true")
    arguments.add_argument("--compiled", action="store_true", help="transformers compiled too")
    arguments.add_argument("--work", type=Path)
    chosen = arguments.parse_args()
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(chosen.threads)
    if chosen.quick:
        chosen.models, chosen.rounds, chosen.texts = ["minilm"], 1, 16
    work = chosen.work or Path(tempfile.mkdtemp())
    data = Path(os.environ.get("BERTSMITH_DATA", "../shared/data"))
    sets = made_up(chosen.texts) if chosen.quick else from_files(data, chosen.texts)
    peak = measure_peak(torch.device("cpu"))
    rows: list[dict[str, Any]] = []
    for name in chosen.models:
        directory = mini_lm() if name == "minilm" else random_base(work / "base")
        for what, (texts, longest) in sets.items():
            rows += compare(f"{name}, {what}", directory, texts, longest, chosen, work / name, peak)
    if chosen.quality:
        rows += quality(data, work, chosen.threads)
    packages = {"transformers": transformers, "sentence-transformers": sentence_transformers, "openvino": openvino}
    finish("infer", rows, more_versions={name: package.__version__ for name, package in packages.items()})


def from_files(data: Path, count: int) -> dict[str, tuple[list[str], int]]:
    """Set -> texts, and how many tokens are read of each."""
    short = [line.split("\t")[0] for line in (data / "sst2/train.tsv").read_text(encoding="utf-8").splitlines()]
    with gzip.open(data / "20newsgroups/train.tsv.gz", "rt", encoding="utf-8") as stream:
        posts = [max(line.rstrip("\n").split("\t"), key=len) for line in stream][1:]
    draw = random.Random(0)
    news = draw.sample([post for post in posts if len(post) > 20], count // 4)
    long = draw.sample([post for post in posts if len(post.split()) > 128], count // 4)
    return {
        "SST-2": (draw.sample(short, count), 128),
        "news, at most 256": (news, 256),
        "news, all 128": (long, 128),
        "latency, 16 tokens": (["a text of a dozen words is what people ask a server for"], 128),
    }


def made_up(count: int) -> dict[str, tuple[list[str], int]]:
    """Texts of random lengths, for `--quick`."""
    draw = random.Random(0)
    words = ["the", "film", "was", "long", "and", "the", "cat", "saw", "a", "ball", "in", "rain"]
    texts = [" ".join(draw.choices(words, k=draw.randint(2, 60))) for _ in range(count)]
    return {"made up": (texts, 128), "latency, 16 tokens": (["the cat saw a red ball and was long in rain"], 128)}


def random_base(directory: Path) -> Path:
    """A 12 x 768 BERT of random weights with the tokenizer of the small model."""
    if not (directory / "bertsmith.json").is_file():
        directory.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        model = Bert(EncoderConfig(), heads=())
        tokenizer = bertsmith.load(mini_lm(), device="cpu").bundle.tokenizer
        card = Card(title="random", origin="Random weights.", data="nothing")
        write_bundle(
            directory,
            model,
            tokenizer,
            task={"name": "embed"},
            provenance={},
            card=card,
            sentence=SentenceModules(normalize=True, max_seq_length=256),
        )
    return directory


def compare(
    case: str, directory: Path, texts: list[str], longest: int, chosen: argparse.Namespace, work: Path, peak: float
) -> list[dict[str, Any]]:
    """Rows of one model and set: ours in float32, bfloat16 (where the processor has it) and int8 against each peer."""
    engines = ("torch", "int8") if lack_of_bfloat16(torch.device("cpu")) else ("torch", "bf16", "int8")
    ours = {engine: bertsmith.load(directory, device="cpu", engine=engine) for engine in engines}
    plain = bertsmith.load(directory, device="cpu")
    encodings = plain.bundle.tokenizer.encode_batch(texts)
    lengths = [min(len(encoding.ids), longest) for encoding in encodings]
    for model in (*ours.values(), plain):
        cut_at(model, longest)
    peers = peer_sides(directory, longest, chosen, work)
    # each peer's best batch size is looked for first, on a quarter of the texts
    some = texts[:: 4 if len(texts) > 64 else 1]
    sizes = [size for size in BATCH_SIZES if size <= max(1, len(some))]
    best: dict[str, Side] = {}
    for name, side in peers.items():
        fastest = min(sizes, key=lambda size: seconds_of(partial(side, size), some))
        best[f"{name}, batch {fastest}"] = partial(side, fastest)
    expected = plain.embed(texts)
    sides: dict[str, Side] = {engine: model.embed for engine, model in ours.items()} | best
    vectors = {name: side(texts) for name, side in sides.items()}
    repeat = 20 if len(texts) == 1 else 1
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(chosen.rounds):
        for name, side in sides.items():
            times[name].append(statistics.median(seconds_of(side, texts) for _ in range(repeat)))
    flops = encoder_flops(plain.bundle.model.config, lengths)
    rows = []
    for engine in ours:
        mine = statistics.median(times[engine])
        cosine = float((expected * vectors[engine]).sum(1).mean())
        for name in best:
            theirs = statistics.median(times[name])
            values = (len(texts) / mine, len(texts) / theirs)
            line = row(f"{case}: {'float32' if engine == 'torch' else engine}", name, *values, "texts/s")
            extra = {
                "ours_percent_of_peak": 100 * flops / mine / peak,
                "ours_cosine": cosine,
                "peer_cosine": float((expected * vectors[name]).sum(1).mean()),
            }
            rows.append(line | extra)
    return rows


def cut_at(model: Any, longest: int) -> None:
    """Let an embedder read at most `longest` tokens."""
    sentence = model.bundle.sentence or SentenceModules(normalize=True)
    model.bundle = replace(model.bundle, sentence=replace(sentence, max_seq_length=longest))


def seconds_of(side: Side, texts: Sequence[str]) -> float:
    """Of one call."""
    started = time.perf_counter()
    side(texts)
    return time.perf_counter() - started


def peer_sides(
    directory: Path, longest: int, chosen: argparse.Namespace, work: Path
) -> dict[str, Callable[..., np.ndarray]]:
    """Peer -> (batch size, texts) -> normalised vectors, from strings on."""
    sentences = sentence_transformers.SentenceTransformer(str(directory), device="cpu", local_files_only=True)
    sentences.max_seq_length = longest
    plain = transformers.AutoModel.from_pretrained(directory).eval()
    exported = work / "onnx"
    if not exported.is_dir():
        export(ExportOptions(model=str(directory), out=exported))
        source = exported / "onnx" / "model.onnx"
        quantize_dynamic(source, work / "int8.onnx", weight_type=QuantType.QInt8, per_channel=True)
    graph = exported / "onnx" / "model.onnx"
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": chosen.threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(graph), "CPU", settings | {"PERFORMANCE_HINT": "LATENCY"})
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)

    def theirs(size: int, texts: Sequence[str]) -> np.ndarray:
        return np.asarray(sentences.encode(list(texts), batch_size=size, normalize_embeddings=True))

    def by_transformers(model: Any, inputs: dict[str, np.ndarray]) -> np.ndarray:
        with torch.no_grad():
            tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}
            states = model(**tensors).last_hidden_state
            mask = tensors["attention_mask"][..., None]
            return ((states * mask).sum(1) / mask.sum(1)).numpy()

    def session(file: Path) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
        opened = open_session(file, threads=chosen.threads)
        names = {value.name for value in opened.get_inputs()}
        return lambda inputs: opened.run(
            ["sentence_embedding"], {name: values for name, values in inputs.items() if name in names}
        )[0]

    names = {value.any_name for value in compiled.inputs}

    def by_openvino(inputs: dict[str, np.ndarray]) -> np.ndarray:
        found = compiled({name: values for name, values in inputs.items() if name in names})
        return np.asarray(found["sentence_embedding"])

    runs = {
        "transformers": partial(by_transformers, plain),
        "ONNX Runtime float32": session(graph),
        "ONNX Runtime dynamic int8": session(work / "int8.onnx"),
        "OpenVINO float32": by_openvino,
    }
    if chosen.compiled:
        torch._dynamo.reset()  # what was compiled for the last case counts towards its limit
        torch._inductor.config.freezing = True
        runs["transformers, compiled"] = partial(by_transformers, torch.compile(plain, dynamic=True))
    sides = {name: partial(sorted_batches, tokenizer, run) for name, run in runs.items()}
    return {"sentence-transformers": theirs, **sides}


def sorted_batches(
    tokenizer: Tokenizer, run: Callable[[dict[str, np.ndarray]], np.ndarray], size: int, texts: Sequence[str]
) -> np.ndarray:
    """Texts sorted by length, padded to the longest of each batch; vectors in the order of the texts."""
    ids = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    parts = []
    for start in range(0, len(order), size):
        group = [ids[i] for i in order[start : start + size]]
        shape = (len(group), max(map(len, group)))
        tokens, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for line, values in enumerate(group):
            tokens[line, : len(values)], mask[line, : len(values)] = values, 1
        parts.append(run({"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros(shape, np.int64)}))
    found = np.concatenate(parts)
    vectors = np.empty_like(found)
    vectors[order] = found / np.linalg.norm(found, axis=1, keepdims=True)
    return vectors


if __name__ == "__main__":
    main()
