"""No crash loses a run: kills at every system call of a checkpoint, kills at random micro-batches, a full disk."""

from __future__ import annotations

import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch

from bertsmith.data.loader import Loader, Position
from bertsmith.data.pretraining import make_dataset
from bertsmith.data.shards import open_shards
from bertsmith.errors import RunError
from bertsmith.files import MANIFEST, sha256
from bertsmith.tokenizer.directory import load_tokenizer
from bertsmith.train.checkpoint import load_checkpoint, newest_checkpoint
from bertsmith.train.distributed import Ranks
from bertsmith.train.pretrain import pretrain
from bertsmith.train.sharded import save_shards
from tests.conftest import pretrain_words, tiny_pretraining
from tests.train.checkpoint_worker import STEPS, state

STRACE = shutil.which("strace")
needs_strace = pytest.mark.skipif(STRACE is None, reason="strace is not installed: it is what kills at a system call")

CALLS = "fsync,rename,renameat2"

RENAMES = 2
"""Of each checkpoint: its manifest's, and then its directory's."""


def worker(directory: Path, *options: str) -> int:
    """Let strace watch the worker from when torch is loaded, which takes it long; returns the worker's exit code."""
    command = [sys.executable, "-m", "tests.train.checkpoint_worker", str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        attach = [str(STRACE), "-f", "-p", str(process.pid), *options]
        with subprocess.Popen(attach, stderr=subprocess.PIPE, text=True) as strace:
            assert strace.stderr is not None
            assert "attached" in strace.stderr.readline()
            process.communicate("go\n")
            strace.communicate()
    return process.returncode


def calls_made(log: Path) -> list[str]:
    """The names of the traced calls of a whole run, in order."""
    return re.findall(rf"^(?:\d+ +)?({CALLS.replace(',', '|')})\(", log.read_text(), flags=re.MULTILINE)


@needs_strace
@pytest.mark.slow
def test_killed_at_every_fsync_and_rename_the_newest_checkpoint_loads(tmp_path: Path) -> None:
    log = tmp_path / "calls"
    whole = worker(tmp_path / "whole", "-o", str(log), "-e", f"trace={CALLS}")
    assert whole == 0
    made = calls_made(log)
    assert made.count("rename") == RENAMES * len(STEPS)
    assert made.count("fsync") >= 5 * len(STEPS)
    for position, name in enumerate(made):
        number = made[: position + 1].count(name)
        directory = tmp_path / f"{name}-{number}"
        code = worker(directory, "-o", "/dev/null", "-e", f"inject={name}:signal=KILL:when={number}")
        assert code == -signal.SIGKILL, f"{name} {number}"
        complete = made[:position].count("rename") // RENAMES
        newest = newest_checkpoint(directory)
        if newest is None:
            assert complete == 0
            assert not list(directory.glob("step-*")), f"{name} {number}: a step directory that is no checkpoint"
            continue
        model, optimizers = state(0)
        progress = load_checkpoint(newest, model, optimizers)
        assert progress.step in (complete, complete + 1), f"{name} {number}: more than one interval is lost"
        expected, _ = state(progress.step)
        for key, value in expected.state_dict().items():
            assert torch.equal(model.state_dict()[key], value), f"{name} {number}: {key}"


KILLER = """
import os, signal, sys
from bertsmith.cli.main import run
from bertsmith.train.replica import StepLoss

calls, fatal, forward = 0, int(sys.argv.pop(1)), StepLoss.forward

def counted(*args, **kwargs):
    global calls
    calls += 1
    if calls == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    return forward(*args, **kwargs)

StepLoss.forward = counted
run()
"""
"""The command line, killed when it begins micro-batch N."""

STEPS_OF_A_RUN, BATCH, MICRO_BATCH = 30, 24, 9
LONG_RUN = {"steps": STEPS_OF_A_RUN, "checkpoint_every": 3, "dropout": 0.1, "batch_size": BATCH}
LONG_RUN |= {"micro_batch": MICRO_BATCH, "eval_every": 100}


@pytest.fixture(scope="module")
def uninterrupted(shards_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "encoder"
    pretrain(tiny_pretraining(shards_dir, out, **LONG_RUN))
    return out


def micro_batches(shards_dir: Path) -> list[tuple[int, bool]]:
    """Of every micro-batch of the run: its number within its step, and whether its step is an epoch's last."""
    store, _ = open_shards(shards_dir, "train")
    tokenizer = load_tokenizer(shards_dir / "tokenizer")
    loader = Loader(
        make_dataset(store, tokenizer, objective="nsp", max_length=32, seed=0),
        batch_size=BATCH,
        micro_batch=MICRO_BATCH,
        seed=0,
    )
    steps = islice(loader.steps(Position()), STEPS_OF_A_RUN)
    return [(number, step.ends_epoch) for step in steps for number in range(len(step.batches))]


def chosen_kills(shards_dir: Path) -> list[int]:
    """Twenty micro-batches, counted from 1: the edges of an epoch, some in mid-accumulation, the others at random."""
    rng, all_of_them = random.Random(0), micro_batches(shards_dir)
    last = next(i for i, (_, ends) in enumerate(all_of_them) if ends)
    first_of_next = next(i for i in range(last, len(all_of_them)) if not all_of_them[i][1])
    inside = [i for i, (number, _) in enumerate(all_of_them) if number]
    chosen = [0, last, first_of_next - 1, first_of_next, len(all_of_them) - 1, *rng.sample(inside, 5)]
    rest = [i for i in range(len(all_of_them)) if i not in chosen]
    return [i + 1 for i in sorted({*chosen, *rng.sample(rest, 20 - len(set(chosen)))})]


@pytest.mark.slow
def test_killed_at_twenty_micro_batches_the_weights_come_out_bitwise_equal(
    uninterrupted: Path, shards_dir: Path, tmp_path: Path
) -> None:
    """Dropout is on, and a step is three micro-batches: order, masks, moments and random state all come back."""
    kills = chosen_kills(shards_dir)
    assert len(kills) == 20
    for fatal in kills:
        out = tmp_path / f"killed-{fatal}"
        words = pretrain_words(tiny_pretraining(shards_dir, out, **LONG_RUN))
        killed = subprocess.run([sys.executable, "-c", KILLER, str(fatal), *words], capture_output=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
        assert not (out / MANIFEST).exists()
        pretrain(tiny_pretraining(shards_dir, out, **LONG_RUN, resume=True))
        for name in ("model.safetensors", "train/checkpoints/step-30/optimizer.safetensors"):
            assert sha256(out / name) == sha256(uninterrupted / name), f"micro-batch {fatal}: {name}"
        shutil.rmtree(out)


CAN_MOUNT = shutil.which("unshare") is not None and (
    subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
    ).returncode
    == 0
)

ON_A_SMALL_DISK = """
mount -t tmpfs -o size={size} tmpfs {disk} || exit 99
{python} -m bertsmith {words}
echo "exit code $?"
{python} -c "
from pathlib import Path
from bertsmith.train.checkpoint import newest_checkpoint
folder = Path('{disk}/encoder/train/checkpoints')
newest = newest_checkpoint(folder)
print('newest', newest and newest.name, 'left', sorted(path.name for path in folder.glob('.*')))
"
"""


@pytest.mark.skipif(not CAN_MOUNT, reason="a small disk needs `unshare -rm`, which this machine does not allow")
@pytest.mark.parametrize(("size", "newest"), [("150k", "None"), ("1800k", r"step-\d+")])
def test_a_full_disk_ends_in_one_line_and_keeps_what_is_complete(
    size: str, newest: str, shards_dir: Path, tmp_path: Path
) -> None:
    """There is room for the plan alone, or for a few checkpoints."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = tiny_pretraining(shards_dir, disk / "encoder", steps=40, checkpoint_every=2, keep_checkpoints=30)
    words = shlex.join(pretrain_words(options))
    script = ON_A_SMALL_DISK.format(size=size, disk=disk, python=sys.executable, words=words)
    result = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)
    lines = [line for line in result.stderr.splitlines() if "error" in line]
    assert len(lines) == 1, result.stderr
    assert "No space left on device" in lines[0]
    assert "defect" not in lines[0]
    assert "Traceback" not in result.stderr
    assert "exit code 1" in result.stdout, result.stdout
    assert re.search(rf"newest {newest} left \[\]", result.stdout), result.stdout


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_shard_that_cannot_be_written_ends_in_one_line(tmp_path: Path) -> None:
    tensors = ({"a": torch.ones(3)}, {})
    save_shards(tmp_path, tensors, ranks=Ranks())
    (shard,) = (tmp_path / "sharded").iterdir()
    shard.unlink()
    shard.mkdir()
    with pytest.raises(RunError, match=r"sharded: .*Is a directory"):
        save_shards(tmp_path, tensors, ranks=Ranks())
