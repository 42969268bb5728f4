"""How a decoder writes: the likeliest token, the likeliest sequence of several (beams), or a token by chance.

    greedy     argmax of each step
    beams      the best sequences so far, side by side; the result has the best log-probability / length^penalty
    sampling   temperature, then the top k tokens, then the fewest that hold the share p

Equal to transformers' `generate` (greedy and beams token for token). Rows that are finished leave the batch. Beam
search as in Wu et al. 2016, section 7; nucleus sampling: Holtzman et al. 2020; no repeated n-grams: Paulus et al. 2018.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.models.seq2seq import CausalLM, Writing
from bertsmith.nn.cross_attention import Memory
from bertsmith.runtime import threads_for


@dataclass(frozen=True)
class Search:
    """How tokens are chosen."""

    end: int
    """Id of the token that ends a target."""
    max_new_tokens: int = 128
    """Most tokens of a target, its end included."""
    beams: int = 1
    """Sequences that are followed at a time."""
    length_penalty: float = 1.0
    """Exponent of the length that a finished sequence's log-probability is divided by."""
    samples: bool = False
    """Draw tokens instead of taking the likeliest."""
    temperature: float = 1.0
    """Logits are divided by it before they are drawn from."""
    top_k: int | None = None
    """Draw from so many likeliest tokens."""
    top_p: float | None = None
    """Draw from the fewest likeliest tokens that hold this share of the probability."""
    no_repeat_ngram: int | None = None
    """No sequence of so many tokens comes twice in a target."""
    forced_first: int | None = None
    """Id that the first token shall be."""
    seed: int = 0
    """Of what is drawn."""


@torch.inference_mode()
def generate(
    model: CausalLM, prompts: Sequence[Sequence[int]], memories: Sequence[Memory], search: Search
) -> list[list[int]]:
    """The tokens after each prompt, up to and without the end token.

    `prompts`: at least one token each; with `memories`, one for each source. Rows do not influence each other.
    """
    if search.max_new_tokens < 1 or not prompts:
        return [[] for _ in prompts]
    capacity = max(map(len, prompts)) + search.max_new_tokens
    with threads_for(len(prompts) * search.beams, model.decoder.embeddings.tokens.weight.device):
        writing = Writing(model, memories, rows=len(prompts), capacity=capacity)
        logits = _read(writing, prompts)
        run = _beams if search.beams > 1 else _one_by_one
        return run(writing, logits, [list(prompt) for prompt in prompts], search)


def _read(writing: Writing, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Feed the prompts; the logits after the last token of each, `[rows, vocab_size]`."""
    device, lengths = writing.places.device, [len(prompt) for prompt in prompts]
    last: Tensor | None = None
    for place in range(max(lengths)):
        tokens = torch.tensor([prompt[min(place, len(prompt) - 1)] for prompt in prompts], device=device)
        logits = writing.step(tokens)
        is_last = torch.tensor([length - 1 == place for length in lengths], device=device)
        last = logits if last is None else torch.where(is_last[:, None], logits, last)
    assert last is not None
    writing.places = torch.tensor(lengths, device=device)
    return last


def _one_by_one(writing: Writing, logits: Tensor, prompts: list[list[int]], search: Search) -> list[list[int]]:
    """Greedy, or drawn."""
    written: list[list[int]] = [[] for _ in prompts]
    going = list(range(len(prompts)))
    generators = [torch.Generator(logits.device).manual_seed(search.seed + row) for row in going]
    for count in range(search.max_new_tokens):
        scores = constrained(logits.float(), [prompts[row] + written[row] for row in going], count, search)
        if search.samples:
            chances = probabilities(scores, search)
            drawn = [
                torch.multinomial(chance, 1, generator=generators[row])
                for chance, row in zip(chances, going, strict=True)
            ]
            tokens = torch.cat(drawn)
        else:
            tokens = scores.argmax(-1)
        chosen = tokens.tolist()
        kept = [i for i, token in enumerate(chosen) if token != search.end]
        for i in kept:
            written[going[i]].append(chosen[i])
        if not kept or count + 1 == search.max_new_tokens:
            break
        if len(kept) < len(going):
            rows = torch.tensor(kept, device=tokens.device)
            writing.select(rows)
            tokens, going = tokens[rows], [going[i] for i in kept]
        logits = writing.step(tokens)
    return written


def _beams(writing: Writing, logits: Tensor, prompts: list[list[int]], search: Search) -> list[list[int]]:
    """Beam search: of each row the `beams` best sequences go on, until none can become better than those that ended."""
    beams, device = min(search.beams, logits.shape[1]), logits.device
    going = list(range(len(prompts)))
    ended: list[list[tuple[float, list[int]]]] = [[] for _ in prompts]
    running: list[list[list[int]]] = [[[]] for _ in prompts]
    scores = torch.zeros(len(prompts), 1, device=device)
    for count in range(1, search.max_new_tokens + 1):
        width = scores.shape[1]
        texts = [prompts[row] + tokens for row in going for tokens in running[row]]
        steps = constrained(logits.float().log_softmax(-1), texts, count - 1, search)
        totals = (steps.view(len(going), width, -1) + scores[:, :, None]).flatten(1)
        found = totals.topk(min(2 * beams, totals.shape[1]), dim=1)
        is_last = count == search.max_new_tokens
        still: list[int] = []
        sources: list[int] = []
        chosen: list[int] = []
        values: list[list[float]] = []
        for i, row in enumerate(going):
            options = zip(found.values[i].tolist(), found.indices[i].tolist(), strict=True)
            nexts: list[tuple[float, int, int]] = []
            for rank, (score, index) in enumerate(options):
                beam, token = divmod(index, steps.shape[1])
                if token == search.end or is_last:
                    if rank < beams and score > float("-inf"):
                        text = running[row][beam] + ([] if token == search.end else [token])
                        ended[row].append((score / count**search.length_penalty, text))
                elif len(nexts) < beams and score > float("-inf"):
                    nexts.append((score, beam, token))
            ended[row] = sorted(ended[row], key=lambda item: -item[0])[:beams]
            best = nexts[0][0] / count**search.length_penalty if nexts else float("-inf")
            if not nexts or (len(ended[row]) == beams and best <= ended[row][-1][0]):
                continue
            nexts += [(float("-inf"), nexts[0][1], nexts[0][2])] * (beams - len(nexts))
            running[row] = [running[row][beam] + [token] for _, beam, token in nexts]
            still.append(row)
            sources += [i * width + beam for _, beam, _ in nexts]
            chosen += [token for _, _, token in nexts]
            values.append([score for score, _, _ in nexts])
        going = still
        if not going:
            break
        writing.select(torch.tensor(sources, device=device))
        logits = writing.step(torch.tensor(chosen, device=device))
        scores = torch.tensor(values, device=device)
    return [max(found, key=lambda item: item[0])[1] if found else [] for found in ended]


def mean_probabilities(
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    memories: Sequence[Memory],
    written: Sequence[Sequence[int]],
    search: Search,
) -> list[float]:
    """The geometric mean of the probabilities of what `generate` has `written`, the end token included, if it came."""
    most, end = search.max_new_tokens, [search.end]
    news = [[*ids, *end] if len(ids) < most else list(ids) for ids in written]
    wholes = [np.array([*prompt, *new]) for prompt, new in zip(prompts, news, strict=True)]
    batch = Batch.from_sequences([whole[:-1] for whole in wholes]).to(model.device)
    chances = model(batch, memories).float().log_softmax(-1)
    means = []
    for part, new in zip(batch.split(chances), news, strict=True):
        chosen = part[len(part) - len(new) :].gather(1, torch.tensor(new, device=part.device)[:, None])
        means.append(math.exp(float(chosen.mean())))
    return means


def constrained(scores: Tensor, texts: Sequence[Sequence[int]], count: int, search: Search) -> Tensor:
    """`[rows, vocab_size]` with -inf for what may not come next; `count` tokens were written before."""
    if count == 0 and search.forced_first is not None:
        forced = torch.full_like(scores, float("-inf"))
        forced[:, search.forced_first] = 0.0
        return forced
    size = search.no_repeat_ngram
    if size is None:
        return scores
    scores = scores.clone()
    for row, text in enumerate(texts):
        scores[row, repeated(text, size)] = float("-inf")
    return scores


def repeated(text: Sequence[int], size: int) -> list[int]:
    """Tokens that would make an n-gram of `size` come again: `[1, 2, 3, 1, 2]`, 3 -> `[3]`."""
    if len(text) < size:
        return []
    last = tuple(text[len(text) - size + 1 :])
    grams = (tuple(text[i : i + size]) for i in range(len(text) - size + 1))
    return sorted({gram[-1] for gram in grams if gram[:-1] == last})


def probabilities(logits: Tensor, search: Search) -> Tensor:
    """`[rows, vocab_size]` to draw from: temperature, top k, top p, in this order."""
    scores = logits / search.temperature
    if search.top_k is not None:
        least = scores.topk(min(search.top_k, scores.shape[1]), dim=1).values[:, -1:]
        scores = scores.masked_fill(scores < least, float("-inf"))
    if search.top_p is not None:
        ordered, places = scores.sort(dim=1, descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        out = torch.zeros_like(scores, dtype=torch.bool).scatter(1, places, before >= search.top_p)
        scores = scores.masked_fill(out, float("-inf"))
    return scores.softmax(-1)
