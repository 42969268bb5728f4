"""`bertsmith pretrain`: from token shards to an encoder, or to a decoder.

Not here: what the objectives differ in (`train.objectives`).
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

from bertsmith.card import Card
from bertsmith.config.pretrain import PretrainOptions
from bertsmith.data.loader import Loader
from bertsmith.data.pretraining import heldout_dataset
from bertsmith.data.shards import check_tokenizer, open_shards
from bertsmith.errors import InputError
from bertsmith.files import to_json, write_file
from bertsmith.runtime import set_threads
from bertsmith.tasks.pretrain import COLLAPSE_SHARE
from bertsmith.tokenizer.directory import load_tokenizer
from bertsmith.train.directory import open_training_directory
from bertsmith.train.distributed import Ranks, join_ranks
from bertsmith.train.loop import train
from bertsmith.train.objectives import Causal, Masked, Objective
from bertsmith.train.replica import whole_model
from bertsmith.train.setup import preview, provenance, set_up, speed_report

log = logging.getLogger("bertsmith")

EVALUATED_DURING = 512
"""Sequences of the evaluations during a run; the last one takes all."""


def pretrain(options: PretrainOptions) -> dict[str, Any]:
    """Train a BERT, or a decoder, on shards; returns the report that also stands in `train/report.json`.

    Raises `InputError` before anything is written, `RunError` for a loss that is not finite, `Interrupted` on a signal.
    """
    with join_ranks(options.device) as ranks:
        return pretrain_as(ranks, options)


def pretrain_as(ranks: Ranks, options: PretrainOptions) -> dict[str, Any]:
    """What one process of the run does; rank 0 alone writes, and all return its report."""
    set_threads(options.threads)
    directory = open_training_directory(options)
    if directory.finished:
        return directory.ended(ranks)
    store, manifest = open_shards(options.data, "train")
    heldout_store, _ = open_shards(options.data, "heldout")
    tokenizer = load_tokenizer(options.tokenizer or options.data / "tokenizer")
    check_tokenizer(tokenizer, manifest, data=options.data, field="--tokenizer")
    objective: Objective = Causal(options, tokenizer) if options.objective == "causal" else Masked(options, tokenizer)
    data = objective.data(store)
    model = objective.model().to(ranks.device)
    if options.max_length > (positions := model.config.max_position_embeddings):
        raise InputError(
            f"{options.max_length} is more than the model's {positions} positions; lower it, or raise --positions",
            field="--max-length",
        )
    loader = Loader(
        data,
        batch_size=options.batch_size,
        micro_batch=options.micro_batch,
        seed=options.seed,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
    loader.steps_per_epoch()  # fails here, before anything is written, if there are no pairs
    run = set_up(
        options,
        model,
        objective.task,
        loader,
        directory,
        default_epochs=3,
        eval_each_epoch=False,
        learning_rate=options.learning_rate,
        ranks=ranks,
    )
    if options.plan:
        return preview(run, options)
    heldout = heldout_dataset(heldout_store, tokenizer, objective=options.objective, max_length=options.max_length)
    if heldout is not None:
        counted = cache(lambda: objective.ngrams(store))  # when rank 0 first evaluates
        run.evaluate = lambda whole: objective.evaluate(whole, heldout, counted(), EVALUATED_DURING)
    train(run)
    model = whole_model(model)
    if not ranks.is_first:
        return dict(ranks.broadcast(None))
    final = objective.evaluate(model, heldout, counted()) if heldout is not None else {}
    if final.get("top_prediction_share", 0.0) > COLLAPSE_SHARE:
        log.warning(
            "%.0f %% of all held-out predictions are one and the same token: the model has not learnt to use "
            "context yet; train longer, or change --learning-rate",
            100 * final["top_prediction_share"],
        )
    report = {**final, **speed_report(run, options), **objective.of_data(data)}
    write_file(directory.train / "report.json", to_json(report))
    objective.write(
        directory.work,
        model.cpu(),
        provenance=provenance(report, model=options.model, data=str(options.data)),
        card=Card(
            title=options.out.name,
            origin=(
                "Pretrained from nothing" if options.model is None else f"Pretrained further from `{options.model}`"
            )
            + f" by `bertsmith pretrain`: {objective.title}.",
            data=f"{manifest['splits']['train']['tokens']:,} tokens of own text, from `{options.data.name}`.",
            figures=report,
        ),
    )
    directory.finish()
    return dict(ranks.broadcast(report))
