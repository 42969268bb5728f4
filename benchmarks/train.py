"""Training steps against transformers: real tokens per second, both in this process, in the order A B A B.

The peer is transformers' BertForPreTraining with the same shape, vocabulary, batch and AdamW, padded to the longest
of the batch: once as it is (logits of every position), once scoring the masked positions only. The best of for-loop
and fused AdamW, SDPA and eager attention, eager and compiled counts as the peer's. Both sides have the same precision:
float32, and, where the processor is faster with it, bfloat16 products.

    python benchmarks/train.py [--quick] [--threads 2] [--shapes 4x256 4x512 12x768]
        [--precisions float32 bfloat16] [--lengths equal mixed]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import nn

from bertsmith.batch import Batch
from bertsmith.config.encoder import EncoderConfig
from bertsmith.data.loader import Position, Step
from bertsmith.models.bert import Bert
from bertsmith.runtime import fastest_precision, keep_memory, measure_peak
from bertsmith.tasks.pretrain import PretrainTask
from bertsmith.train.loop import Figures, Plan, Run, optimizer_step
from bertsmith.train.optim import make_optimizers
from report import finish, row, table

VOCABULARY, LENGTH, SEQUENCES = 30522, 128, 32


def main() -> None:
    """Measure, print a table and one JSON line."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--quick", action="store_true", help="the smallest shape, few repetitions, no compiled peer")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--shapes", nargs="+", default=["4x256", "4x512", "12x768"])
    arguments.add_argument("--precisions", nargs="+", choices=["float32", "bfloat16"], help="by default what is fast")
    arguments.add_argument("--lengths", nargs="+", choices=["equal", "mixed"], default=["equal", "mixed"])
    chosen = arguments.parse_args()
    torch.set_num_threads(chosen.threads)
    keep_memory()  # as our training does; both sides are in this process
    shapes = [tuple(map(int, shape.split("x"))) for shape in (chosen.shapes[:1] if chosen.quick else chosen.shapes)]
    fast = dict.fromkeys(["float32", fastest_precision(torch.device("cpu"))])
    precisions = [getattr(torch, name) for name in chosen.precisions or fast]
    rows = []
    for layers, hidden in shapes:
        for lengths, precision in product(chosen.lengths, precisions):
            rows += measure(layers, hidden, mixed=lengths == "mixed", precision=precision, quick=chosen.quick)
            print(table(rows[-2:]), flush=True)
    finish("train", rows, more_versions={"transformers": transformers.__version__})


def measure(layers: int, hidden: int, *, mixed: bool, precision: torch.dtype, quick: bool) -> list[dict[str, object]]:
    """Rows for one shape: the stock peer, and the peer that scores only the masked positions."""
    torch._dynamo.reset()  # it gives up compiling after eight variants of a function; here are four
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
    batch = Batch.from_sequences(
        ids,
        labels={
            "mlm_positions": torch.from_numpy(selected),
            "mlm_labels": torch.from_numpy(np.concatenate(ids)[selected]),
            "next_sentence": torch.from_numpy(rng.integers(0, 2, SEQUENCES)),
        },
    )
    task = PretrainTask("nsp")
    kind = str(precision).removeprefix("torch.")
    peak = measure_peak(torch.device("cpu"), precision)
    flops = 3 * task.flops(Bert(EncoderConfig(**shape), heads=task.heads), batch)
    ours = our_step(shape, batch, task, precision)
    ours()
    rows = []
    for masked_only in (False, True):
        name, peer = best_peer(shape, batch, masked_only=masked_only, precision=precision, compiled=not quick)
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(3 if quick else 7):
            times[0].append(timed(ours))
            times[1].append(timed(peer))
        mine, theirs = (float(np.median(measured)) for measured in times)
        case = f"{layers}x{hidden}, {kind}, {'mixed lengths' if mixed else f'length {LENGTH}'}"
        which = f"transformers {'masked positions only' if masked_only else 'stock'} ({name})"
        speeds = row(case, which, batch.total / mine, batch.total / theirs, "real tokens/s")
        rows.append(speeds | {"ours_percent_of_peak": 100 * flops / mine / peak})
    return rows


def best_peer(
    shape: dict[str, object], batch: Batch, *, masked_only: bool, precision: torch.dtype, compiled: bool
) -> tuple[str, Callable[[], None]]:
    """The fastest of the peer's settings, by its second step (a compiled one's third), and what they are."""
    found: dict[str, tuple[float, Callable[[], None]]] = {}
    for attention, fused, compile_it in product(("sdpa", "eager"), (False, True), (False, True)):
        if compile_it and not (compiled and fused):
            continue
        torch.manual_seed(0)
        step = their_step(shape, batch, masked_only, attention, fused, precision, compile_it)
        step()
        if compile_it:
            step()
        name = f"{attention}, {'fused' if fused else 'for-loop'} AdamW, {'compiled' if compile_it else 'eager'}"
        found[name] = (min(timed(step), timed(step)), step)
    best = min(found, key=lambda name: found[name][0])
    return best, found[best][1]


def timed(step: Callable[[], None]) -> float:
    """Seconds that one step takes."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def our_step(shape: dict[str, object], batch: Batch, task: PretrainTask, precision: torch.dtype) -> Callable[[], None]:
    """One training step here: what the training loop calls, its figures included."""
    model = Bert(EncoderConfig(**shape), heads=task.heads).train()
    kind = "float32" if precision == torch.float32 else "bfloat16"
    plan = Plan(1, 0, 1, 1, 1e-4, "constant", 1.0, torch.get_num_threads(), 1.0, kind)
    optimizers = make_optimizers(model, name="adamw", learning_rate=1e-4, weight_decay=0.01)
    run = Run(model, task, optimizers, loader=None, plan=plan, directory=Path())
    step = Step((batch,), after=Position(), examples=SEQUENCES, ends_epoch=False)
    return partial(optimizer_step, run, step, Figures())


def their_step(
    shape: dict[str, object],
    batch: Batch,
    masked_only: bool,
    attention: str,
    fused: bool,
    precision: torch.dtype,
    compile_it: bool,
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

    def loss_of() -> torch.Tensor:
        if not masked_only:
            return model(
                ids, attention_mask=mask, token_type_ids=types, labels=labels, next_sentence_label=follows
            ).loss
        output = model.bert(ids, attention_mask=mask, token_type_ids=types)
        chosen = output.last_hidden_state.flatten(0, 1)[places]
        loss = nn.functional.cross_entropy(model.cls.predictions(chosen), labels.flatten()[places])
        return loss + nn.functional.cross_entropy(model.cls.seq_relationship(output.pooler_output), follows)

    forward = torch.compile(loss_of) if compile_it else loss_of

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            loss = forward()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
