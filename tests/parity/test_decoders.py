"""Decoders against transformers: logits, gradients, greedy and beam search, cached and not, both directions."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.files import to_json
from bertsmith.interop.decoders import causal_rules, decoder_to_hf, seq2seq_rules, seq2seq_to_hf, with_pooler
from bertsmith.interop.keymap import to_theirs
from bertsmith.models.generate import Search, generate, probabilities, repeated
from bertsmith.models.seq2seq import Writing
from tests.parity.decoders import END, SHAPE, START, causal_pair, load, seq2seq_pair

SOURCES, TARGETS = (9, 3, 12, 5), (4, 11, 1, 7)


def dense(lengths: tuple[int, ...], *, seed: int) -> tuple[Tensor, Tensor]:
    """(ids, mask), right-padded with 0."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, SHAPE["vocab_size"], (len(lengths), max(lengths)), generator=generator)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return ids * mask, mask


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-9) -> None:
    assert ours.shape == theirs.shape
    worst = ((ours - theirs).abs() / theirs.abs().clamp(min=1)).max().item()
    assert worst <= tolerance, worst


def test_a_decoder_alone_equals_transformers_with_every_gradient() -> None:
    theirs, ours = causal_pair()
    ids, mask = dense(TARGETS, seed=1)
    keep = mask.bool()
    expected = theirs(ids, attention_mask=mask).logits[keep]
    found = ours(Batch.from_dense(ids, mask))[:, : SHAPE["vocab_size"]]
    assert_close(found, expected)
    gradients_agree(theirs, ours, expected, found, causal_rules(ours.config), ours.config)


@pytest.mark.parametrize("encoder_size", [32, 24])
def test_an_encoder_and_decoder_equal_transformers_with_every_gradient(encoder_size: int) -> None:
    theirs, ours = seq2seq_pair(encoder_size=encoder_size)
    (source, mask), (target, target_mask) = dense(SOURCES, seed=2), dense(TARGETS, seed=3)
    keep = target_mask.bool()
    output = theirs(source, attention_mask=mask, decoder_input_ids=target, decoder_attention_mask=target_mask)
    expected = output.logits[keep]
    found = ours(Batch.from_dense(source, mask), Batch.from_dense(target, target_mask))[:, : SHAPE["vocab_size"]]
    assert_close(found, expected)
    rules = seq2seq_rules(ours.encoder.config, ours.writer.config)
    gradients_agree(theirs, ours, expected, found, rules, ours.writer.config)


def gradients_agree(theirs: Any, ours: Any, expected: Tensor, found: Tensor, rules: Any, config: Any) -> None:
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(5), dtype=expected.dtype)
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    mine = {name: parameter.grad for name, parameter in ours.named_parameters()}
    for parameter in theirs.parameters():
        parameter.data = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
    load(ours, theirs, rules, config)
    for name, parameter in ours.named_parameters():
        grad = mine[name]
        assert grad is not None, name
        assert_close(grad, parameter, 1e-8)


@pytest.mark.parametrize("beams", [1, 2, 4])
@pytest.mark.parametrize("penalty", [1.0, 0.0, 2.0])
def test_greedy_and_beams_equal_transformers_token_for_token(beams: int, penalty: float) -> None:
    theirs, ours = seq2seq_pair()
    source, mask = dense(SOURCES, seed=6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs.generate(
            source, attention_mask=mask, num_beams=beams, max_new_tokens=12, do_sample=False, length_penalty=penalty
        )
    with torch.no_grad():
        memories = ours.read(Batch.from_dense(source, mask))
    search = Search(end=END, max_new_tokens=12, beams=beams, length_penalty=penalty)
    found = generate(ours.writer, [[START]] * len(SOURCES), memories, search)
    assert found == [written(row) for row in expected.tolist()]


def written(row: list[int]) -> list[int]:
    """Without the start, the end and what follows it."""
    tokens = row[1:]
    return tokens[: tokens.index(END)] if END in tokens else tokens


@pytest.mark.parametrize("options", [{"no_repeat_ngram": 2}, {"forced_first": 17}])
@pytest.mark.parametrize("beams", [1, 3])
def test_what_may_not_come_next_is_as_in_transformers(options: dict[str, int], beams: int) -> None:
    theirs, ours = seq2seq_pair()
    source, mask = dense(SOURCES, seed=7)
    names = {"no_repeat_ngram": "no_repeat_ngram_size", "forced_first": "forced_bos_token_id"}
    given = {names[name]: value for name, value in options.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs.generate(source, attention_mask=mask, num_beams=beams, max_new_tokens=12, **given)
    with torch.no_grad():
        memories = ours.read(Batch.from_dense(source, mask))
    search = Search(end=END, max_new_tokens=12, beams=beams, **options)
    found = generate(ours.writer, [[START]] * len(SOURCES), memories, search)
    assert found == [written(row) for row in expected.tolist()]


def test_cached_steps_equal_the_whole_at_every_place() -> None:
    _, ours = seq2seq_pair()
    (source, mask), (target, _) = dense(SOURCES, seed=8), dense((11,) * 4, seed=9)
    with torch.no_grad():
        whole = ours(Batch.from_dense(source, mask), Batch.from_dense(target)).unflatten(0, (4, 11))
        writing = Writing(ours.writer, ours.read(Batch.from_dense(source, mask)), rows=4, capacity=11)
        rows = torch.arange(4)
        for place in range(11):
            if place == 5:  # rows leave, come twice, and change their order
                rows = torch.tensor([2, 0, 2])
                writing.select(rows)
            logits = writing.step(target[rows, place])
            assert_close(logits, whole[rows, place, : SHAPE["vocab_size"]])


def test_ragged_prompts_and_a_batch_equal_single_runs() -> None:
    _, ours = causal_pair()
    rng = np.random.default_rng(0)
    prompts = [rng.integers(4, 99, size=size).tolist() for size in (1, 7, 3, 7, 2)]
    for search in (Search(end=END, max_new_tokens=9), Search(end=END, max_new_tokens=9, beams=3)):
        together = generate(ours, prompts, [], search)
        assert together == [generate(ours, [prompt], [], search)[0] for prompt in prompts]
    greedy = generate(ours, prompts, [], Search(end=END, max_new_tokens=9))
    for prompt, found in zip(prompts, greedy, strict=True):
        ids = list(prompt)
        for token in found:  # without a cache
            with torch.no_grad():
                logits = ours(Batch.from_sequences([np.array(ids)]))[-1, : SHAPE["vocab_size"]]
            assert int(logits.argmax()) == token
            ids.append(token)


def test_decoders_go_back_to_transformers(tmp_path: Path) -> None:
    theirs, ours = seq2seq_pair(dtype=torch.float32)
    encoder, decoder = ours.encoder.config, ours.writer.config
    state = to_theirs(dict(ours.state_dict()), seq2seq_rules(encoder, decoder), vocab_size=SHAPE["vocab_size"])
    save_file(with_pooler(state, encoder.hidden_size), tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(to_json(seq2seq_to_hf(encoder, decoder, start=START, end=END)))
    again, info = transformers.EncoderDecoderModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"], info
    assert not info["unexpected_keys"], info
    (source, mask), (target, _) = dense(SOURCES, seed=2), dense((7,) * 4, seed=3)
    with torch.no_grad():
        expected = theirs(source, attention_mask=mask, decoder_input_ids=target).logits
        found = again.eval()(source, attention_mask=mask, decoder_input_ids=target).logits
    assert_close(found, expected, 1e-5)
    assert decoder_to_hf(decoder)["is_decoder"]


@pytest.mark.parametrize("options", [{"top_k": 5}, {"top_p": 0.7}, {"temperature": 0.5, "top_k": 30, "top_p": 0.9}])
def test_chances_are_those_of_transformers(options: dict[str, Any]) -> None:
    logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected, warpers = logits, transformers.generation.logits_process
    for name, warper in (
        ("temperature", warpers.TemperatureLogitsWarper),
        ("top_k", warpers.TopKLogitsWarper),
        ("top_p", warpers.TopPLogitsWarper),
    ):
        if name in options:
            expected = warper(options[name])(torch.zeros(6, 1), expected)
    assert_close(probabilities(logits, Search(end=END, **options)), expected.softmax(-1))


def test_what_is_drawn_depends_on_the_seed_and_the_row_alone() -> None:
    _, ours = causal_pair(dtype=torch.float32)
    search = Search(end=END, max_new_tokens=8, samples=True, top_p=0.9, seed=4)
    prompts = [[5], [6, 7], [5]]
    found = generate(ours, prompts, [], search)
    assert found == generate(ours, prompts, [], search)
    assert found[:2] == generate(ours, prompts[:2], [], search)
    assert found != generate(ours, prompts, [], replace(search, seed=5))


def test_odd_requests() -> None:
    _, ours = causal_pair()
    assert generate(ours, [[5], [6]], [], Search(end=END, max_new_tokens=0)) == [[], []]
    assert generate(ours, [], [], Search(end=END)) == []
    many = generate(ours, [[5]], [], Search(end=END, max_new_tokens=3, beams=500))
    assert len(many[0]) <= 3
    assert repeated([1, 2, 3, 1, 2], 3) == [3]
    assert repeated([1], 3) == []


def test_padding_of_targets_never_gives_nan_and_changes_nothing() -> None:
    _, ours = seq2seq_pair(dtype=torch.float32)
    (source, mask), (target, target_mask) = dense(SOURCES, seed=2), dense(TARGETS, seed=3)
    with torch.no_grad():
        together = ours(Batch.from_dense(source, mask), Batch.from_dense(target, target_mask))[:, : SHAPE["vocab_size"]]
        assert torch.isfinite(together).all()
        parts = torch.split(together, list(TARGETS))
        for i, part in enumerate(parts):
            alone = ours(
                Batch.from_dense(source[i : i + 1, : SOURCES[i]]), Batch.from_dense(target[i : i + 1, : TARGETS[i]])
            )
            assert_close(alone[:, : SHAPE["vocab_size"]], part, 1e-5)
