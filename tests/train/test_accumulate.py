"""The gradient cache: the gradients of the large batch, with the same dropout in both passes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bertsmith.bundle import load_bundle
from bertsmith.config.finetune import FinetuneOptions
from bertsmith.data.loader import Loader, Position, Step
from bertsmith.data.similar import SimilarityExample
from bertsmith.tasks.base import mean_losses
from bertsmith.tasks.embed import EmbedTask
from bertsmith.train.accumulate import accumulate
from bertsmith.train.finetune import EncodedData, finetune
from bertsmith.train.replica import StepLoss
from tests.conftest import ENDINGS, OBJECTS, SUBJECTS
from tests.tasks.examples import options


def setting(
    encoder_dir: Path, *, micro_batch: int, dropout: float, kind: str = "pairs", dtype: Any = torch.float64
) -> Any:
    bundle = load_bundle(encoder_dir)
    config = bundle.model.config.model_copy(
        update={"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    )
    model = type(bundle.model)(config).to(dtype)
    model.load_state_dict({name: t for name, t in bundle.model.state_dict().items() if name.startswith("encoder.")})
    task = EmbedTask(64, kind, matryoshka=(16,))
    texts = [
        (f"{a} {b}", f"{b} {c}", *[f"{c}"] * (len(a) % 2))
        for a in SUBJECTS
        for b, c in zip(OBJECTS, ENDINGS, strict=True)
    ]
    rows = [
        SimilarityExample(Path("a"), i, kind, parts if kind == "pairs" else parts[:1]) for i, parts in enumerate(texts)
    ]
    loader = Loader(
        EncodedData(task, task.prepare(rows, bundle.tokenizer)), batch_size=32, micro_batch=micro_batch, seed=0
    )
    return model.train(), task, next(loader.steps(Position()))


def gradients(model: Any, task: EmbedTask, step: Step) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    model.zero_grad()
    (figures,) = accumulate(StepLoss(model, task), model, task, step, counts={"row": 32}, dtype=torch.float32)
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}, figures["row"]


@pytest.mark.parametrize("micro_batch", [1, 5, 16])
def test_the_cache_gives_the_gradients_of_the_large_batch(encoder_dir: Path, micro_batch: int) -> None:
    whole, figures = gradients(*setting(encoder_dir, micro_batch=32, dropout=0.0))
    parts, others = gradients(*setting(encoder_dir, micro_batch=micro_batch, dropout=0.0))
    torch.testing.assert_close(figures, others)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=0, atol=1e-9)
    assert max(float(gradient.abs().max()) for gradient in whole.values()) > 1e-3


def test_in_float32_they_agree_to_a_millionth(encoder_dir: Path) -> None:
    whole, _ = gradients(*setting(encoder_dir, micro_batch=32, dropout=0.0, dtype=torch.float32))
    parts, _ = gradients(*setting(encoder_dir, micro_batch=8, dropout=0.0, dtype=torch.float32))
    size, off = (
        torch.stack([tensor.norm() for tensor in tensors]).norm()
        for tensors in (whole.values(), [parts[name] - gradient for name, gradient in whole.items()])
    )
    assert float(off / size) < 1e-6


@pytest.mark.parametrize("kind", ["pairs", "texts"])
def test_dropout_is_the_same_in_both_passes_and_goes_on_after_them(encoder_dir: Path, kind: str) -> None:
    """Against one graph over all micro-batches, embedded in the same order from the same random state."""
    model, task, step = setting(encoder_dir, micro_batch=8, dropout=0.1, kind=kind)
    torch.manual_seed(5)
    cached, _ = gradients(model, task, step)
    after = torch.get_rng_state()
    torch.manual_seed(5)
    model.zero_grad()
    vectors = torch.cat([task.vectors(model, batch) for batch in step.batches])
    labels = {name: torch.cat([batch.labels[name] for batch in step.batches]) for name in step.batches[0].labels}
    mean_losses(task.vector_loss(vectors, labels), {"row": 32}).backward()
    assert torch.equal(after, torch.get_rng_state())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(cached[name], parameter.grad, rtol=0, atol=1e-9)


def test_without_the_cache_negatives_of_other_micro_batches_would_be_missing(encoder_dir: Path) -> None:
    model, task, step = setting(encoder_dir, micro_batch=8, dropout=0.0)
    _, cached = gradients(model, task, step)
    with torch.no_grad():
        apart = sum(float(task.loss(model, batch)["row"].total) for batch in step.batches)
    assert float(cached[0]) > apart + 1.0


def weights_of_one_and_two_processes(task: str, alone: FinetuneOptions, out: Path) -> dict[str, torch.Tensor]:
    """The weights of a run of one process, after two have trained the same in `out` and come to equal ones."""
    given = alone.model_copy(update={"out": out}).model_dump(mode="json", exclude_defaults=True)
    words = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "bertsmith", "finetune", task, *words]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    one, two = (load_file(directory / "model.safetensors") for directory in (alone.out, out))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-5)
    return one


@pytest.mark.slow
def test_two_processes_train_what_one_would_have_trained(encoder_dir: Path, tmp_path: Path) -> None:
    """Batches of 7 of 29 rows in micro-batches of 2: parts of 4 and 3 rows, and a last step of one row and fillers."""
    flags = {"batch_size": 7, "micro_batch": 2, "dropout": 0.0, "dev": None, "steps": 9, "threads": 1}
    alone = options("embed", encoder_dir, tmp_path / "one", **flags)
    alone.train.write_text("\n".join(alone.train.read_text().splitlines()[:30]) + "\n")
    finetune(alone)
    one = weights_of_one_and_two_processes("embed", alone, tmp_path / "two" / "model")
    before = load_file(encoder_dir / "model.safetensors")["bert.encoder.layer.0.output.dense.weight"]
    assert float((one["encoder.layer.0.output.dense.weight"] - before).abs().max()) > 1e-3
