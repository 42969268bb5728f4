"""`--plan`: what a run would take, without a trace."""

from __future__ import annotations

from pathlib import Path

import pytest

from bertsmith.config.finetune import ClassifyOptions
from bertsmith.train.finetune import finetune
from bertsmith.train.pretrain import pretrain
from bertsmith.train.schedule import learning_rate_factor, sketch
from tests.cli.run import bertsmith as command
from tests.conftest import tiny_pretraining


def test_a_plan_tells_what_the_run_then_does_and_writes_nothing(shards_dir: Path, tmp_path: Path) -> None:
    options = tiny_pretraining(shards_dir, tmp_path / "out", plan=True, steps=12)
    planned = pretrain(options)
    assert not list(tmp_path.iterdir())
    report = pretrain(options.model_copy(update={"plan": False}))
    assert (planned["steps"], planned["parameters"]) == (report["steps"], report["parameters"])
    assert planned["epochs"] == pytest.approx(report["epochs"], rel=0.05)
    assert planned["tokens"] == pytest.approx(report["tokens"], rel=0.2)
    assert planned["seconds"] == pytest.approx(planned["steps"] * planned["milliseconds_per_step"] / 1000)
    assert 0 < planned["percent_of_peak"] < 100
    # What a plan measured leaves no trace in what the run computes.
    again = pretrain(tiny_pretraining(shards_dir, tmp_path / "again", steps=12))
    assert again["heldout_mlm_loss"] == report["heldout_mlm_loss"]


def test_fine_tuning_has_a_plan_too(encoder_dir: Path, rows: Path, tmp_path: Path, capsys) -> None:
    words = ("--model", encoder_dir, "--train", rows / "train.tsv", "--out", tmp_path / "out", "--plan")
    outcome = command(capsys, "finetune", "classify", *words, "--epochs", 2, "--threads", 2)
    assert outcome.code == 0
    assert "schedule" in outcome.out
    assert not (tmp_path / "out").exists()
    options = ClassifyOptions(
        model=str(encoder_dir), train=rows / "train.tsv", out=tmp_path / "out", plan=True, epochs=2, threads=2
    )
    assert finetune(options)["sequences"] == 2 * 5 * 16


@pytest.mark.parametrize(("count", "epochs"), [(80, 20), (400, 8), (1600, 3)])
def test_small_files_are_gone_through_more_often(count: int, epochs: int, encoder_dir: Path, tmp_path: Path) -> None:
    lines = [f"a film\t{('good', 'bad')[i % 2]}\n" for i in range(count)]
    (tmp_path / "rows.tsv").write_text("text\tlabel\n" + "".join(lines))
    options = ClassifyOptions(
        model=str(encoder_dir), train=tmp_path / "rows.tsv", out=tmp_path / "out", plan=True, threads=1
    )
    assert finetune(options)["epochs"] == epochs


@pytest.mark.parametrize("schedule", ["linear", "cosine", "wsd", "inverse-sqrt", "constant"])
def test_the_sketch_shows_the_course_of_the_learning_rate(schedule: str) -> None:
    line = sketch(steps=1000, warmup_steps=100, schedule=schedule, width=21)
    assert len(line) == 21
    assert line[0] == "▁"
    assert line[2] == "█"
    middle = learning_rate_factor(500, steps=1000, warmup_steps=100, schedule=schedule)
    assert abs("▁▂▃▄▅▆▇█".index(line[10]) / 7 - middle) < 0.08
    assert (line[-1] == "▁") == (schedule in ("linear", "cosine", "wsd"))
    assert sketch(steps=3, warmup_steps=1, schedule=schedule, width=40)[0] == "█"
