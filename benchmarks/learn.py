"""Who learns faster: the same architecture, vocabulary, text, cores and time, here and with transformers' Trainer.

Ours: `bertsmith pretrain --objective none --recipe fast`. The peer: `BertForMaskedLM` with the Trainer, texts grouped
into blocks, `DataCollatorForLanguageModeling`, AdamW, linear warm-up and decay that ends with the clock; its learning
rate is the best of three, and its precision the faster of float32 and bfloat16, both found outside of the clock (ours
is not searched). Both are then measured by the same code on held-out documents whose masks are drawn once, and saved
beside the models; and fine-tuned on SST-2, each at the best of the same learning rates.

Ours runs for 25 % and 40 % of the time that the Trainer took, and for all of it: is its final loss reached by then?
Beside it our own two architectures at equal time: `--layout modern` (ModernBERT's) and BERT's.

    python benchmarks/learn.py [--quick] [--minutes 30] [--threads 2] [--work DIR]     (goes on where it was stopped)

Text and SST-2 come from $BERTSMITH_DATA; `--quick` takes Python's own documentation and leaves SST-2 out.
"""

from __future__ import annotations

import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from bertsmith.bundle import load_bundle
from bertsmith.config.finetune import ClassifyOptions
from bertsmith.config.inference import EvaluateOptions
from bertsmith.data.ngrams import NGrams
from bertsmith.data.pretraining import PretrainingData, heldout_dataset
from bertsmith.data.shards import open_shards
from bertsmith.evaluate import evaluate
from bertsmith.tasks.pretrain import PretrainTask, evaluate_pretraining
from bertsmith.tokenizer.directory import load_tokenizer
from bertsmith.train.finetune import finetune
from bertsmith.train.pretrain import pretrain
from novels import BATCH, HIDDEN, LAYERS, LENGTH, begin, done, our_options
from report import finish, row

PEER_RATES = (1e-4, 3e-4, 1e-3)
SEARCH_SHARE = 0.1
"""Each learning rate of the peer is tried for this share of the time, outside of the clock."""
FINE_TUNING_RATES = (1e-4, 2e-4, 5e-4, 1e-3)
"""On SST-2, for either encoder; weights that Muon trained are larger, and want larger steps."""
SHARES = (0.25, 0.4, 1.0)
"""Parts of the Trainer's time that our runs plan for; a machine that others use may hold one up, so the time it took is
printed beside it."""


def main() -> None:
    """Run what is not done yet, print a table and one JSON line."""
    chosen = begin("learn", minutes=30.0)
    transformers.logging.set_verbosity_error()
    minutes, work, data, text = chosen.minutes, chosen.work, chosen.data, chosen.text
    found = done(work / "rate.json", lambda: search_rate(work, text, minutes * SEARCH_SHARE))
    spent = done(work / "peer.json", lambda: train_peer(work / "peer", text, minutes, found))["seconds"] / 60
    mine = {
        share: done(work / f"{name}.json", partial(train_ours, work / name, text, spent * share, chosen))
        for share, name in ((share, f"ours-{share}") for share in SHARES)
    }
    peer = measure(work / "peer", text)
    settings = f"learning rate {found['learning_rate']:g}, {'bfloat16' if found['bfloat16'] else 'float32'}"
    name = f"Trainer, {spent:.1f} minutes ({settings}); unigram {peer['unigram_loss']:.3f}"
    rows = []
    for share, run in mine.items():
        ours = measure(work / f"ours-{share}", text)["heldout_mlm_loss"]
        case = f"held-out MLM loss, ours after {run['seconds'] / 60:.1f} minutes ({share:.0%} were planned)"
        rows.append(row(case, name, ours, peer["heldout_mlm_loss"], "nats", lower_is_better=True))
    modern = done(
        work / "modern-1.0.json", partial(train_ours, work / "modern-1.0", text, spent, chosen, layout="modern")
    )
    losses = [measure(work / name, text)["heldout_mlm_loss"] for name in ("modern-1.0", "ours-1.0")]
    classic = mine[1.0]
    case = f"held-out MLM loss, layout modern after {modern['seconds'] / 60:.1f} minutes, {modern['steps']:,} steps"
    name = f"ours, layout bert, {classic['seconds'] / 60:.1f} minutes, {classic['steps']:,} steps"
    rows.append(row(case, name, *losses, "nats", lower_is_better=True))
    if not chosen.quick:
        ours, theirs = (fine_tuned(work, data, which, chosen) for which in ("ours-1.0", "peer"))
        case = f"SST-2 test accuracy after fine-tuning at {ours['learning_rate']:g}"
        name = f"Trainer's encoder at {theirs['learning_rate']:g}"
        rows.append(row(case, name, ours["accuracy"], theirs["accuracy"], "accuracy"))
    finish("learn", rows, more_versions={"transformers": transformers.__version__})


def heldout(text: dict[str, Path]) -> PretrainingData:
    """The held-out sequences with their masks, which are functions of a fixed seed."""
    store, _ = open_shards(text["shards"], "heldout")
    data = heldout_dataset(store, load_tokenizer(text["tokenizer"]), objective="none", max_length=LENGTH)
    assert data is not None
    return data


def measure(directory: Path, text: dict[str, Path]) -> dict[str, float]:
    """Held-out figures of a model directory, whoever trained it; the masks used are saved beside the models once."""
    data = heldout(text)
    saved = text["shards"].parent / "masks.npz"
    if not saved.is_file():
        masks = [data.sequence(0, index)[2:] for index in range(data.size(0))]
        positions, labels = (np.concatenate(part) for part in zip(*masks, strict=True))
        np.savez(saved, positions=positions, labels=labels)
    model = load_bundle(directory).model
    store, _ = open_shards(text["shards"], "train")
    ngrams = NGrams(store, vocab_size=model.config.vocab_size)
    return evaluate_pretraining(model, PretrainTask("none"), data, ngrams=ngrams)


def train_ours(out: Path, text: dict[str, Path], minutes: float, chosen: Any, **changes: Any) -> dict[str, Any]:
    """One run of the verb, with `changes` of its options. Its minutes are those of training; planning and evaluations
    come on top, and are returned. The peer's clock, too, holds training alone.
    """
    started = time.perf_counter()
    report = pretrain(our_options(text, out, minutes=minutes, threads=chosen.threads, **changes))
    seconds = {"seconds": report["training_seconds"], "with_planning_and_evaluation": time.perf_counter() - started}
    return seconds | {"steps": report["steps"], "tokens": report["tokens"]}


class Blocks(torch.utils.data.Dataset):
    """The training documents as the Trainer's examples group them: one stream in blocks, [CLS] and [SEP] around."""

    def __init__(self, text: dict[str, Path]) -> None:
        store, _ = open_shards(text["shards"], "train")
        tokenizer = load_tokenizer(text["tokenizer"])
        bounds = store.document_bounds.tolist()
        stream = np.concatenate([store.slice(a, b) for a, b in pairwise(bounds)])
        room = LENGTH - 2
        self.blocks = stream[: len(stream) // room * room].reshape(-1, room)
        self.ends = np.array([tokenizer.cls_id]), np.array([tokenizer.sep_id])

    def __len__(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        """One block."""
        return {"input_ids": np.concatenate([self.ends[0], self.blocks[index], self.ends[1]]).tolist()}


class Clock(transformers.TrainerCallback):
    """Ends a training when its time is over, and knows how long its steps took."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.times: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        self.times = [time.perf_counter()]

    def on_step_end(self, _args: Any, _state: Any, control: Any, **_: Any) -> Any:
        """Stop when time is up; what already says to stop, for the steps are done, stays so."""
        self.times.append(time.perf_counter())
        if self.times[-1] - self.times[0] >= self.seconds:
            control.should_training_stop = True
        return control

    @property
    def step_seconds(self) -> float:
        """Mean of the second half of the steps: at first memory is not laid out yet."""
        half = (len(self.times) - 1) // 2
        return (self.times[-1] - self.times[half]) / max(len(self.times) - 1 - half, 1)


def run_trainer(
    text: dict[str, Path], out: Path, *, rate: float, steps: int, seconds: float, half: bool
) -> tuple[Any, Clock]:
    """A Trainer's run of at most `steps` steps and `seconds`; the model, and its clock."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(text["tokenizer"])
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HIDDEN // 64,
        intermediate_size=4 * HIDDEN,
        max_position_embeddings=LENGTH,
    )
    model = transformers.BertForMaskedLM(config)
    arguments = transformers.TrainingArguments(
        output_dir=str(out / "trainer"),
        per_device_train_batch_size=BATCH,
        learning_rate=rate,
        lr_scheduler_type="linear",
        warmup_steps=max(1, steps // 20),
        weight_decay=0.01,
        max_steps=steps,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
        optim="adamw_torch_fused",
        bf16=half,
        seed=0,
    )
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    clock = Clock(seconds)
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=Blocks(text), data_collator=collator, callbacks=[clock]
    )
    trainer.train()
    return model, clock


def steps_in(text: dict[str, Path], out: Path, seconds: float, *, half: bool) -> int:
    """How many steps the peer makes in `seconds`: from a short run, so that its schedule ends with the clock."""
    _, clock = run_trainer(text, out, rate=1e-4, steps=10_000_000, seconds=min(30.0, seconds / 4), half=half)
    return max(2, round(seconds / clock.step_seconds))


def search_rate(work: Path, text: dict[str, Path], minutes: float) -> dict[str, Any]:
    """The peer's precision, the faster one; and learning rate, the best of three by held-out loss after a tenth of the
    time. Outside of the clock.
    """
    losses = {}
    steps_of = {half: steps_in(text, work, minutes * 60, half=half) for half in (False, True)}
    half = steps_of[True] > steps_of[False]
    steps = steps_of[half]
    for rate in PEER_RATES:
        model, _ = run_trainer(text, work, rate=rate, steps=steps, seconds=minutes * 60, half=half)
        losses[f"{rate:g}"] = save_and_measure(model, work / f"search-{rate:g}", text)
    best = min(losses, key=lambda rate: losses[rate])
    return {"learning_rate": float(best), "losses": losses, "bfloat16": half, "steps": steps_of}


def train_peer(out: Path, text: dict[str, Path], minutes: float, found: dict[str, Any]) -> dict[str, Any]:
    """The peer's run, as `search_rate` found it."""
    half = found["bfloat16"]
    steps = steps_in(text, out, minutes * 60, half=half)
    model, clock = run_trainer(text, out, rate=found["learning_rate"], steps=steps, seconds=minutes * 60, half=half)
    save_and_measure(model, out, text)
    return {"seconds": clock.times[-1] - clock.times[0], "steps": len(clock.times) - 1, "planned_steps": steps}


def save_and_measure(model: Any, out: Path, text: dict[str, Path]) -> float:
    """Write the peer's model as a directory that both libraries read, and measure it."""
    model.eval().save_pretrained(out)
    load_tokenizer(text["tokenizer"]).save(out)
    return measure(out, text)["heldout_mlm_loss"]


def fine_tuned(work: Path, data: Path, which: str, chosen: Any) -> dict[str, Any]:
    """Test figures of an encoder fine-tuned on SST-2; its learning rate is the best of four by dev accuracy."""
    folder = data / "sst2"
    tried = {}
    for rate in FINE_TUNING_RATES:
        out = work / f"{which}-sst2-{rate:g}"
        options = ClassifyOptions(
            model=str(work / which),
            train=folder / "train.tsv",
            dev=folder / "dev.tsv",
            columns="text,label",
            out=out,
            epochs=3,
            learning_rate=rate,
            threads=chosen.threads,
            long_docs="truncate",
            overwrite=True,
        )
        tried[rate] = done(work / f"{out.name}.json", partial(finetune, options))["dev_accuracy"]
    best = max(tried, key=lambda rate: tried[rate])
    model = str(work / f"{which}-sst2-{best:g}")
    test = EvaluateOptions(model=model, data=folder / "test.tsv", columns="text,label", threads=chosen.threads)
    return evaluate(test) | {"learning_rate": best, "dev_accuracy": tried}


if __name__ == "__main__":
    main()
