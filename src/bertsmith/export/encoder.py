"""The engine `onnx`: a loaded model whose encoder is computed by onnxruntime, its heads by torch as before."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bertsmith.batch import Batch
from bertsmith.errors import InputError
from bertsmith.export.answers import EncoderGraph, encoder_part
from bertsmith.export.engine import check_packages, dense_feeds, open_session
from bertsmith.export.graph_file import traced
from bertsmith.models.bert import Bert
from bertsmith.models.sentence import SentenceModules

STATES = "last_hidden_state"


class OnnxEncoder(nn.Module):
    """Takes the place of `model.encoder`; the graph is made when this is, and lies in memory only.

    Raises `InputError` without the extra, and for what only torch can do: hidden states, attentions, masks of heads.
    """

    def __init__(self, model: Bert) -> None:
        super().__init__()
        check_packages("--engine")
        if model.device.type != "cpu":
            raise InputError("onnx is for processors; the model is on a GPU", field="--engine")
        self.config, self.embeddings = model.config, model.encoder.embeddings
        self.batch_tokens = 512  # of rows padded to the longest
        part = encoder_part(EncoderGraph(model, "encode", SentenceModules()))
        # `tasks.inference` computes as many batches at a time as there are threads: one is enough for each
        self.session = open_session(traced(part).SerializeToString(), threads=1)
        self.inputs = tuple(entry.name for entry in self.session.get_inputs())

    def forward(self, batch: Batch, *, rows: Tensor | None = None, **others: Any) -> Tensor:
        """See `Encoder`: `[total, hidden_size]`, or of `rows` alone."""
        if any(value is not None for value in others.values()):
            raise InputError("only torch looks inside; give --engine torch", field="--engine")
        if batch.max_seqlen > self.config.max_position_embeddings:
            raise InputError(
                f"a sequence has {batch.max_seqlen} tokens, the model has {self.config.max_position_embeddings} "
                "positions; shorten the text"
            )
        feeds = dense_feeds(batch)
        (found,) = self.session.run([STATES], {name: feeds[name] for name in self.inputs})
        states = torch.from_numpy(np.ascontiguousarray(found[feeds["attention_mask"] != 0]))
        return states if rows is None else states[rows]
