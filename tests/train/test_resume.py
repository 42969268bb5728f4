"""A run that was cut off goes on as if it had never stopped: bitwise the same weights."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from bertsmith.config.finetune import ClassifyOptions
from bertsmith.errors import InputError, Interrupted
from bertsmith.files import MANIFEST, sha256
from bertsmith.train.finetune import finetune
from bertsmith.train.loop import StopSignal
from bertsmith.train.pretrain import pretrain
from tests.conftest import pretrain_words, tiny_pretraining

RUN = {"steps": 40, "checkpoint_every": 3, "dropout": 0.1, "micro_batch": 3, "batch_size": 8, "eval_every": 10}


@pytest.fixture(scope="module")
def uninterrupted(shards_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "encoder"
    pretrain(tiny_pretraining(shards_dir, out, **RUN))
    return out


def command(shards: Path, out: Path, *more: str) -> list[str]:
    words = pretrain_words(tiny_pretraining(shards, out, **RUN))
    return [sys.executable, "-m", "bertsmith", *words, *more]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sigkill_at_a_random_step_then_resume_gives_bitwise_equal_weights(
    seed: int, uninterrupted: Path, shards_dir: Path, tmp_path: Path
) -> None:
    out, rng = tmp_path / "encoder", random.Random(seed)
    steps_seen = rng.randint(1, 11)
    process = subprocess.Popen(command(shards_dir, out), stderr=subprocess.PIPE)
    wait_for(lambda: len(list((out / "train/checkpoints").glob("step-*"))) >= min(steps_seen, 2), process)
    time.sleep(rng.random() * 0.4)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"
    assert not (out / MANIFEST).exists()
    again = subprocess.run(command(shards_dir, out, "--resume"), capture_output=True, check=False)
    assert again.returncode == 0, again.stderr.decode()
    assert b"going on from" in again.stderr
    assert sha256(out / "model.safetensors") == sha256(uninterrupted / "model.safetensors")
    assert not list((out / "train/checkpoints").glob(".*")), "stale temporaries are removed"


def test_killed_before_the_first_checkpoint_resumes_the_saved_plan_from_step_zero(
    uninterrupted: Path, shards_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "encoder"
    shutil.copytree(uninterrupted / "train", out / "train")
    shutil.rmtree(out / "train" / "checkpoints")
    plan = yaml.safe_load((out / "train/config.yaml").read_text())
    plan["options"]["out"] = str(out)
    (out / "train/config.yaml").write_text(yaml.safe_dump(plan))
    pretrain(tiny_pretraining(shards_dir, out, **RUN, resume=True))
    assert sha256(out / "model.safetensors") == sha256(uninterrupted / "model.safetensors")


def stopped_copy(uninterrupted: Path, out: Path) -> Path:
    """The finished run as it was before its end: checkpoints, but no model yet."""
    shutil.copytree(uninterrupted / "train", out / "train")
    config = out / "train/config.yaml"
    stored = yaml.safe_load(config.read_text())
    stored["options"]["out"] = str(out)
    config.write_text(yaml.safe_dump(stored))
    return out


def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(
    uninterrupted: Path, shards_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = stopped_copy(uninterrupted, tmp_path / "encoder")
    weights = out / "train/checkpoints/step-40/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    pretrain(tiny_pretraining(shards_dir, out, **RUN, resume=True))
    assert "step-40" in caplog.text
    assert "damaged" in caplog.text
    assert sha256(out / "model.safetensors") == sha256(uninterrupted / "model.safetensors")


def test_resume_from_a_damaged_checkpoint_fails(uninterrupted: Path, shards_dir: Path, tmp_path: Path) -> None:
    out = stopped_copy(uninterrupted, tmp_path / "encoder")
    damaged = out / "train/checkpoints/step-39"
    (damaged / "optimizer.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"optimizer\.safetensors: 0 bytes"):
        pretrain(tiny_pretraining(shards_dir, out, **RUN, resume_from=damaged))


def test_a_changed_option_is_refused_by_name(uninterrupted: Path, shards_dir: Path, tmp_path: Path) -> None:
    out = stopped_copy(uninterrupted, tmp_path / "encoder")
    with pytest.raises(InputError, match=r'field "learning_rate": the run to resume has 0\.001, not 0\.5'):
        pretrain(tiny_pretraining(shards_dir, out, **RUN | {"learning_rate": 0.5}, resume=True))


def test_an_unfinished_run_is_neither_overwritten_nor_resumed_unasked(
    uninterrupted: Path, shards_dir: Path, tmp_path: Path
) -> None:
    out = stopped_copy(uninterrupted, tmp_path / "encoder")
    with pytest.raises(InputError, match="unfinished run; --resume continues it"):
        pretrain(tiny_pretraining(shards_dir, out, **RUN))


def test_resuming_a_finished_run_returns_its_report(uninterrupted: Path, shards_dir: Path) -> None:
    before = sha256(uninterrupted / "model.safetensors")
    report = pretrain(tiny_pretraining(shards_dir, uninterrupted, **RUN, resume=True))
    assert report["steps"] == 40
    assert sha256(uninterrupted / "model.safetensors") == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_a_checkpoint_and_sets_the_exit_code(
    number: signal.Signals, code: int, uninterrupted: Path, shards_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "encoder"
    process = subprocess.Popen(command(shards_dir, out), stderr=subprocess.PIPE)
    wait_for((out / "train/checkpoints").exists, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors.decode()
    step = int(errors.decode().rsplit("after step ", 1)[1].split(";")[0])
    assert (out / f"train/checkpoints/step-{step}" / MANIFEST).is_file()
    again = subprocess.run(command(shards_dir, out, "--resume"), capture_output=True, check=False)
    assert again.returncode == 0, again.stderr.decode()
    assert sha256(out / "model.safetensors") == sha256(uninterrupted / "model.safetensors")


def test_the_second_signal_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == signal.SIGTERM
        assert not ended
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended == [143]


def test_a_signal_that_torchrun_passes_on_is_no_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with StopSignal(repeat_seconds=1000.0) as stop:
        stop.heard(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == signal.SIGTERM
    assert not ended


def test_a_run_that_stopped_early_and_lost_its_model_does_not_train_on(
    encoder_dir: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "classifier"
    values = {"model": str(encoder_dir), "train": rows / "train.tsv", "dev": rows / "dev.tsv", "out": out}
    values |= {"steps": 400, "eval_every": 2, "patience": 1, "learning_rate": 1e-7, "threads": 2}

    def killed(*_: object, **__: object) -> None:
        raise Interrupted("killed", signal_number=9)

    with monkeypatch.context() as patch:
        patch.setattr("bertsmith.train.finetune.finish", killed)
        with pytest.raises(Interrupted):
            finetune(ClassifyOptions(**values))
    (newest,) = (out / "train/checkpoints").iterdir()
    report = finetune(ClassifyOptions(**values, resume=True))
    assert report["steps"] == int(newest.name.removeprefix("step-")) < 400
    assert (out / MANIFEST).is_file()


def test_overwrite_keeps_the_old_model_until_the_new_one_is_complete(
    shards_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "encoder"
    pretrain(tiny_pretraining(shards_dir, out, steps=2))
    before = sha256(out / "model.safetensors")

    def stop(_run: object) -> None:
        raise Interrupted("stopped", signal_number=2)

    with monkeypatch.context() as patch:
        patch.setattr("bertsmith.train.pretrain.train", stop)
        with pytest.raises(Interrupted):
            pretrain(tiny_pretraining(shards_dir, out, steps=3, overwrite=True))
    assert sha256(out / "model.safetensors") == before
    pretrain(tiny_pretraining(shards_dir, out, steps=3, overwrite=True))
    assert sha256(out / "model.safetensors") != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder"]
