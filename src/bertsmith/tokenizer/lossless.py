"""A vocabulary that loses nothing, for models that write: byte-level BPE with BERT's special tokens.

    decode(encode("ein Boston-Terrier, \u201ejung\u201c")) == "ein Boston-Terrier, \u201ejung\u201c"

WordPiece marks where a word goes on, but not where a space stood: from the pieces "Boston", "-" and "Terrier" nobody
can tell whether there were spaces. Here a space belongs to the piece after it, and every byte is a piece, so that
nothing is unknown (Radford et al. 2019, section 2.2). Not here: RoBERTa's files (`tokenizer.byte_level`), WordPiece
(`tokenizer.train`).
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from bertsmith.tokenizer.bert import READS_TOKENIZER_JSON, SPECIAL_TOKENS, between
from bertsmith.tokenizer.text_tokenizer import TextTokenizer

MIN_FREQUENCY = 2
"""A pair of pieces is merged only if it occurs so often."""


def train_lossless(texts: Iterable[str], *, vocab_size: int, model_max_length: int) -> TextTokenizer:
    """A tokenizer of at most `vocab_size` pieces: special tokens, bytes, and merges in the order of learning.

    Equal texts give equal ids, in any process. A small text gives fewer pieces; 261 are there without one.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=list(SPECIAL_TOKENS.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = between(SPECIAL_TOKENS["cls_token"], SPECIAL_TOKENS["sep_token"], tokenizer)
    config = {
        "tokenizer_class": READS_TOKENIZER_JSON,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "model_max_length": model_max_length,
        "clean_up_tokenization_spaces": False,
        **SPECIAL_TOKENS,
    }
    return TextTokenizer(tokenizer.to_str(pretty=True) + "\n", config)
