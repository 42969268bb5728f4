"""What is trained: an encoder with heads, an encoder-decoder, or a decoder alone."""

from __future__ import annotations

from typing import TypeVar

from bertsmith.models.bert import Bert
from bertsmith.models.seq2seq import CausalLM, Seq2Seq

Network = Bert | Seq2Seq | CausalLM
SomeNetwork = TypeVar("SomeNetwork", bound=Network)
