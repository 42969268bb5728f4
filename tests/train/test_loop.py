"""One step of training: accumulation, clipping, schedules, the optimizer, and what is reported."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bertsmith.config.encoder import EncoderConfig
from bertsmith.data.loader import Loader, Position
from bertsmith.data.pretraining import make_dataset
from bertsmith.data.shards import open_shards
from bertsmith.models.bert import Bert
from bertsmith.nn.attention import ReferenceAttention
from bertsmith.tasks.base import mean_losses
from bertsmith.tasks.pretrain import PretrainTask
from bertsmith.tokenizer.directory import load_tokenizer
from bertsmith.train.loop import Figures, Plan, Run, measure_step_seconds, optimizer_step
from bertsmith.train.optim import Muon, make_optimizers, orthogonalized
from bertsmith.train.schedule import learning_rate_factor

PLAN = Plan(10, 0, 10, 10, 1e-3, "constant", 1e9, 2, 1e9)


@pytest.fixture
def dataset(shards_dir: Path, tokenizer_dir: Path):
    store, _ = open_shards(shards_dir, "train")
    return make_dataset(store, load_tokenizer(tokenizer_dir), objective="nsp", max_length=32, mask_rate=0.15, seed=0)


def make_run(dataset, *, micro_batch: int, optimizer: str = "adamw", dtype=torch.float64) -> Run:
    config = EncoderConfig(
        vocab_size=90,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    torch.manual_seed(0)
    task = PretrainTask("nsp")
    model = Bert(config, heads=task.heads).to(dtype)
    loader = Loader(dataset, batch_size=32, micro_batch=micro_batch, seed=0)
    optimizers = make_optimizers(model, name=optimizer, learning_rate=1e-3, weight_decay=0.01)
    return Run(model, task, optimizers, loader, PLAN, Path())


def test_accumulated_gradients_equal_those_of_the_large_batch(dataset) -> None:
    """1 x 32 against 4 x 8 with ragged lengths and unequal numbers of masked tokens."""
    gradients = []
    for micro_batch in (32, 8):
        run = make_run(dataset, micro_batch=micro_batch)
        step = next(run.loader.steps(Position()))
        assert len(step.batches) == 32 // micro_batch
        counts: dict[str, int] = {}
        for batch in step.batches:
            for name, count in run.task.counts(batch).items():
                counts[name] = counts.get(name, 0) + count
        optimizer_step(run, step, Figures())
        gradients.append({name: p.grad.clone() for name, p in run.model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-6, atol=1e-9)


def test_each_loss_term_is_averaged_over_its_own_items(dataset) -> None:
    run = make_run(dataset, micro_batch=32)
    batch = next(run.loader.steps(Position())).batches[0]
    terms, counts = run.task.loss(run.model, batch), run.task.counts(batch)
    assert counts == {"mlm": len(batch.labels["mlm_labels"]), "nsp": 32}
    expected = terms["mlm"].total / counts["mlm"] + terms["nsp"].total / 32
    torch.testing.assert_close(mean_losses(terms, counts), expected)


def test_next_sentence_learns_from_both_labels(dataset) -> None:
    """codertimo/BERT-pytorch#32: a shared ignore_index dropped every NotNext label."""
    run = make_run(dataset, micro_batch=32)
    batch = next(run.loader.steps(Position())).batches[0]
    flipped = replace(batch, labels=dict(batch.labels) | {"next_sentence": 1 - batch.labels["next_sentence"]})
    losses = [run.task.loss(run.model, b)["nsp"].total.item() for b in (batch, flipped)]
    assert losses[0] != losses[1]
    assert 10 < int(batch.labels["next_sentence"].sum()) < 22


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_few_steps_lower_the_loss(dataset, optimizer: str) -> None:
    run = make_run(dataset, micro_batch=32, optimizer=optimizer, dtype=torch.float32)
    losses = []
    for step in islice(run.loader.steps(Position()), 30):
        figures = Figures()
        optimizer_step(run, step, figures)
        losses.append(figures.summary(1.0)["mlm_loss"])
    assert sum(losses[-5:]) < sum(losses[:5]) - 1.0


def test_measuring_leaves_weights_optimizer_and_random_state_as_they_were(dataset) -> None:
    run = make_run(dataset, micro_batch=32, optimizer="muon", dtype=torch.float32)
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    state = torch.get_rng_state()
    assert measure_step_seconds(run, seconds=0.01) > 0
    assert all(torch.equal(before[name], tensor) for name, tensor in run.model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert run.progress.step == 0
    assert not any(optimizer.state for optimizer in run.optimizers)


def test_flops_agree_with_the_counter_of_torch(dataset) -> None:
    run = make_run(dataset, micro_batch=32, dtype=torch.float32)
    batch = next(run.loader.steps(Position())).batches[0]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        # The counter does not know the CPU's fused attention; the reference does the same products.
        selected = batch.labels["mlm_positions"]
        rows = torch.cat([batch.first_positions, selected])
        states = run.model.encoder(batch, attention=ReferenceAttention(), rows=rows)
        run.model.masked_lm_logits(states[-len(selected) :])
        run.model.next_sentence_logits(run.model.pooler(states[: len(batch.lengths)]))
    padded = run.model.config.padded_vocab_size - run.model.config.vocab_size
    extra = 2 * run.task.counts(batch)["mlm"] * run.model.config.hidden_size * padded
    assert counter.get_total_flops() == run.task.flops(run.model, batch) + extra


def test_norms_and_biases_do_not_decay(dataset) -> None:
    (adamw,) = make_run(dataset, micro_batch=32).optimizers
    for group in adamw.param_groups:
        assert all((p.dim() > 1) == (group["weight_decay"] > 0) for p in group["params"])


def test_muon_takes_the_matrices_on_hidden_states_and_nothing_else(dataset) -> None:
    run = make_run(dataset, micro_batch=32, optimizer="muon")
    names = {parameter: name for name, parameter in run.model.named_parameters()}
    muon = next(optimizer for optimizer in run.optimizers if isinstance(optimizer, Muon))
    taken = {names[p]: group["parts"] for group in muon.param_groups for p in group["params"]}
    heads = {"pooler.dense.weight", "masked_lm.dense.weight", "next_sentence.linear.weight"}
    assert {name for name in taken if ".blocks." not in name} == heads
    assert len(taken) == 2 * 4 + len(heads)
    assert all(name.endswith("weight") and "norm" not in name for name in taken)
    assert {name for name, parts in taken.items() if len(parts) == 3} == {
        f"encoder.blocks.{i}.attention.qkv.weight" for i in range(2)
    }
    owned = [p for optimizer in run.optimizers for group in optimizer.param_groups for p in group["params"]]
    assert len(owned) == len(set(owned)) == len(names)


@pytest.mark.parametrize("shape", [(8, 32), (32, 8), (16, 16)])
def test_orthogonalized_agrees_with_the_singular_value_decomposition_and_torch(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    result = orthogonalized(matrix)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6
    assert values.max() < 1.25
    rotation = left.mT @ result @ right.mT  # nearly diagonal: the singular vectors are kept
    assert (rotation - torch.diag(rotation.diagonal())).abs().max() < 0.02
    from torch.optim._muon import _zeropower_via_newtonschulz

    theirs = _zeropower_via_newtonschulz(matrix, (3.4445, -4.7750, 2.0315), 5, 1e-7).float()
    torch.testing.assert_close(result, theirs, rtol=0, atol=0.05)  # theirs multiplies in bfloat16


@pytest.mark.parametrize("schedule", ["linear", "cosine", "wsd", "inverse-sqrt", "constant"])
def test_schedules_rise_to_one_and_never_leave_zero_to_one(schedule) -> None:
    factors = [learning_rate_factor(s, steps=100, warmup_steps=10, schedule=schedule) for s in range(100)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert all(0 <= factor <= 1 for factor in factors)
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(factors[10:]))
    end = {"linear": 1 / 90, "cosine": 0.0003, "wsd": 0.05, "inverse-sqrt": 0.316, "constant": 1.0}[schedule]
    assert factors[-1] == pytest.approx(end, abs=0.001)


def test_metrics_hold_every_figure_that_a_run_must_report(encoder_dir: Path) -> None:
    lines = [json.loads(line) for line in (encoder_dir / "train/metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "eval" not in line]
    assert {"mlm_loss", "nsp_accuracy", "tokens_per_second", "percent_of_peak"} <= steps[-1].keys()
    report = json.loads((encoder_dir / "train/report.json").read_text())
    assert {"heldout_mlm_loss", "unigram_loss", "nsp_accuracy", "negatives_share", "peak_gflops"} <= report.keys()
    assert 0 < report["percent_of_peak"] < 100
    assert abs(report["negatives_share"] - 0.5) < 0.02
