"""Options of `bertsmith finetune TASK`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bertsmith.config.training import ScheduleName, TrainingOptions

LongDocs = Literal["error", "truncate"]
"""For texts that are embedded."""

LongTexts = Literal["error", "truncate", "head-tail", "window"]
"""For texts that are classified."""

FEWEST_PIECES = 261
"""Of a vocabulary of bytes: all 256 of them, and the five special tokens."""

Problem = Literal["auto", "single", "multi", "regression"]

Aggregation = Literal["none", "simple", "first", "average", "max"]

TiedEmbeddings = Literal["none", "output", "all"]

NumberOrText = Annotated[str, Field(coerce_numbers_to_str=True)]
"""Where one number may stand alone, which YAML does not give as text."""


class FinetuneOptions(TrainingOptions):
    """Options that every task of `finetune` has."""

    epochs: float | None = Field(default=None, gt=0)
    """Length of the run in passes over the data; by default 3, of small files as many as 200 steps need, at most 20."""
    batch_size: int = Field(default=16, ge=1)
    """Rows of one optimizer step, over all processes. Small files need many steps more than large ones."""
    model: str | None = None
    """Where to start: a model directory, or hf:org/name[@revision]. With `--student-layers` by default the teacher."""
    teacher: str | None = None
    """Learn from the answers of this fine-tuned model of the same task too: a smaller model becomes better than by
    labels alone (Hinton et al. 2015)."""
    unlabelled: Path | None = None
    """More rows to learn from, without labels: the teacher's answers stand for them."""
    student_layers: int | None = Field(default=None, ge=1)
    """Start with so many blocks of the start model, evenly chosen from the first to the last (Sanh et al. 2019)."""
    alpha: float = Field(default=0.5, ge=0, le=1)
    """The teacher's share of the loss: 0 learns from labels alone, 1 from the teacher alone."""
    teacher_temperature: float = Field(default=2.0, gt=0)
    """Logits of teacher and student are divided by it where probabilities are compared: a higher one shows more of what
    the teacher thinks of the wrong answers."""
    train: Path
    """Training rows."""
    dev: Path | None = None
    """Rows to choose the best checkpoint by; without it the last one is kept."""
    columns: str | None = None
    """`text=review,label=stars` maps a file's header; `text,label` names the columns of a file without one."""
    max_length: int | None = Field(default=None, ge=3)
    """Longest sequence, special tokens included; by default what model and tokenizer can read."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout on hidden states, attention probabilities and before the head."""
    freeze_layers: int | None = Field(default=None, ge=0)
    """Leave the embeddings and the first so many blocks as they are; 0 freezes the embeddings alone."""
    reinit_layers: int = Field(default=0, ge=0)
    """Draw the last so many blocks, and the pooler, anew (Zhang et al. 2021)."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Learning rate of a block, in that of the block above it; 1 gives all the same (Howard and Ruder 2018)."""
    random_init: bool = False
    """Start from random weights of the model's shape, to see what pretraining is worth."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after so many evaluations without a better one."""
    seeds: int = Field(default=1, ge=1)
    """Train so often, from `--seed` on; the best by `--dev` is kept, mean and deviation are reported."""
    search: int = Field(default=0, ge=0)
    """Try so many settings of learning rate, batch size and epochs by `--dev`, and keep the best (extra tune)."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Highest learning rate; by default what suits the size of the encoder's weights (5e-5 for BERT base)."""

    @model_validator(mode="after")
    def _start(self) -> FinetuneOptions:
        if self.teacher is None:
            if self.model is None:
                raise ValueError("--model is missing: the model to start from")
            for name in ("alpha", "teacher_temperature", "unlabelled"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"--{name.replace('_', '-')} is for learning from a teacher; give --teacher DIR")
        elif self.model is None and self.student_layers is None:
            raise ValueError(
                "--teacher needs a student: --model DIR of a smaller encoder, or --student-layers N of the teacher's"
            )
        return self

    @model_validator(mode="after")
    def _options_that_go_together(self) -> FinetuneOptions:
        for name in ("search", "patience", "seeds"):
            if (getattr(self, name) or 0) > (name == "seeds") and self.dev is None:
                raise ValueError(f"--{name} compares models on dev rows; give --dev FILE")
        if self.search and self.seeds > 1:
            raise ValueError("--search and --seeds both train several models; give one of them")
        if self.plan and (self.search or self.seeds > 1):
            raise ValueError("--plan looks at one run; leave --search and --seeds out")
        if self.resume_from and (self.search or self.seeds > 1):
            raise ValueError("--resume-from is about one run; several (--search, --seeds) go on with --resume")
        if self.random_init and self.freeze_layers is not None:
            raise ValueError("--random-init and --freeze-layers: random weights would never learn; leave one out")
        return self


class ClassifyOptions(FinetuneOptions):
    """Fine-tune a classifier: one label or several for a text or a pair of texts, or a number."""

    long_docs: LongTexts = "error"
    """What to do with a longer text: refuse it, cut its end off, keep its head and tail, or read it in overlapping
    windows; the same when the model is used."""
    stride: int = Field(default=64, ge=0)
    """Tokens that two windows of a text share; at most half of what a window holds."""
    problem: Problem = "auto"
    """single: one label a text; multi: any number of them; regression: a number. By default multi where labels are
    lists, regression where the column is `score`, else single."""
    separator: str | None = Field(default=None, min_length=1)
    """What parts the labels of a cell, for example `,`; makes the problem multi."""
    class_weights: str | None = None
    """auto: rare labels weigh more; or `LABEL=NUMBER` for some of them, parted by commas."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of each target that is spread over all labels (Szegedy et al. 2016)."""
    calibrate: bool = False
    """Scale the logits by a temperature so that probabilities are right on `--dev` (Guo et al. 2017)."""
    thresholds: NumberOrText | None = None
    """auto: for each label the probability that gives the best F1 on `--dev`; or one number, or `LABEL=NUMBER` for
    some, parted by commas. Only with problem multi; by default 0.5."""

    @model_validator(mode="after")
    def _options_that_need_dev(self) -> ClassifyOptions:
        if self.dev is None and self.calibrate:
            raise ValueError("--calibrate needs rows that training does not see; give --dev FILE")
        if self.dev is None and self.thresholds == "auto":
            raise ValueError("--thresholds auto needs rows that training does not see; give --dev FILE")
        if self.separator is not None and self.problem not in ("auto", "multi"):
            raise ValueError(f"--separator parts several labels, and --problem is {self.problem}; leave one out")
        return self


class TagOptions(FinetuneOptions):
    """Fine-tune a tagger: one label for each word (entities, parts of speech). Rows are CoNLL, CoNLL-U, or JSON lines
    or Parquet with `tokens` and `tags`."""

    columns: str | None = None
    """Of CoNLL the columns in order, `tokens,-,-,tags`; of CoNLL-U `tags=xpos`; of JSON lines and Parquet
    `tokens=words,tags=ner`."""
    stride: int = Field(default=64, ge=0)
    """Tokens that two windows of a long sentence share; at most half of what a window holds."""
    aggregation: Aggregation = "first"
    """How a word's tag comes from its pieces: from its first one (also simple), the average, or the most certain of
    them; none answers word by word, without joining words to entities."""
    constrained: bool = True
    """Only sequences that the scheme of the tags allows (no I-PER after O in BIO): the best one is found."""


class QaOptions(FinetuneOptions):
    """Fine-tune for questions whose answer stands in a text. Rows are SQuAD 1.1 or 2 (.json), or have `question`,
    `context` and `answers`."""

    columns: str | None = None
    """`question=query,context=passage,answers=spans` maps the names of rows; SQuAD's JSON has names of its own."""
    stride: int = Field(default=128, ge=0)
    """Tokens that two windows of a long text share; at most a quarter of a window."""
    max_answer_length: int = Field(default=30, ge=1)
    """Most tokens of an answer."""
    null_threshold: float | None = None
    """How much better no answer must be than the best one to be given; by default what is best on `--dev`, else 0."""


class ChoiceOptions(FinetuneOptions):
    """Fine-tune for multiple choice: which of several texts goes with the first. Rows have `text`, `choices` (a list)
    or `choice1`, `choice2`, …, and `label`: the number of the right one, from 0, or its text."""

    columns: str | None = None
    """`text=stem,choices=options,label=answer` maps a file's header; `text,choice1,choice2,label` names the columns of
    a file without one."""
    long_docs: LongDocs = "error"
    """What to do with a longer row: refuse it, or cut the end of its longer text off (counted)."""


class Seq2SeqOptions(TrainingOptions):
    """Fine-tune for writing a target from a source: translation, summaries, any rewriting. Rows have `source` and
    `target`, or stand in two text files of equal length."""

    model: str | None = None
    """An encoder that both halves start from: a model directory, or hf:org/name[@revision]. The attention to the source
    starts fresh."""
    from_scratch: bool = False
    """Start from random weights and a vocabulary trained on both sides of the rows, instead of `--model`."""
    train: Path
    """Training rows, or the file of their sources."""
    train_target: Path | None = None
    """The file of the targets, if `--train` has sources alone."""
    dev: Path | None = None
    """Rows to choose the best checkpoint by (`--metric` of what is written); without it the last one is kept."""
    dev_target: Path | None = None
    """The file of their targets."""
    columns: str | None = None
    """`source=de,target=en` maps a file's header; `source,target` names the columns of a file without one."""
    batch_tokens: int | None = Field(default=None, ge=1)
    """Make steps of pairs of like lengths instead of `--batch-size` pairs: as many as fit when each is as long as the
    longest source or target of the step."""
    schedule: ScheduleName = "linear"
    """Course of the learning rate after the warm-up; with --from-scratch inverse-sqrt (Vaswani et al. 2017), unless
    another one is given."""
    max_length: int = Field(default=128, ge=4)
    """Longest source, special tokens included."""
    max_target_length: int = Field(default=128, ge=4)
    """Longest target."""
    long_docs: LongDocs = "error"
    """What to do with a longer source or target: refuse it, or cut its end off (counted)."""
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    """Share of each target that is spread over all tokens (Szegedy et al. 2016)."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout on hidden states and attention probabilities."""
    layout: Literal["bert", "original"] | None = None
    """Architecture of a new model: bert (default), or original: Vaswani et al. 2017, with sines, ReLU and scaled
    embeddings."""
    tie_embeddings: TiedEmbeddings | None = None
    """Which of source table, target table and output matrix of a new model are one: output = the latter two (default
    with bert), all three (Vaswani et al. 2017, section 3.4), or none (default with original)."""
    share_halves: bool = False
    """Encoder and decoder are one, but for the attention to the source (BERTSHARE of Rothe et al. 2020)."""
    layers: int | None = Field(default=None, ge=1)
    """Blocks of each half of a new model; by default 3."""
    hidden: int | None = Field(default=None, ge=1)
    """Width of a new model; by default 256. Heads have 64 dimensions, the feed-forward part is 4 times as wide."""
    vocab_size: int | None = Field(default=None, ge=FEWEST_PIECES)
    """Most pieces of a new vocabulary (byte-level BPE, which loses no character); by default 8,000."""
    metric: Literal["bleu", "chrf"] = "bleu"
    """What makes a checkpoint the best: BLEU or chrF of what is written from the dev rows."""
    dev_rows: int = Field(default=500, ge=1)
    """Most dev rows that an evaluation during the run writes; the last one takes all."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after so many evaluations without a better one."""

    @model_validator(mode="before")
    @classmethod
    def _schedule_of_a_new_model(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("from_scratch") is True:
            return {"schedule": "inverse-sqrt", **values}
        return values

    @model_validator(mode="after")
    def _one_start(self) -> Seq2SeqOptions:
        if (self.model is None) == (not self.from_scratch):
            raise ValueError("give either --model M or --from-scratch")
        for name in ("layers", "hidden", "layout", "tie_embeddings", "vocab_size"):
            if self.model is not None and getattr(self, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')} is for --from-scratch; --model has a shape of its own")
        if self.batch_tokens and self.batch_size != type(self).model_fields["batch_size"].default:
            raise ValueError("--batch-size and --batch-tokens both say how large a step is; give one of them")
        if self.dev is None and (self.patience or self.dev_target):
            raise ValueError("--patience and --dev-target are about dev rows; give --dev FILE")
        if self.fsdp:
            raise ValueError("--fsdp is not there for encoder-decoders; leave it out")
        if self.share_halves and self.tie_embeddings in ("none", "output"):
            raise ValueError("--share-halves makes both tables one; give --tie-embeddings all, or leave it out")
        return self


class SimilarityOptions(FinetuneOptions):
    """Options that embedders and rerankers share."""

    batch_size: int = Field(default=32, ge=1)
    """Rows of one optimizer step, over all processes; pairs have each other's texts as negatives."""
    columns: str | None = None
    """`anchor=query,positive=passage` maps a file's header; `anchor,positive` names the columns of a file without
    one."""
    long_docs: LongDocs = "error"
    """What to do with a longer text: refuse it, or cut its end off (counted); the same when the model is evaluated."""
    score_range: str | None = None
    """`0,5`: the scores of the file go from 0 to 5 and are scaled to 0 to 1. By default an embedder takes scores
    between -1 and 1 and a reranker those between 0 and 1, as they are. A reranker's scaled scores are the gains of its
    NDCG; other metrics take 0.5 and more as relevant."""
    mine: int = Field(default=0, ge=0)
    """Add so many hard negatives to each row, once before training: the texts of the file that are most similar to the
    anchor and are not known to belong to it."""
    mine_skip: int = Field(default=0, ge=0)
    """Leave so many of the most similar ones out: they may be right answers that nobody marked."""
    mine_margin: float = Field(default=0.05, ge=0, lt=1)
    """A mined text is less similar to the anchor than the positive is, by this share of its similarity (de Souza et al.
    2024)."""


class EmbedderOptions(SimilarityOptions):
    """Fine-tune an embedder, which turns texts into vectors to compare by their cosine. The columns decide how it
    learns: `anchor`, `positive`, if wanted `negative`, `negative_2`, … or a list `negatives` (in-batch negatives);
    `text_a`, `text_b`, `score` (the cosine shall be the score); `text` alone, or .txt (SimCSE: each text twice, dropout
    makes the difference). A model with prompts has the one for queries before anchors and the one for passages before
    positives and negatives."""

    pooling: Literal["cls", "mean", "max", "weighted"] | None = None
    """How token vectors become one; by default as the start model's sentence-transformers files say, else mean."""
    normalize: bool | None = None
    """Whether vectors get length 1; by default as these files say, else not."""
    temperature: float = Field(default=0.05, gt=0)
    """Of in-batch negatives: cosines are divided by it before the softmax."""
    matryoshka: NumberOrText | None = None
    """`64,128,256`: the loss is summed over the whole vector and over its first 64, 128 and 256 numbers, so that a
    shortened vector is still good (Kusupati et al. 2022)."""


class RerankerOptions(SimilarityOptions):
    """Fine-tune a reranker, which reads a query and a text together and says how well they go together. Rows have
    `text_a` (or `query`), `text_b` (or `passage`) and `label`, 0 or 1 or between; or `anchor`, `positive`, `negative`
    … as for an embedder."""

    mine_with: str | None = None
    """The embedder that `--mine` finds negatives with: a model directory, or hf:org/name[@revision]."""

    @model_validator(mode="after")
    def _miner(self) -> RerankerOptions:
        if bool(self.mine) != (self.mine_with is not None):
            raise ValueError("--mine N and --mine-with DIR go together: the embedder in DIR finds N negatives a row")
        return self
