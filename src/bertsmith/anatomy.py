"""A model in parts: parameters, arithmetic and activation memory of each, in closed form.

Not here: measuring. Nothing is run; tests hold the figures against torch's FLOP counter, against what autograd keeps,
and against the tensors of the file. Of the model only its shape is read, so it may live on the `meta` device.

**Parameters** are those of a file: without the rows that pad the vocabulary in memory, a tied decoder once, and
without sinusoids, which are not trained.

**FLOPs** are the matrix products of a forward pass (`models.flops`); a training step does about three times as many.

**Activations** are the float32 values that a training step without dropout keeps on the CPU for its backward pass. The
rules of autograd: a linear layer keeps its input; a norm its input and two numbers for each token; GELU and most
activations their input, ReLU and tanh their output; fused attention query, key, value, context and one number for each
query; a cross entropy one number for each logit. A tensor that several keep counts once, in the part that makes it.
Parameters, gradients, and what exists only for a moment are not in it, nor are the integers (24 bytes a token). Where
`value_size` differs from `head_size`, torch's CPU has no fused attention, and the probabilities, [B, H, S, S], are kept
too; dropout on them has the same effect, and the masks of every dropout come on top.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from bertsmith.models.bert import READS_CLS, READS_TOKENS, Bert
from bertsmith.models.flops import block_flops, linear_flops, projection_flops

KEPT_BY_ACTIVATION = {"relu": 0, "tanh": 0, "quick_gelu": 2}
"""`hidden_act` -> how many values are kept for each beside the output: by default one, the input. The gradient of ReLU
and tanh follows from the output; quick_gelu, written as a product, keeps its sigmoid too."""

FLOAT32 = 4
"""Bytes of a value."""

OF_ALL_TOKENS = {"token_classifier": "C", "question_answering": ""}
OF_CLS = {"next_sentence": "", "classifier": "C", "multiple_choice": ""}
"""Linear heads -> the symbol of their outputs, where their number is not fixed."""


@dataclass(frozen=True)
class Work:
    """What the model is given: `batch_size` sequences of `length` tokens, all of them real."""

    batch_size: int
    length: int
    selected: float = 1.0
    """Share of the tokens that the masked LM head is given: 1 for every token, about 0.15 in pretraining."""

    @property
    def tokens(self) -> int:
        """B · S."""
        return self.batch_size * self.length

    @property
    def selected_tokens(self) -> int:
        """Tokens that the masked LM head is given."""
        return round(self.selected * self.tokens)


@dataclass(frozen=True)
class Part:
    """A row of the table; of a part of the blocks, the sum over all of them."""

    part: str
    layers: int
    """How many blocks were added up; 1 outside of the blocks."""
    parameters: int
    flops: int
    """Of one forward pass."""
    activation_values: int
    """Float32 values that are kept for the backward pass."""
    work_terms: tuple[str, ...]
    """Products whose sum bounds the work, norms and look-ups included: `("LBSDD",)`."""
    kept_terms: tuple[str, ...]
    """The same for the values that are kept; none if nothing is."""

    @property
    def activation_bytes(self) -> int:
        """`activation_values` as float32."""
        return FLOAT32 * self.activation_values

    @property
    def complexity(self) -> str:
        """How the work grows: `O(L·B·S·D²)`."""
        return big_o(self.work_terms)

    @property
    def activation_complexity(self) -> str:
        """How the kept memory grows: `O(L·B·S·D)`, or `0`."""
        return big_o(self.kept_terms)


def anatomy(model: Bert, work: Work) -> list[Part]:
    """The parts of `model`, in the order in which data passes them."""
    return [*_embeddings(model, work), *_blocks(model, work), *_final_norm(model, work), *_heads(model, work)]


def total(parts: list[Part]) -> Part:
    """All parts as one; of their complexities, the terms that no other one contains."""
    return Part(
        part="total",
        layers=max(part.layers for part in parts),
        parameters=sum(part.parameters for part in parts),
        flops=sum(part.flops for part in parts),
        activation_values=sum(part.activation_values for part in parts),
        work_terms=_leading([term for part in parts for term in part.work_terms]),
        kept_terms=_leading([term for part in parts for term in part.kept_terms]),
    )


def symbols(model: Bert, work: Work) -> dict[str, int]:
    """What the letters of the complexities stand for; `d` and `C` only where they are needed."""
    config = model.config
    found = {
        "B": work.batch_size,
        "S": work.length,
        "D": config.hidden_size,
        "F": config.intermediate_size,
        "H": config.num_attention_heads,
        "L": config.num_hidden_layers,
        "V": config.vocab_size,
    }
    if "d" in heads_width(model):
        found["d"] = max(config.head_size, config.value_size)
    for head in (model.classifier, model.token_classifier):
        if head is not None:
            found["C"] = head.linear.out_features
    return found


def big_o(terms: tuple[str, ...]) -> str:
    """`("LBSDD", "BSDV")` -> `O(L·B·S·D² + B·S·D·V)`; no terms -> `0`."""
    powers = {1: "", 2: "²", 3: "³"}
    products = ("·".join(letter + powers[count] for letter, count in Counter(term).items()) for term in terms)
    return f"O({' + '.join(products)})" if terms else "0"


def parameters(*modules: nn.Module | None) -> int:
    """Number of trained values of these modules; the padding of the vocabulary is not taken off."""
    return sum(parameter.numel() for module in modules if module is not None for parameter in module.parameters())


def _leading(terms: list[str]) -> tuple[str, ...]:
    """Without those that are a factor of another one: `BSD` goes when there is `LBSDD`."""
    counts = {term: Counter(term) for term in terms}
    return tuple(
        term for term in counts if not any(other != term and counts[term] <= counts[other] for other in counts)
    )


def heads_width(model: Bert) -> str:
    """The symbol of a block's heads together: D in a BERT, else H d."""
    config = model.config
    width = config.head_size * config.num_attention_heads
    return "D" if width == config.hidden_size and config.value_size == config.head_size else "Hd"


def _embeddings(model: Bert, work: Work) -> Iterator[Part]:
    config, embeddings = model.config, model.encoder.embeddings
    width = config.embedding_width

    def table(name: str, count: int) -> Part:
        return Part(name, 1, count, 0, 0, ("BSD",), ())

    yield table("token embedding", config.vocab_size * width)
    if embeddings.positions is not None:
        yield table("position embedding", parameters(embeddings.positions))
    if embeddings.segments is not None:
        yield table("segment embedding", parameters(embeddings.segments))
    has_norm = config.embedding_norm
    kept = work.tokens * (2 * width + kept_by_norm(model, width) if has_norm else width)
    name = "embedding sum and norm" if has_norm else "embedding sum"
    yield Part(name, 1, parameters(embeddings.norm), 0, kept, ("BSD",), ("BSD",))
    if embeddings.project is not None:
        flops, kept = projection_flops(config, work.tokens), work.tokens * config.hidden_size
        yield Part("embedding projection", 1, parameters(embeddings.project), flops, kept, ("BSDD",), ("BSD",))


def _blocks(model: Bert, work: Work) -> Iterator[Part]:
    config, tokens = model.config, work.tokens
    width, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    flops, kept = Counter[str](), Counter[str]()
    for layer in range(layers):
        flops.update(block_flops(config, layer, lengths=(work.length,) * work.batch_size))
        kept.update(kept_by_attention(model, work, layer))
    # The two inputs of the norms and what the first one makes, whichever side of the sub-layers they stand on;
    # and the output of the block, if anything keeps that.
    norms = tokens * layers * (3 * width + 2 * kept_by_norm(model)) + tokens * width * (layers - 1)
    norms += tokens * width if config.has_final_norm or _read_by_linear(model) else 0
    norms -= 0 if config.first_norm else tokens * (width + kept_by_norm(model))
    beside = KEPT_BY_ACTIVATION.get(config.hidden_act, 1)
    wide = tokens * layers * inner
    heads = heads_width(model)
    is_fused = config.value_size == config.head_size
    is_gated = config.feedforward_kind == "gated"
    if bases := {config.rotary_base(layer) for layer in range(layers)} - {None}:
        angles = 2 * len(bases) * tokens * config.head_size
        yield Part("rotary angles", 1, 0, 0, angles, ("BSD",), ("BSD",))

    def row(name: str, modules: str, work_of: str, *, of: str = "", values: int = 0, kept_of: str = "") -> Part:
        found = [block.get_submodule(module) for block in model.encoder.blocks for module in modules.split()]
        terms = tuple(kept_of.split()) if values else ()
        return Part(name, layers, parameters(*found), flops[of], values, (work_of,), terms)

    context = f"LBS{heads}" if is_fused else f"LBHSS LBS{heads}"
    yield row("query, key, value", "attention.qkv", f"LBSD{heads}", of="qkv", values=kept["qkv"], kept_of=f"LBS{heads}")
    yield row("scores Q Kᵀ", "", f"LBSS{heads}", of="scores", values=kept["scores"], kept_of=f"LBS{heads}")
    yield row("softmax, times V", "", f"LBSS{heads}", of="context", values=kept["context"], kept_of=context)
    yield row("output projection", "attention.output", f"LBSD{heads}", of="output")
    yield row(
        "feed-forward in",
        "feedforward.intermediate",
        "LBSDF",
        of="feedforward_in",
        values=2 * wide if is_gated else wide if beside else 0,
        kept_of="LBSF",
    )
    # of a gated part: the activation, and what it gives times the gate
    active = wide * (max(1, beside) + is_gated)
    yield row("activation times gate" if is_gated else "activation", "", "LBSF", values=active, kept_of="LBSF")
    yield row("feed-forward out", "feedforward.output", "LBSDF", of="feedforward_out")
    yield row("norms and residuals", "attention_norm feedforward_norm", "LBSD", values=norms, kept_of="LBSD")


def kept_by_attention(model: Bert, work: Work, layer: int) -> dict[str, int]:
    """Values that one block keeps between its projections, under the names of `block_flops`."""
    config, tokens = model.config, work.tokens
    heads = len(config.kept_heads(layer))
    keys, values = tokens * heads * config.head_size, tokens * heads * config.value_size
    if config.value_size == config.head_size:
        turned = 2 * keys if config.position_kind == "rotary" else 0
        window = config.window(layer)
        seen = 0 if window is None or work.length <= window + 1 else work.length**2  # the mask
        return {"qkv": 2 * keys + values, "scores": turned + seen, "context": values + tokens * heads}
    # Query and key are kept scaled, as copies. The value is a copy too, unless one sequence or one head lets the
    # product read it where it is: then the whole projection stays.
    copies_value = work.batch_size > 1 and heads > 1
    probabilities = tokens * work.length * heads
    return {
        "qkv": 0 if copies_value else 2 * keys + values,
        "scores": 2 * keys,
        "context": probabilities + values + (values if copies_value else 0),
    }


def kept_by_norm(model: Bert, width: int | None = None) -> int:
    """Values for each token that a norm keeps beside its input; its output counts where something else keeps it."""
    return 2 if model.config.norm_kind == "layer_norm" else 2 * (width or model.config.hidden_size) + 2


def _read_by_linear(model: Bert) -> bool:
    """Whether a head keeps the encoder's output as it is; the other heads copy the vectors that they need."""
    is_mean = model.config.pooler_input == "mean" and bool(READS_CLS & set(model.heads))
    return is_mean or any(name in model.heads for name in (*OF_ALL_TOKENS, "discriminator"))


def _final_norm(model: Bert, work: Work) -> Iterator[Part]:
    if model.config.has_final_norm:
        kept = kept_by_norm(model) + (model.config.hidden_size if _read_by_linear(model) else 0)
        terms = ("BSD",) if kept > 2 else ("BS",)
        yield Part("final norm", 1, parameters(model.encoder.final_norm), 0, work.tokens * kept, ("BSD",), terms)


def _heads(model: Bert, work: Work) -> Iterator[Part]:
    config, width = model.config, model.config.hidden_size
    if model.pooler is not None:
        yield _pooler(model, work)
    elif READS_CLS & set(model.heads):
        yield Part("vector of [CLS]", 1, 0, 0, work.batch_size * width, ("BD",), ("BD",))
    if model.masked_lm is not None:
        yield from _masked_lm(model, work)
    for names, items, letters in ((OF_CLS, work.batch_size, "B"), (OF_ALL_TOKENS, work.tokens, "BS")):
        for name, classes in names.items():
            head = getattr(model, name)
            if head is not None:
                outputs = head.linear.out_features
                flops = linear_flops(config, items, outputs=outputs)
                terms = (f"{letters}D{classes}",), (f"{letters}{classes}",)
                yield Part(name.replace("_", " "), 1, parameters(head), flops, items * outputs, *terms)

    if model.discriminator is not None:
        dense, linear, tokens = model.discriminator.dense, model.discriminator.linear, work.tokens
        kept = tokens * width * (KEPT_BY_ACTIVATION.get(config.hidden_act, 1) + 1)
        flops = linear_flops(config, tokens, outputs=width)
        yield Part("discriminator transform", 1, parameters(dense), flops, kept, ("BSDD",), ("BSD",))
        flops = linear_flops(config, tokens, outputs=1)
        yield Part("discriminator", 1, parameters(linear), flops, tokens, ("BSD",), ("BS",))


def _pooler(model: Bert, work: Work) -> Part:
    """The pooler's layers, on `[CLS]` and, in families where heads on tokens read through them, on every token."""
    config, width = model.config, model.config.hidden_size
    of_tokens = config.token_pooler and bool(READS_TOKENS & set(model.heads))
    of_cls = bool(READS_CLS & set(model.heads)) or not of_tokens
    items = work.batch_size * of_cls + work.tokens * of_tokens
    is_read = bool((READS_CLS | READS_TOKENS) & set(model.heads))
    beside = KEPT_BY_ACTIVATION.get(config.pooler_activation, 1)
    # what the layer is given (the vectors of [CLS] are copies, those of all tokens are kept already), what the
    # activation keeps, and what it gives, if that is needed again
    kept = work.batch_size * width * of_cls + items * width * beside
    kept += items * width if is_read or config.pooler_norm or not beside else 0
    if config.pooler_norm:
        kept += items * (kept_by_norm(model) + (width if is_read else 0))
    if of_cls and config.pooler_input == "mean":
        kept += work.batch_size  # the lengths
    letters = "BS" if of_tokens else "B"
    count = parameters(model.pooler)
    flops = linear_flops(config, items, outputs=width)
    return Part("pooler", 1, count, flops, kept, (f"{letters}DD",), (f"{letters}D",))


def _masked_lm(model: Bert, work: Work) -> Iterator[Part]:
    config, head, selected = model.config, model.masked_lm, work.selected_tokens
    assert head is not None
    width, vocabulary = config.hidden_size, config.vocab_size
    guesses = "next token" if config.is_causal else "masked LM"
    gathered = selected * width
    if head.dense is not None:
        width = config.embedding_width
        # The vectors at the selected places, the norm's input and its output, and what activation and norm keep.
        beside = KEPT_BY_ACTIVATION.get(config.masked_lm_activation or config.hidden_act, 1)
        values = gathered + selected * (width * (2 + beside) + kept_by_norm(model, width))
        count = parameters(head.dense, head.norm)
        flops = linear_flops(config, selected, outputs=width)
        yield Part(f"{guesses} transform", 1, count, flops, values, ("BSDD",), ("BSD",))
    decoder = vocabulary * (config.decoder_bias + (0 if head.decoder is None else width))
    flops = 2 * selected * width * vocabulary
    # The logits in memory have the columns that pad the vocabulary; that is no work that the task requires.
    values = selected * config.padded_vocab_size + (gathered if head.dense is None else 0)
    yield Part(f"{guesses} decoder", 1, decoder, flops, values, ("BSDV",), ("BSV",))
