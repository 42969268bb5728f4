"""How OpenMP's threads should wait: a training step of the demo's model, quiet and beside a busy process.

Each way runs in a process of its own (the setting is read once), with two threads and with one; the median of some
seconds counts. "Ours" is what the command line sets (asleep), the "peer" is the library's default (spinning).

    python benchmarks/threads.py [--quick]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from report import finish, row

WAYS = {"asleep": ("PASSIVE", 2), "spinning": ("ACTIVE", 2), "one thread": ("PASSIVE", 1)}


def main() -> None:
    """Measure, print a table and one JSON line."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--quick", action="store_true", help="two seconds of each")
    arguments.add_argument("--step", type=float, help=argparse.SUPPRESS)
    arguments.add_argument("--threads", type=int, default=2, help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    if chosen.step:
        print(step_milliseconds(chosen.step, threads=chosen.threads))
        return
    seconds = 2.0 if chosen.quick else 8.0
    rows = []
    for case in ("quiet", "beside a busy process"):
        busy = None if case == "quiet" else subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            times = {name: in_a_process(policy, threads, seconds) for name, (policy, threads) in WAYS.items()}
        finally:
            if busy is not None:
                busy.kill()
                busy.wait()
        for peer in ("spinning", "one thread"):
            rows.append(row(case, peer, times["asleep"], times[peer], "ms a step", lower_is_better=True))
    finish("threads", rows)


def in_a_process(policy: str, threads: int, seconds: float) -> float:
    """Milliseconds a step in a fresh process with this policy."""
    words = [sys.executable, __file__, "--step", str(seconds), "--threads", str(threads)]
    environment = os.environ | {"OMP_WAIT_POLICY": policy}
    return float(subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout)


def step_milliseconds(seconds: float, *, threads: int) -> float:
    """Median time of a step of 16 sequences of 20 to 128 tokens."""
    import numpy as np
    import torch

    from bertsmith.batch import Batch
    from bertsmith.tasks.pretrain import PretrainTask
    from train import our_step

    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    sequences = [rng.integers(5, 3000, length) for length in np.sort(rng.integers(20, 129, 16))]
    selected = torch.arange(0, sum(map(len, sequences)), 7)
    labels = {
        "mlm_positions": selected,
        "mlm_labels": torch.full_like(selected, 9),
        "next_sentence": torch.arange(16) % 2,
    }
    shape = {
        "vocab_size": 3000,
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 512,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    step = our_step(shape, Batch.from_sequences(sequences, labels=labels), PretrainTask("nsp"))
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        step()
        times.append(time.perf_counter() - before)
    return 1000 * float(np.median(times[1:]))


if __name__ == "__main__":
    main()
