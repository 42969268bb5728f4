"""Blocks of a decoder alone: every token is to be written once, and the end of every document."""

from __future__ import annotations

import tempfile
from itertools import chain
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.data.causal import CausalData
from bertsmith.data.ngrams import NGrams
from bertsmith.data.shards import store_of

CLS, SEP = 2, 3
DOCUMENTS = st.lists(st.lists(st.lists(st.integers(5, 30), min_size=1, max_size=9), max_size=4), min_size=1, max_size=5)


@given(documents=DOCUMENTS, length=st.integers(2, 12), epoch=st.integers(0, 3))
def test_every_token_and_every_end_is_written_once_from_what_stands_before_it(
    documents: list[list[list[int]]], length: int, epoch: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = CausalData(store_of(documents, Path(folder), vocab_size=31), CLS, SEP, length, seed=1)
        written: list[int] = []
        for index in range(data.size(epoch)):
            read, labels = data.block(epoch, index)
            assert read[0] == CLS
            assert len(read) == len(labels) <= length
            assert read[1:].tolist() == labels[:-1].tolist()
            own = labels.tolist()
            # a block that does not end its document has the next one's first token as its last label
            written += own if own[-1] == SEP else own[:-1]
            following = data.block(epoch, index + 1)[1][0] if own[-1] != SEP else None
            assert following is None or following == own[-1]
        whole = [list(chain.from_iterable(document)) for document in documents if document]
        assert written == [token for document in whole for token in [*document, SEP]]


def test_a_batch_has_the_blocks_by_length_with_their_labels(tmp_path: Path) -> None:
    store = store_of([[[5, 6, 7]], [[8]], [[9, 10]]], tmp_path, vocab_size=31)
    batch = CausalData(store, CLS, SEP, 8, seed=0).batch(0, np.arange(3))
    assert [part.tolist() for part in batch.split(batch.input_ids)] == [[CLS, 8], [CLS, 9, 10], [CLS, 5, 6, 7]]
    assert batch.labels["next_tokens"].tolist() == [8, SEP, 9, 10, SEP, 5, 6, 7, SEP]


def test_the_baselines_know_that_documents_end(tmp_path: Path) -> None:
    store = store_of([[[5, 6]], [[5, 6]], [[6]]], tmp_path, vocab_size=8)
    ngrams = NGrams(store, vocab_size=8, end=SEP)
    assert ngrams.unigrams[SEP] == 3
    labels = np.array([SEP, 6])
    assert ngrams.bigram_probabilities(np.array([6, 6]), labels)[0] > 0.7
    assert NGrams(store, vocab_size=8).unigrams[SEP] == 0
