"""What is trained: an encoder with heads, or an encoder-decoder."""

from __future__ import annotations

from typing import TypeVar

from bertsmith.models.bert import Bert
from bertsmith.models.seq2seq import Seq2Seq

Network = Bert | Seq2Seq
SomeNetwork = TypeVar("SomeNetwork", bound=Network)
