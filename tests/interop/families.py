"""Directories as transformers writes them for the other families, with tokenizers trained on a few sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from tests.parity.families import DISTILBERT
from tests.parity.reference import redraw

ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 66,
}


def byte_level(corpus: Path, *, specials: list[str]) -> Tokenizer:
    """A byte-level BPE; RoBERTa's specials bring its post-processor, BERT's those of ModernBERT."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train([str(corpus)], trainer)
    ids = {token: tokenizer.token_to_id(token) for token in specials}
    if specials == ROBERTA:
        tokenizer.post_processor = processors.RobertaProcessing(
            ("</s>", ids["</s>"]), ("<s>", ids["<s>"]), add_prefix_space=False
        )
    else:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B [SEP]",
            special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
        )
    return tokenizer


def unigram(corpus: Path) -> Tokenizer:
    """A sentencepiece-like tokenizer, as those of XLM-RoBERTa and CamemBERT."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=ROBERTA, unk_token="<unk>", show_progress=False)
    tokenizer.train([str(corpus)], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")],
    )
    return tokenizer


def write_directory(family: str, corpus: Path, out: Path, *, head: str = "ForMaskedLM", seed: int = 1) -> Any:
    """`out` with a random model of `family` and a tokenizer of its kind; returns transformers' model."""
    names = ROBERTA if family in ("roberta", "xlm-roberta") else BERT
    raw = unigram(corpus) if family == "xlm-roberta" else byte_level(corpus, specials=names)
    roles = ("cls_token", "pad_token", "sep_token", "unk_token", "mask_token")
    tokens = dict(
        zip(roles, ROBERTA if names == ROBERTA else ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"), strict=True)
    )
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=64, **tokens)
    sizes = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(seed)
    if family == "distilbert":
        shape = {DISTILBERT.get(name, name): value for name, value in SHAPE.items()}
        config: Any = transformers.DistilBertConfig(**shape, **sizes)
        title = "DistilBert"
    elif family == "electra":
        config, title = transformers.ElectraConfig(**SHAPE, **sizes, embedding_size=24), "Electra"
    elif family == "modernbert":
        ends = {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
        ends |= {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
        config, title = transformers.ModernBertConfig(**SHAPE, **sizes, **ends, local_attention=8), "ModernBert"
    elif family == "xlm-roberta":
        config, title = transformers.XLMRobertaConfig(**SHAPE, **sizes, type_vocab_size=1), "XLMRoberta"
    else:
        config, title = transformers.RobertaConfig(**SHAPE, **sizes, type_vocab_size=1), "Roberta"
    model = getattr(transformers, title + head)(config).eval()
    redraw(model, std=0.1)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return model
