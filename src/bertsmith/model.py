"""A loaded model for Python callers, and how verbs open one. Not here: the verbs (`predict`, `evaluate`, …)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.bundle import Bundle, load_bundle, resolve
from bertsmith.config.finetune import LongDocs
from bertsmith.config.inference import EngineOptions, ModelOptions
from bertsmith.data.columns import kind_of
from bertsmith.engines import choose as engines
from bertsmith.errors import InputError
from bertsmith.interop.weights import weights_file
from bertsmith.models.encoder import Encoder
from bertsmith.nn.attention import ReferenceAttention
from bertsmith.runtime import choose_device, set_threads
from bertsmith.tasks.asked import asked_row
from bertsmith.tasks.base import Encoded, Task
from bertsmith.tasks.embedding import embed_texts
from bertsmith.tasks.inference import results
from bertsmith.tasks.known import TASKS, check_segments, task_of


class Model:
    """A model directory, loaded for use (`bertsmith.load`). Texts never have an effect on their neighbours."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    @property
    def encoder(self) -> Encoder:
        """The encoder, a plain `torch.nn.Module`."""
        return self.bundle.model.encoder

    def predict(
        self,
        texts: Iterable[str],
        *,
        pairs: Iterable[str] | None = None,
        questions: Iterable[str] | None = None,
        choices: Iterable[Iterable[str]] | None = None,
        batch_tokens: int | None = None,
    ) -> list[Any]:
        """One answer for each text, in the shape of transformers' pipelines (see `decode` of the task's module).

        `[{"label": "positive", "score": 0.98}]` of a classifier, whose texts may have `pairs`. A tagger gives a list of
        entities a text; a model for questions an answer to each of `questions`, found in its text; multiple choice
        the best of each text's `choices`; an embedder the cosine of a text and its pair, or the vector of a text
        alone; a reranker how relevant the pair is. Raises `InputError` without a task, and for what it cannot take.
        """
        listed, given = _listed(texts), {"pairs": pairs, "questions": questions}
        beside: dict[str, list[Any]] = {
            name: _listed(parts, name) for name, parts in given.items() if parts is not None
        }
        if choices is not None:
            beside["choices"] = [tuple(_listed(parts, f"choices[{i}]")) for i, parts in enumerate(choices)]
        for name, parts in beside.items():
            if len(parts) != len(listed):
                raise InputError(f"{len(parts)} {name} for {len(listed)} texts; give one for each", field=name)
        rows = [
            self.row(
                text,
                pair=beside["pairs"][i] if "pairs" in beside else None,
                question=beside["questions"][i] if "questions" in beside else None,
                choices=beside["choices"][i] if "choices" in beside else None,
                file=Path("texts"),
                line=i + 1,
            )
            for i, text in enumerate(listed)
        ]
        return self.predict_rows(rows, batch_tokens=batch_tokens)

    def row(
        self,
        text: str,
        *,
        pair: str | None = None,
        question: str | None = None,
        choices: tuple[str, ...] | None = None,
        file: Path,
        line: int = 1,
    ) -> Any:
        """A row of the model's task. Raises `InputError` for what the task has no use for, or lacks."""
        return asked_row(self.task(), text, pair=pair, question=question, choices=choices, file=file, line=line)

    def predict_rows(self, rows: Sequence[Any], *, batch_tokens: int | None = None) -> list[Any]:
        """The same for rows of a file, as the task reads them."""
        task, inputs = self.task(), self.inputs(rows)
        found = results(self.bundle.model, task, rows, inputs, batch_tokens=batch_tokens)
        return [task.decode(row, result) for row, result in zip(rows, found, strict=True)]

    def inputs(self, rows: Sequence[Any]) -> list[Encoded]:
        """What the model reads of each row. Raises `InputError`s for rows that it cannot take."""
        inputs = self.task().prepare(rows, self.bundle.tokenizer, labelled=False)
        check_segments(rows, inputs, self.bundle.model.config)
        return inputs

    def task(self) -> Task:
        """The task that the model was fine-tuned for."""
        stored = self.bundle.task
        if stored["name"] not in TASKS:
            made_for = stored["name"] or ", ".join(self.bundle.model.heads) or "no task"
            raise InputError(
                f"this model is for {made_for.replace('_', ' ')}; bertsmith finetune makes one that answers "
                f"({', '.join(TASKS)})",
                file=self.bundle.path,
            )
        return task_of(self.bundle)

    def embed(
        self,
        texts: Iterable[str],
        *,
        prompt: str | None = None,
        batch_tokens: int | None = None,
        pooling: str | Sequence[str] | None = None,
        normalize: bool | None = None,
        long_docs: LongDocs = "error",
    ) -> np.ndarray:
        """One vector for each text: `[texts, size]`, float32. Special tokens written out in a text are plain text.

        Pooling, normalisation, projection, prompts and length are those that the directory's sentence-transformers
        files say, if it has them; `pooling` (one kind of `POOLINGS`, or several, laid end to end) and `normalize`
        override the first two. Without such files it is the mean over all tokens, as sentence-transformers does.

        `prompt` is the name of a prompt of the model; by default its own default one; `""` for none. A text longer
        than a `max_seq_length` of the files is cut there, with a warning in the log, as it was in training. Without
        these files a text longer than the model reads is an `InputError`, unless `long_docs` is "truncate".
        """
        return embed_texts(
            self.bundle,
            _listed(texts),
            prompt=prompt,
            batch_tokens=batch_tokens,
            pooling=pooling,
            normalize=normalize,
            long_docs=long_docs,
        ).vectors

    @torch.inference_mode()
    def logits(self, texts: Sequence[str], head_mask: Any = None) -> list[np.ndarray]:
        """Per text: `[classes]` of a classifier, `[tokens, classes]` of a head on tokens, special tokens included.

        Those heads are token classification, question answering (start and end) and masked LM (the vocabulary);
        of several, the first one in this order counts. ELECTRA's discriminator gives `[tokens]`: above 0, more likely
        replaced than not. `head_mask`: see `attentions`.
        """
        model = self.bundle.model
        mask = _head_mask(head_mask)
        results: list[np.ndarray] = []
        for batch in self._batches(texts):
            states = model.encoder(batch, head_mask=mask)
            if model.classifier is not None:
                logits = model.classification_logits(model.pool(states, batch))[0]
            elif model.multiple_choice is not None:
                logits = model.choice_logits(model.pool(states, batch))
            elif model.token_classifier is not None:
                logits = model.token_logits(states)
            elif model.question_answering is not None:
                logits = model.answer_logits(states)
            elif model.masked_lm is not None:
                logits = model.masked_lm_logits(states)[:, : model.config.vocab_size]
            elif model.next_sentence is not None:
                logits = model.next_sentence_logits(model.pool(states, batch))[0]
            elif model.discriminator is not None:
                logits = model.replaced_logits(states)
            else:
                raise InputError("this model has no head", file=self.bundle.path)
            results.append(logits.cpu().numpy())
        return results

    @torch.inference_mode()
    def hidden_states(self, texts: Sequence[str], head_mask: Any = None) -> list[np.ndarray]:
        """Per text: `[layers + 1, tokens, hidden_size]`, from the embeddings to the last block.

        `head_mask`: see `attentions`.
        """
        mask = _head_mask(head_mask)
        results: list[np.ndarray] = []
        for batch in self._batches(texts):
            states: list[Tensor] = []
            self.encoder(batch, hidden_states=states, head_mask=mask)
            results += [part.transpose(0, 1).cpu().numpy() for part in batch.split(torch.stack(states, 1))]
        return results

    @torch.inference_mode()
    def attentions(self, texts: Sequence[str], head_mask: Any = None) -> list[np.ndarray]:
        """Per text: `[layers, heads, tokens, tokens]`; a row (query) sums to 1 over the keys.

        `head_mask`: `[layers, heads]`, multiplies the probabilities of each head in this call. The rows of a head
        that was pruned are zero.
        """
        config = self.encoder.config
        mask = _head_mask(head_mask)
        results: list[np.ndarray] = []
        for batch in self._batches(texts):
            reference = ReferenceAttention()
            self.encoder(batch, attention=reference, head_mask=mask)
            length = batch.lengths[0]
            maps = torch.zeros(config.num_hidden_layers, config.num_attention_heads, length, length)
            for layer, probabilities in enumerate(reference.probabilities):
                maps[layer, config.kept_heads(layer)] = probabilities[0].cpu()
            results.append((maps if mask is None else maps * mask[:, :, None, None]).numpy())
        return results

    @torch.inference_mode()
    def fill(self, text: str, *, top_k: int = 5, targets: Sequence[str] | None = None) -> list[list[dict[str, Any]]]:
        """For each `[MASK]` of `text` the `top_k` likeliest tokens: `[[{"token", "score", "text"}]]`.

        `score` is the probability among all tokens, also with `targets`, which names the only tokens to answer
        with; `text` is the input with this token put in. Raises `InputError` if there is no `[MASK]`, or if a
        target is not one token of the vocabulary.
        """
        model, tokenizer = self.bundle.model, self.bundle.tokenizer
        if model.masked_lm is None:
            raise InputError("this model has no masked-LM head; use the pretrained encoder", file=self.bundle.path)
        ids = np.array(tokenizer.encode(text, allow_special=True).ids)
        self._check_length(ids)
        positions = np.flatnonzero(ids == tokenizer.mask_id)
        mask = tokenizer.special_tokens["mask_token"]
        if not len(positions):
            raise InputError(
                f"there is no {mask} in the text; write {mask} where a token shall be guessed", field="TEXT"
            )
        if top_k < 1:
            raise InputError(f"top_k is {top_k}; at least 1 is needed")
        allowed = (
            None
            if targets is None
            else torch.tensor([self._target_id(target) for target in _listed(targets, "targets")])
        )
        batch = Batch.from_sequences([ids]).to(model.device)
        selected = model.encoder(batch, rows=torch.from_numpy(positions).to(model.device))
        logits = model.masked_lm_logits(selected)
        scores = logits.softmax(-1)[:, : model.config.vocab_size].cpu()
        candidates = torch.tensor(tokenizer.ids) if allowed is None else allowed
        best = scores[:, candidates].topk(min(top_k, len(candidates)))
        answers: list[list[dict[str, Any]]] = []
        for place, (values, chosen) in enumerate(
            zip(best.values.tolist(), candidates[best.indices].tolist(), strict=True)
        ):
            answers.append(
                [
                    {
                        "token": tokenizer.token(number),
                        "score": score,
                        "text": tokenizer.put_in(text, place, number),
                    }
                    for number, score in zip(chosen, values, strict=True)
                ]
            )
        return answers

    def _target_id(self, target: str) -> int:
        """The id of a target: a piece as the vocabulary has it (`##ing` too), or a text that becomes one piece."""
        tokenizer = self.bundle.tokenizer
        number = tokenizer.token_id(target)
        if number is None:
            ids = tokenizer.encode_ids([tokenizer.before_word + target])[0]
            if len(ids) != 1 or ids[0] == tokenizer.unk_id:
                pieces = " ".join(tokenizer.token(i) for i in ids) or "nothing"
                raise InputError(
                    f"target {target!r} is not one token of the vocabulary but {pieces}; choose another",
                    field="--targets",
                )
            number = ids[0]
        return number

    def _batches(self, texts: Sequence[str]) -> Iterator[Batch]:
        for encoding in self.bundle.tokenizer.encode_batch(_listed(texts)):
            ids = np.array(encoding.ids)
            self._check_length(ids)
            yield Batch.from_sequences([ids]).to(self.bundle.model.device)

    def _check_length(self, ids: np.ndarray) -> None:
        limit = self.encoder.config.max_position_embeddings
        if len(ids) > limit:
            raise InputError(f"the text has {len(ids)} tokens, the model reads {limit}; shorten it")


def load(model: str | Path, *, device: str = "auto", engine: str | None = None) -> Model:
    """Load a model directory, or `hf:org/name[@revision]`.

    `engine`, "torch", "bf16", "int8", "onnx" or "auto", makes it ready to answer fast; it can then neither learn
    nor be saved.
    """
    bundle = load_bundle(resolve(str(model)))
    bundle.model.to(choose_device(device))
    loaded = Model(bundle)
    if engine is not None:
        use_engine(loaded, engine)
    return loaded


def use_engine(model: Model, engine: str) -> str:
    """See `engines.choose.use`; "onnx" computes the encoder by onnxruntime, on the CPU."""
    if engine == "onnx":
        from bertsmith.export.encoder import OnnxEncoder

        model.bundle.model.encoder = OnnxEncoder(model.bundle.model)  # type: ignore[assignment]  # it answers alike
        return engine
    return engines.use(model.encoder, engine, weights=weights_file(model.bundle.path))


def open_model(options: ModelOptions) -> Model:
    """Load the model of a verb, with its threads and device."""
    set_threads(options.threads)
    return load(options.model, device=options.device)


def open_engine(options: EngineOptions) -> Model:
    """The same, by the engine that the verb was told."""
    model = open_model(options)
    use_engine(model, options.engine)
    return model


def _listed(texts: Iterable[str], name: str = "texts") -> list[str]:
    """The texts as a list. A single string is a sequence of characters, which nobody means. Raises `InputError` for it,
    and for what is no text."""
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        given = "one text: [text]" if isinstance(texts, str) else kind_of(texts)
        raise InputError(f"a list of texts is needed, not {given}", field=name)
    found = list(texts)
    for i, text in enumerate(found):
        if not isinstance(text, str):
            raise InputError(f"is {kind_of(text)}; a text is needed", field=f"{name}[{i}]")
    return found


def _head_mask(values: Any) -> Tensor | None:
    return None if values is None else torch.as_tensor(values, dtype=torch.float32)
