"""Where a fine-tuning starts: the model of step 0, which of its parts are fresh, and a learning rate that suits it.

Not here: a pretraining's start (`train.start`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from bertsmith.bundle import Bundle, load_bundle, resolve, start_from
from bertsmith.config.finetune import FinetuneOptions
from bertsmith.errors import InputError
from bertsmith.models.bert import Bert
from bertsmith.models.surgery import freeze, reinitialize, take_layers
from bertsmith.nn.init import initialize
from bertsmith.tasks.base import Task
from bertsmith.tasks.classify import ClassifyTask
from bertsmith.tasks.rerank import RerankTask

BASE_RATE, BASE_DEVIATION, BASE_WIDTH = 5e-5, 0.042, 768
"""The usual learning rate of BERT base (Devlin et al. 2018, A.3), and the root mean square of its matrices."""


def starting_bundle(options: FinetuneOptions) -> Bundle:
    """The model to start from: `--model`, by default the teacher, or `--student-layers` of its blocks."""
    bundle = load_bundle(resolve(options.model or options.teacher or ""))
    if options.student_layers is None:
        return bundle
    try:
        return replace(bundle, model=take_layers(bundle.model, options.student_layers))
    except ValueError as error:
        raise InputError(str(error), file=bundle.path, field="--student-layers") from None


def starting_model(options: FinetuneOptions, bundle: Bundle, task: Task, rows: Sequence[Any]) -> tuple[Bert, list[str]]:
    """The model of step 0, and the parts of it that start fresh. A head that answered with other labels is fresh."""
    dropout = {"hidden_dropout_prob": options.dropout, "attention_probs_dropout_prob": options.dropout}
    config = bundle.model.config.model_copy(update=dropout)
    model, fresh = start_from(bundle, heads=task.heads, num_labels=task.num_labels, config=config)
    labels = getattr(task, "labels", None)
    for name in ("classifier", "token_classifier"):
        head = getattr(model, name)
        before = tuple(bundle.task.get("labels", ()))
        is_kept = before == labels or (isinstance(task, RerankTask) and len(before) == 1)  # any number is a relevance
        if head is not None and name not in fresh and not is_kept:
            initialize(head, std=config.initializer_range, is_cut=False)
            fresh.append(name)
    if options.random_init:
        torch.manual_seed(options.seed)
        model, fresh = type(model)(config, heads=task.heads, num_labels=task.num_labels), [*task.heads, "everything"]
    reinit, layers = options.reinit_layers, config.num_hidden_layers
    try:
        reinitialize(model, reinit)
    except ValueError as error:
        raise InputError(str(error), field="--reinit-layers") from None
    if reinit:
        fresh += [
            f"last {reinit} of {layers} blocks",
            *(["pooler"] if "pooler" in task.heads and "pooler" not in fresh else []),
        ]
    if isinstance(task, ClassifyTask):
        task.start(model, rows, fresh)
    if options.freeze_layers is not None:
        try:
            freeze(model, options.freeze_layers)
        except ValueError as error:
            raise InputError(str(error), field="--freeze-layers") from None
        if reinit and options.freeze_layers + reinit > layers:
            raise InputError(
                f"{options.freeze_layers} frozen and {reinit} new blocks are more than the model's {layers}: new ones "
                "would never learn; lower it, or --reinit-layers",
                field="--freeze-layers",
            )
    return model, fresh


def suitable_rate(model: Bert) -> float:
    """5e-5 for an encoder like BERT base; in proportion to the root mean square of the blocks' matrices, and inversely
    to their width: an update must move weights by the same share, and narrow models bear more (Yang et al. 2022).

    Two encoders of width 256, one trained by Muon, did best on SST-2 at 1e-3 and at 1e-4, of four rates
    (docs/performance.md, "Learning, side by side"); this gives 3e-4 and 8e-5, the right order and too careful.
    """
    matrices = [p for name, p in model.encoder.named_parameters() if ".blocks" in f".{name}" and p.dim() == 2]
    mean = sum(float(p.detach().double().square().sum()) for p in matrices) / sum(p.numel() for p in matrices)
    return BASE_RATE * math.sqrt(mean) / BASE_DEVIATION * BASE_WIDTH / model.config.hidden_size
