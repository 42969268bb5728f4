"""Options of the verbs that use a trained model: `evaluate`, `predict`, `fill`; and of `doctor` and `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from bertsmith.config.finetune import LongDocs
from bertsmith.config.options import Options


class ModelOptions(Options):
    """What all of them have."""

    model: str = Field(json_schema_extra={"positional": True})
    """A model directory, or hf:org/name[@revision]."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of the CPU; by default what torch chooses."""


class EngineOptions(ModelOptions):
    """What those have that run many texts through an encoder."""

    engine: Literal["torch", "bf16", "int8", "onnx", "auto"] = "torch"
    """torch: float32; bf16: products of bfloat16 where the hardware has them; int8: 8-bit products on a CPU, twice as
    fast, answers a little off; onnx: float32 by onnxruntime; auto: the fastest of torch, bf16 and int8 in a short
    measurement of this model, remembered for the next time."""


class EvaluateOptions(EngineOptions):
    """Measure a model on labelled rows, an encoder on the held-out documents of shards, or a decoder alone on these or
    on a text."""

    data: Path
    """Labelled rows in a format of the model's task; a shards directory for an encoder; for a decoder alone that, or
    text."""
    columns: str | None = None
    """`text=review,label=stars` maps a file's header; `text,label` names the columns of a file without one."""
    batch_tokens: int | None = Field(default=None, ge=1)
    """Most tokens computed at a time by one thread; by default what suits the engine."""
    batch_size: int | None = Field(default=None, ge=1)
    """Most inputs computed at a time; by default `--batch-tokens` alone decides."""
    target: Path | None = None
    """The file of the targets, if `--data` has the sources of an encoder-decoder alone."""
    beams: int = Field(default=1, ge=1)
    """Sequences that an encoder-decoder follows side by side."""
    baseline: Path | None = None
    """Training rows: also measure what needs no network (the commonest label, TF-IDF with a logistic regression, each
    word's commonest tag, cosines of TF-IDF)."""
    out: Path | None = None
    """Directory to write `report.json`, `report.md` with pictures, and `predictions.jsonl` to."""
    overwrite: bool = False
    """Replace an existing `--out`."""
    max_length: int = Field(default=128, ge=4)
    """Longest sequence made from shards or, for a decoder alone, from text."""
    fail_under: str | None = None
    """Exit with 3 if a metric is worse than this: `accuracy=0.9`, or several, parted by commas."""


class PredictOptions(EngineOptions):
    """Predict: one JSON line for each text."""

    text: str | None = None
    """One text."""
    pair: str | None = None
    """The second text of a pair, beside `--text`; of a reranker what may answer the query `--text`."""
    question: str | None = None
    """What to ask about `--text` (a model for questions)."""
    choices: str | None = None
    """What to choose from for `--text`, parted by `|` (a model for multiple choice)."""
    data: Path | None = None
    """A file of rows in a format of the model's task; for classifiers, taggers, embedders and what writes also .txt,
    one text a line."""
    columns: str | None = None
    """`text=review` maps a file's header; `text,-` names the columns of a file without one."""
    batch_tokens: int | None = Field(default=None, ge=1)
    """Most tokens computed at a time by one thread; by default what suits the engine."""

    @model_validator(mode="after")
    def _one_source(self) -> PredictOptions:
        if (self.text is None) == (self.data is None):
            raise ValueError("give either --text TEXT or --data FILE")
        for name in ("pair", "question", "choices"):
            if getattr(self, name) is not None and self.text is None:
                raise ValueError(f"--{name} goes with --text TEXT")
        if self.columns is not None and self.data is None:
            raise ValueError("--columns goes with --data FILE")
        return self


class FillOptions(ModelOptions):
    """Guess what stands at each [MASK]."""

    text: str = Field(json_schema_extra={"positional": True})
    """A text with one or more [MASK]."""
    top_k: int = Field(default=5, ge=1)
    """Guesses for each [MASK]."""
    targets: str | None = None
    """Answer with these tokens only, parted by commas; their probabilities are still among all tokens."""


class GenerateOptions(ModelOptions):
    """Write: one JSON line for each text. An encoder-decoder writes what it makes of it, a decoder alone goes on."""

    text: str | None = None
    """One text."""
    data: Path | None = None
    """A file of texts (.txt: one a line; .tsv .csv .jsonl .parquet: column text or source)."""
    columns: str | None = None
    """`text=review` maps a file's header; `text,-` names the columns of a file without one."""
    long_docs: LongDocs = "error"
    """What to do with a longer text than the model reads: refuse it, or cut its end off (of a text to go on with: its
    beginning)."""
    max_new_tokens: int | None = Field(default=None, ge=0)
    """Most tokens to write; by default 128, or as many as the decoder can, a decoder alone in half of its positions."""
    beams: int = Field(default=1, ge=1)
    """Sequences that are followed side by side; the likeliest is printed."""
    length_penalty: float = 1.0
    """A finished sequence's log-probability is divided by its length to this power: above 1 prefers long ones."""
    sample: bool = False
    """Draw tokens by their probability instead of taking the likeliest."""
    temperature: float = Field(default=1.0, gt=0)
    """Below 1 draws more of what is likely, above 1 less."""
    top_k: int | None = Field(default=None, ge=1)
    """Draw from so many likeliest tokens."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Draw from the fewest likeliest tokens that hold this share of the probability."""
    no_repeat_ngram: int | None = Field(default=None, ge=1)
    """Write no sequence of so many tokens twice."""
    forced_first: str | None = None
    """Token that shall come first, for example one that names a language."""
    seed: int = 0
    """Of what is drawn."""
    batch_size: int = Field(default=32, ge=1)
    """Texts written at a time."""

    @model_validator(mode="after")
    def _one_text(self) -> GenerateOptions:
        if (self.text is None) == (self.data is None):
            raise ValueError("give either --text TEXT or --data FILE")
        if self.columns is not None and self.data is None:
            raise ValueError("--columns goes with --data FILE")
        if self.sample and self.beams > 1:
            raise ValueError("--sample draws one sequence, --beams follows several; give one of them")
        for name in ("temperature", "top_k", "top_p"):
            if name in self.model_fields_set and not self.sample:
                raise ValueError(f"--{name.replace('_', '-')} is for --sample")
        return self


class DoctorOptions(Options):
    """Show what this machine offers, and what is missing."""
