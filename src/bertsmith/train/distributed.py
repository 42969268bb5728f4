"""The processes of one training run: who am I, how many are we, and what do we tell each other.

`torchrun` starts a process per device and says so in the environment (RANK, WORLD_SIZE, LOCAL_RANK). Without it there
is one rank, no process group, and every method here returns at once. Not here: how gradients are added up (`replica`).

    gradients   the default group: NCCL on CUDA, gloo on the CPU
    host        gloo: counts, decisions, waiting; patient, for rank 0 evaluates and writes while the others wait
    heartbeat   gloo, from a thread of its own: a rank that is gone ends all others within seconds, whatever they do
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from bertsmith.errors import BertsmithError, InputError, Interrupted, RunError
from bertsmith.runtime import choose_device

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

log = logging.getLogger("bertsmith")

STEP_TIMEOUT = timedelta(minutes=10)
"""How long a rank waits for the others' gradients, which they compute at the same pace."""

PATIENCE = timedelta(hours=24)
"""How long a rank waits for rank 0's evaluation or checkpoint; that rank 0 lives is the heartbeat's business."""

BEAT_SECONDS = 0.5
LOST_SECONDS = 8.0
"""A rank that has not beaten for so long counts as lost; one whose process has ended is noticed at once."""

GRACE_SECONDS = 4.0
"""How long a rank may take to end by itself after it heard of a failure."""

LOST = "another rank was lost; --resume goes on from the last checkpoint"

ALIVE, LEAVING, FAILED = 0, 1, 2


@dataclass
class Ranks:
    """This process among those of the run. As it is by default: alone."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """Number of the process on its machine, and of its CUDA device."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    host: dist.ProcessGroup | None = None
    """The gloo group; None alone."""

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which alone logs, evaluates and writes."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.host is not None:
            dist.barrier(group=self.host)

    def broadcast(self, value: Any) -> Any:
        """Rank 0's `value`, on every rank: anything that JSON holds."""
        if self.host is None:
            return value
        content = json.dumps(value).encode() if self.is_first else b""
        size = torch.tensor([len(content)])
        dist.broadcast(size, src=0, group=self.host)
        data = torch.empty(int(size), dtype=torch.uint8)
        if self.is_first:
            data.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        dist.broadcast(data, src=0, group=self.host)
        return json.loads(bytes(data.tolist()))

    def totals(self, values: Sequence[int]) -> list[int]:
        """The sum over all ranks of each of `values`: `[1, 2]` on one and `[3, 4]` on the other -> `[4, 6]`."""
        return self._added(values, torch.int64)

    def sums(self, values: Sequence[float]) -> list[float]:
        """As `totals`, of numbers with a fraction."""
        return self._added(values, torch.float64)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """`tensor` (of the CPU, of the same shape everywhere) of every rank, on every rank."""
        if self.host is None:
            return [tensor]
        gathered = [torch.empty_like(tensor) for _ in range(self.world_size)]
        dist.all_gather(gathered, tensor, group=self.host)
        return gathered

    def gather_rows(self, tensor: Tensor) -> list[Tensor]:
        """`tensor` of every rank, on every rank; their first dimensions may differ, and so may their devices."""
        if self.host is None:
            return [tensor]
        sizes = [int(size) for size in self.gather(torch.tensor(len(tensor)))]
        padded = tensor.new_zeros(max(sizes), *tensor.shape[1:], device="cpu")
        padded[: len(tensor)] = tensor.cpu()
        parts = self.gather(padded)
        return [part[:size].to(tensor.device) for part, size in zip(parts, sizes, strict=True)]

    def _added(self, values: Sequence[float], dtype: torch.dtype) -> list[Any]:
        if self.host is None:
            return list(values)
        tensor = torch.tensor(values, dtype=dtype)
        dist.all_reduce(tensor, group=self.host)
        return tensor.tolist()


class Heartbeat(threading.Thread):
    """Meets the other ranks every half second. If one fails to come, or says that it failed, this process ends too.

    A thread of its own, because the main one may sit in a collective, or in a kernel that waits for one, that the lost
    rank will never join; NCCL would notice after its timeout, which must be longer than the slowest step.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self.group, self.state = group, ALIVE
        self.lost = threading.Event()
        self._wake = threading.Event()

    def run(self) -> None:
        """Until all leave in agreement, or one fails."""
        while True:
            worst = torch.tensor([self.state])
            try:
                dist.all_reduce(worst, op=dist.ReduceOp.MAX, group=self.group)
            except RuntimeError:
                worst.fill_(FAILED)
            if int(worst) == LEAVING:
                return
            if int(worst) == FAILED:
                break
            self._wake.wait(BEAT_SECONDS)
        self.lost.set()
        self._wake.wait(GRACE_SECONDS)  # a main thread that hears of it by itself ends in good order
        if self.state == ALIVE:
            print(f"bertsmith: error: {LOST}", file=sys.stderr, flush=True)
            os._exit(1)

    def leave(self, state: int) -> None:
        """Tell the others how this rank ends, and wait a moment until they have heard."""
        self.state = state
        self._wake.set()
        self.join(timeout=GRACE_SECONDS)


@contextmanager
def join_ranks(device: str) -> Iterator[Ranks]:
    """This process's place in the run, for the length of the run. `device` is the option: auto, cpu or cuda.

    All ranks leave together: a clean end waits for rank 0's files. An error on one rank ends the others too.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Ranks(device=choose_device(device))
        return
    if not dist.is_available():
        raise InputError("this torch was built without torch.distributed; install another, or start one process")
    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    place = choose_device(device)
    if place.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise InputError(
                f"process {local_rank} of this machine has no CUDA device of its own, there are "
                f"{torch.cuda.device_count()}; lower --nproc-per-node, or give --device cpu",
                field="--device",
            )
        place = torch.device("cuda", local_rank)
        torch.cuda.set_device(place)
    if rank:
        log.setLevel(logging.WARNING)
    dist.init_process_group(
        "nccl" if place.type == "cuda" else "gloo",
        store=meeting_place(),
        rank=rank,
        world_size=world_size,
        timeout=STEP_TIMEOUT,
    )
    host = dist.new_group(backend="gloo", timeout=PATIENCE)
    heartbeat = Heartbeat(dist.new_group(backend="gloo", timeout=timedelta(seconds=LOST_SECONDS)))
    ranks = Ranks(rank, world_size, local_rank, place, host)
    ranks.barrier()  # the heartbeat's time-out starts when all have come
    heartbeat.start()
    try:
        yield ranks
        ranks.barrier()
    except Interrupted:  # every rank stops after the same step
        _leave(heartbeat)
        raise
    except BaseException as error:
        # A collective that fails says so in a RuntimeError of many wordings; the heartbeat knows whether it was that.
        heartbeat.lost.wait(0 if isinstance(error, BertsmithError) else GRACE_SECONDS / 2)
        was_lost = heartbeat.lost.is_set()
        heartbeat.leave(FAILED)
        if place.type == "cpu" and not heartbeat.is_alive():  # NCCL would wait for what will never come
            dist.destroy_process_group()
        if was_lost and isinstance(error, RuntimeError):
            raise RunError(LOST) from error
        raise
    _leave(heartbeat)


def meeting_place() -> Store:
    """The launcher's store, under a name that this start of the run alone uses.

    torchrun keeps one store over its restarts, where addresses of processes that are gone still stand; a rank that
    reads one waits for it for ever (pytorch/pytorch#135712, torch 2.13; TORCHELASTIC_RESTART_COUNT differs from machine
    to machine). So each rank says hello with a word that it has just drawn, rank 0 answers that word with the name, and
    goes on answering until every rank has used the name: an old hello gets an answer that nobody reads.
    """
    from torch._C._distributed_c10d import PrefixStore  # a torch without torch.distributed has neither
    from torch.distributed.rendezvous import rendezvous

    store, rank, world_size = next(rendezvous("env://", timeout=STEP_TIMEOUT))
    word = uuid.uuid4().hex
    if rank:
        store.set(f"bertsmith/hello/{rank}", word)
        store.wait([f"bertsmith/answer/{word}"], STEP_TIMEOUT)
        name = store.get(f"bertsmith/answer/{word}").decode()
        store.set(f"bertsmith/ready/{name}/{rank}", "")
        return PrefixStore(name, store)
    missing = set(range(1, world_size))
    deadline = time.monotonic() + STEP_TIMEOUT.total_seconds()
    while missing:
        for other in sorted(missing):
            if store.check([f"bertsmith/hello/{other}"]):
                store.set(f"bertsmith/answer/{store.get(f'bertsmith/hello/{other}').decode()}", word)
            if store.check([f"bertsmith/ready/{word}/{other}"]):
                missing.remove(other)
        if time.monotonic() > deadline:
            raise RunError(
                f"{len(missing)} of {world_size} processes did not start; first missing: rank {min(missing)}"
            )
        time.sleep(0.02)
    return PrefixStore(word, store)


def _leave(heartbeat: Heartbeat) -> None:
    """End in agreement. Groups are taken down here, because their threads must not outlive the interpreter."""
    heartbeat.leave(LEAVING)
    dist.destroy_process_group()
