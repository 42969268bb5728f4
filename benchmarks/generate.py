"""Tokens per second of greedy writing, beside transformers' `generate` on the same weights.

An encoder and a decoder of the same random BERT shape (the end token never comes, so that both write as much), sources
of mixed length; sides take turns, medians count. The peer may have one thread where it is faster so, as ours has.

    python benchmarks/generate.py [--quick] [--shapes 4x256 …] [--threads 2] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
import transformers

from bertsmith.batch import Batch
from bertsmith.config.decoder import DecoderConfig
from bertsmith.config.encoder import EncoderConfig
from bertsmith.engines.choose import make_writer_ready
from bertsmith.interop.decoders import seq2seq_rules
from bertsmith.interop.keymap import to_ours
from bertsmith.models.generate import Search, generate
from bertsmith.models.seq2seq import Seq2Seq
from bertsmith.presets import size_fields
from report import finish, row

START, END = 2, 3
VOCABULARY = 8000
LONGEST = 40


def main() -> None:
    """Time both sides, print a table and one JSON line."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--quick", action="store_true", help="one shape, few tokens, one round")
    arguments.add_argument("--shapes", nargs="+", default=["4x256", "6x384"])
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--tokens", type=int, default=48)
    chosen = arguments.parse_args()
    if chosen.quick:
        chosen.shapes, chosen.rounds, chosen.tokens = ["2x128"], 1, 8
    torch.set_num_threads(chosen.threads)
    transformers.logging.set_verbosity_error()
    rows = []
    for shape in chosen.shapes:
        layers, hidden = (int(part) for part in shape.split("x"))
        theirs, ours = pair(layers, hidden)
        for count in (1, 32):
            rows.append(compare(theirs, ours, shape, count, chosen))
    finish("generate", rows, more_versions={"transformers": transformers.__version__})


def pair(layers: int, hidden: int) -> tuple[Any, Seq2Seq]:
    """transformers' model and ours, with equal weights; the end token gets a bias that keeps it away."""
    fields = size_fields(layers, hidden) | {"vocab_size": VOCABULARY, "max_position_embeddings": 256}
    torch.manual_seed(0)
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.BertConfig(**fields),
        transformers.BertConfig(**fields, is_decoder=True, add_cross_attention=True),
        decoder_start_token_id=START,
        eos_token_id=END,
        pad_token_id=0,
    )
    theirs = transformers.EncoderDecoderModel(config).eval()
    with torch.no_grad():
        theirs.decoder.cls.predictions.bias[END] = -1e4
    ours = Seq2Seq(EncoderConfig(**fields), DecoderConfig(**fields)).eval()
    state = {name: tensor for name, tensor in theirs.state_dict().items() if ".predictions.decoder." not in name}
    rules = seq2seq_rules(ours.encoder.config, ours.writer.config)
    ours.load_state_dict(to_ours(state, rules, config=ours.writer.config)[0])
    make_writer_ready(ours)
    return theirs, ours


def compare(theirs: Any, ours: Seq2Seq, shape: str, count: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """One row: tokens written per second."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(LONGEST // 4, LONGEST + 1, (count,), generator=generator)
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    ids = torch.randint(4, VOCABULARY, mask.shape, generator=generator) * mask
    search = Search(end=END, max_new_tokens=chosen.tokens)

    def mine() -> list[list[int]]:
        with torch.inference_mode():
            memories = ours.read(Batch.from_dense(ids, mask))
            return generate(ours.writer, [[START]] * count, memories, search)

    def peers() -> list[list[int]]:
        with torch.inference_mode():
            found = theirs.generate(ids, attention_mask=mask, max_new_tokens=chosen.tokens, do_sample=False)
        return [line[1:] for line in found.tolist()]

    def alone() -> list[list[int]]:
        torch.set_num_threads(1)
        try:
            return peers()
        finally:
            torch.set_num_threads(chosen.threads)

    if mine() != peers():  # the first call of each is its warm-up
        raise SystemExit(f"{shape}, batch {count}: the two sides write different tokens")
    seconds: dict[Any, list[float]] = {mine: [], peers: [], alone: []}
    for _ in range(chosen.rounds):
        for side, times in seconds.items():
            started = time.perf_counter()
            side()
            times.append(time.perf_counter() - started)
    ours_speed, *theirs_speeds = (count * chosen.tokens / statistics.median(times) for times in seconds.values())
    used = chosen.threads if theirs_speeds[0] > theirs_speeds[1] else 1
    peer = f"transformers generate (sdpa, cache, {used} threads)"
    return row(f"{shape}, greedy, batch {count}", peer, ours_speed, max(theirs_speeds), "tokens/s")


if __name__ == "__main__":
    main()
