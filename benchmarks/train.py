"""Training steps against transformers: real tokens per second, both in this process, in the order A B A B.

The peer is transformers' BertForPreTraining with the same shape, vocabulary, batch and AdamW, padded to the longest
of the batch: once as it is (logits of every position), once scoring the masked positions only. The better of for-loop
and fused AdamW, and of SDPA and eager attention, counts as the peer's best.

    python benchmarks/train.py [--quick] [--threads 2]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import product

import numpy as np
import torch
import transformers
from torch import nn

from bertsmith.batch import Batch
from bertsmith.config.encoder import EncoderConfig
from bertsmith.models.bert import Bert
from bertsmith.runtime import measure_peak
from bertsmith.tasks.base import mean_losses
from bertsmith.tasks.pretrain import PretrainTask
from bertsmith.train.optim import make_optimizers
from report import finish, row

VOCABULARY, LENGTH, SEQUENCES = 30522, 128, 32


def main() -> None:
    """Measure, print a table and one JSON line."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--quick", action="store_true", help="the smallest shape, few repetitions")
    arguments.add_argument("--threads", type=int, default=2)
    chosen = arguments.parse_args()
    torch.set_num_threads(chosen.threads)
    shapes = [(4, 256)] if chosen.quick else [(4, 256), (4, 512), (12, 768)]
    rounds = 2 if chosen.quick else 5
    peak = measure_peak(torch.device("cpu"))
    rows = []
    for layers, hidden in shapes:
        for mixed in (False, True):
            rows += measure(layers, hidden, mixed=mixed, rounds=rounds, peak=peak)
    finish("train", rows, more_versions={"transformers": transformers.__version__})


def measure(layers: int, hidden: int, *, mixed: bool, rounds: int, peak: float) -> list[dict[str, object]]:
    """Rows for one shape: the stock peer, and the peer that scores only the masked positions."""
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "intermediate_size": 4 * hidden,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    rng = np.random.default_rng(0)
    lengths = np.sort(rng.integers(1, LENGTH + 1, SEQUENCES)) if mixed else np.full(SEQUENCES, LENGTH)
    ids = [rng.integers(1000, VOCABULARY, length) for length in lengths]
    selected = np.sort(rng.choice(lengths.sum(), round(0.15 * lengths.sum()), replace=False))
    follows = torch.from_numpy(rng.integers(0, 2, SEQUENCES))
    batch = Batch.from_sequences(
        ids,
        labels={
            "mlm_positions": torch.from_numpy(selected),
            "mlm_labels": torch.from_numpy(np.concatenate(ids)[selected]),
            "next_sentence": follows,
        },
    )
    task = PretrainTask("nsp")
    ours = our_step(shape, batch, task)
    peers = {
        (masked_only, attention, fused): their_step(shape, batch, masked_only, attention, fused)
        for masked_only, attention, fused in product((False, True), ("sdpa", "eager"), (False, True))
    }
    times: dict[object, list[float]] = {"ours": [], **{key: [] for key in peers}}
    for _ in range(rounds):
        for key, step in peers.items():
            times["ours"].append(timed(ours))
            times[key].append(timed(step))
    medians = {key: float(np.median(values[1:])) for key, values in times.items()}
    flops = 3 * task.flops(Bert(EncoderConfig(**shape), heads=task.heads), batch)
    mine = batch.total / medians["ours"]
    rows = []
    for masked_only in (False, True):
        best = min((key for key in peers if key[0] == masked_only), key=lambda key: medians[key])
        case = f"{layers}x{hidden}, {'mixed lengths' if mixed else f'length {LENGTH}'}"
        peer = f"transformers {'masked positions only' if masked_only else 'stock'} ({best[1]}, fused={best[2]})"
        percent = 100 * flops / medians["ours"] / peak
        rows.append(
            row(case, peer, mine, batch.total / medians[best], "real tokens/s") | {"ours_percent_of_peak": percent}
        )
    return rows


def timed(step: Callable[[], None]) -> float:
    """Seconds that one step takes."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def our_step(shape: dict[str, object], batch: Batch, task: PretrainTask) -> Callable[[], None]:
    """One training step here: forward, backward, clip, update."""
    model = Bert(EncoderConfig(**shape), heads=task.heads)
    optimizers = make_optimizers(model, name="adamw", learning_rate=1e-4, weight_decay=0.01)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        mean_losses(task.loss(model, batch), task.counts(batch)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()

    return step


def their_step(
    shape: dict[str, object], batch: Batch, masked_only: bool, attention: str, fused: bool
) -> Callable[[], None]:
    """One training step of transformers on the same sequences, padded to the longest."""
    config = transformers.BertConfig(**shape, attn_implementation=attention)
    model = transformers.BertForPreTraining(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=fused)
    pad = nn.utils.rnn.pad_sequence
    ids = pad(batch.split(batch.input_ids), batch_first=True)
    mask = pad([torch.ones_like(part) for part in batch.split(batch.input_ids)], batch_first=True)
    flat = torch.full((batch.total,), -100)
    flat[batch.labels["mlm_positions"]] = batch.labels["mlm_labels"]
    labels = pad(batch.split(flat), batch_first=True, padding_value=-100)
    places = (labels.flatten() != -100).nonzero().flatten()
    types, follows = torch.zeros_like(ids), batch.labels["next_sentence"]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        if masked_only:
            output = model.bert(ids, attention_mask=mask, token_type_ids=types)
            chosen = output.last_hidden_state.flatten(0, 1)[places]
            loss = nn.functional.cross_entropy(model.cls.predictions(chosen), labels.flatten()[places])
            loss = loss + nn.functional.cross_entropy(model.cls.seq_relationship(output.pooler_output), follows)
        else:
            loss = model(
                ids, attention_mask=mask, token_type_ids=types, labels=labels, next_sentence_label=follows
            ).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
