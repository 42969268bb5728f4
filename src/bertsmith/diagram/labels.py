"""What the boxes of the drawing say: names, shapes and parameters of one model at one batch size and length.

Not here: where the boxes stand (`diagram.draw`). Shapes are those of the dense view, [batch, tokens, …], as the
literature has them; in memory the batch is packed, and of equally long sequences that is the same data.
"""

from __future__ import annotations

from collections.abc import Iterable

from bertsmith.anatomy import Work, anatomy, parameters, total
from bertsmith.diagram.svg import Label
from bertsmith.models.bert import READS_CLS, Bert
from bertsmith.nn.attention import SelfAttention

ACTIVATION_NAMES = {
    "gelu": "GELU",
    "gelu_fast": "GELU (tanh)",
    "gelu_new": "GELU (tanh)",
    "gelu_python": "GELU",
    "gelu_pytorch_tanh": "GELU (tanh)",
    "mish": "Mish",
    "quick_gelu": "GELU (sigmoid)",
    "relu": "ReLU",
    "silu": "SiLU",
    "swish": "SiLU",
}
"""`hidden_act` -> the name that papers use, where it is another one."""
NORM_NAMES = {"layer_norm": "LayerNorm", "std_norm": "Norm: (x − mean) / (deviation + ε)"}
"""`norm_kind` -> what the box says."""


def activation_name(name: str) -> str:
    """`gelu -> GELU`."""
    return ACTIVATION_NAMES.get(name, name)


def span(values: Iterable[int], *, form: str = "d") -> str:
    """One number, or the range if the blocks differ (pruned heads): `[12, 12] -> 12`, `[9, 12] -> 9–12`."""
    every = list(values)
    low, high = format(min(every), form), format(max(every), form)
    return low if low == high else f"{low}–{high}"


def shape(*sizes: int | str) -> str:
    """`8, 128, 384 -> [8, 128, 384]`."""
    return f"[{', '.join(map(str, sizes))}]"


def counted(*counts: int) -> str:
    """`147840 -> 147,840 parameters`; of several, the range."""
    return f"{span(counts, form=',d')} parameters"


def number_of(count: int, noun: str) -> str:
    """`12, "block" -> 12 blocks`; `1, "block" -> 1 block`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


class Labels:
    """The labels of one model, in the order in which data passes them."""

    def __init__(self, model: Bert, work: Work) -> None:
        self.model, self.config, self.work = model, model.config, work
        self.batch, self.length, self.selected = work.batch_size, work.length, work.selected_tokens
        found = (block.get_submodule("attention") for block in model.encoder.blocks)
        self.attentions = [attention for attention in found if isinstance(attention, SelfAttention)]

    def summary(self) -> tuple[str, str]:
        """The numbers of the whole, and what the shapes are for."""
        config = self.config
        sizes = (
            number_of(config.num_hidden_layers, "block"),
            f"hidden size {config.hidden_size}",
            f"{number_of(config.num_attention_heads, 'head')} of {config.head_size}",
            f"feed-forward {config.intermediate_size}",
            f"vocabulary {config.vocab_size}",
        )
        given = f"{number_of(self.work.batch_size, 'sequence')} of {number_of(self.work.length, 'token')}"
        count = counted(total(anatomy(self.model, self.work)).parameters)
        is_part = self.model.masked_lm is not None and self.work.selected < 1
        share = f" · masked LM on {100 * self.work.selected:g} % of them" if is_part else ""
        return " · ".join(sizes), f"{count} · shapes for {given}{share}"

    def hidden(self) -> str:
        """The shape of what flows between the parts."""
        return shape(self.batch, self.length, self.config.hidden_size)

    def inputs(self) -> list[Label]:
        """Token ids, and what else has a table: positions, segments."""
        ids, embeddings = shape(self.batch, self.length), self.model.encoder.embeddings
        names = ["input_ids"]
        names += ["position_ids"] if embeddings.positions is not None else []
        names += ["token_type_ids"] if embeddings.segments is not None else []
        return [Label(name, (ids,)) for name in names]

    def tables(self) -> list[Label]:
        """The table that each input looks up."""
        config, embeddings = self.config, self.model.encoder.embeddings
        width = config.embedding_width
        scale = f" × √{width}" if config.embedding_scale else ""
        found = [("Token embedding", f"{shape(config.vocab_size, width)}{scale}", counted(config.vocab_size * width))]
        if embeddings.positions is not None:
            learned = config.position_kind == "learned"
            title = "Position embedding" if learned else "Sinusoidal positions"
            rows = shape(*embeddings.positions.weight.shape)
            found.append((title, rows, counted(parameters(embeddings.positions)) if learned else "no parameters"))
        if embeddings.segments is not None:
            count = counted(parameters(embeddings.segments))
            found.append(("Segment embedding", shape(config.type_vocab_size, width), count))
        return [Label(title, (rows, count), "embedding") for title, rows, count in found]

    def norm(self, place: str = "", *, width: int | None = None) -> Label:
        """Any of the norms; `place` is appended to its name."""
        size = width or self.config.hidden_size
        count = counted((2 if self.config.norm_bias else 1) * size)
        return Label(
            NORM_NAMES[self.config.norm_kind] + place, (f"{shape(self.batch, self.length, size)} · {count}",), "norm"
        )

    def embedding_norm(self) -> Label:
        """The norm of the sum, as wide as the tables."""
        return self.norm(width=self.config.embedding_width)

    def embedding_projection(self) -> Label | None:
        """From the width of the tables to the hidden size, where they differ."""
        projection = self.model.encoder.embeddings.project
        if projection is None:
            return None
        details = f"{self.config.embedding_width} → {self.config.hidden_size} · {self.hidden()}"
        return Label("Embedding projection", (details, counted(parameters(projection))), "embedding")

    def projections(self) -> list[Label]:
        """Query, key and value."""
        width, heads = self.config.hidden_size, span(attention.heads for attention in self.attentions)
        sizes = {"Query": self.config.head_size, "Key": self.config.head_size, "Value": self.config.value_size}
        labels = []
        for number, (title, size) in enumerate(sizes.items()):
            rows = width + self.config.attention_bias
            count = counted(*(rows * attention.sizes[number] for attention in self.attentions))
            turned = " · rotary" if self.config.position_kind == "rotary" and title != "Value" else ""
            details = (f"{width} → {heads} × {size}{turned}", shape(self.batch, self.length, heads, size), count)
            labels.append(Label(title, details, "attention"))
        return labels

    def attention(self) -> tuple[Label, Label, Label, Label, Label]:
        """From scores to the output projection."""
        config, heads = self.config, span(attention.heads for attention in self.attentions)
        values = [attention.sizes[2] for attention in self.attentions]
        square = shape(self.batch, heads, self.length, self.length)
        count = counted(*(parameters(attention.output) for attention in self.attentions))
        product = f"{span(values)} → {config.hidden_size} · {self.hidden()} · {count}"
        local = sum(attention.window is not None for attention in self.attentions)
        seen = f" · ±{config.local_attention // 2} tokens in {number_of(local, 'block')}" if local else ""
        seen += " · causal" if config.is_causal else ""
        return (
            Label(f"Scores: Q Kᵀ / √{config.head_size}", (f"{square}{seen}",), "attention"),
            Label("Softmax over the keys", (square,), "attention"),
            Label("Probabilities × V", (shape(self.batch, self.length, heads, config.value_size),), "attention"),
            Label("Concatenated heads", (shape(self.batch, self.length, span(values)),), "attention"),
            Label("Output projection", (product,), "attention"),
        )

    def feedforward(self) -> tuple[Label, Label, Label]:
        """Into the wide layer, the activation, and back."""
        width, inner = self.config.hidden_size, self.config.intermediate_size
        wide, bias = shape(self.batch, self.length, inner), int(self.config.mlp_bias)
        is_gated = self.config.feedforward_kind == "gated"
        outputs, first = (f"2 × {inner}", 2 * inner) if is_gated else (f"{inner}", inner)
        into = f"{width} → {outputs} · {shape(self.batch, self.length, outputs)} · {counted((width + bias) * first)}"
        out = f"{inner} → {width} · {self.hidden()} · {counted((inner + bias) * width)}"
        name = activation_name(self.config.hidden_act)
        return (
            Label("Feed-forward in", (into,), "feedforward"),
            Label(f"{name} of one half × the other" if is_gated else name, (wide,), "feedforward"),
            Label("Feed-forward out", (out,), "feedforward"),
        )

    def states(self) -> Label:
        """What the encoder returns."""
        return Label("Hidden states", (self.hidden(),))

    def pooler(self) -> Label | None:
        """Between `[CLS]` and the heads that read it."""
        if self.model.pooler is None:
            return None
        config, width = self.config, self.config.hidden_size
        source = "mean" if config.pooler_input == "mean" else "[CLS]"
        norm = " · norm" if config.pooler_norm else ""
        details = (
            f"{source} · {width} → {width} · {activation_name(config.pooler_activation)}{norm}",
            shape(self.batch, width),
            counted(parameters(self.model.pooler)),
        )
        return Label("Pooler", details, "head")

    def readers_of_cls(self) -> list[Label]:
        """Heads on the vector of `[CLS]`."""
        return [label for name, label in self._linear_heads() if name in READS_CLS]

    def readers_of_tokens(self) -> list[list[Label]]:
        """Heads on the vectors of tokens; each is a stack, from below."""
        return [*self._masked_lm(), *([label] for name, label in self._linear_heads() if name not in READS_CLS)]

    def _linear_heads(self) -> list[tuple[str, Label]]:
        names = (
            "next_sentence",
            "classifier",
            "multiple_choice",
            "token_classifier",
            "question_answering",
            "discriminator",
        )
        found = []
        for name in names:
            head = getattr(self.model, name)
            if head is not None:
                width, outputs = self.config.hidden_size, head.linear.out_features
                reads_cls = name in READS_CLS
                before = "[CLS] · " if reads_cls and self.model.pooler is None else ""
                items = (self.batch,) if reads_cls else (self.batch, self.length)
                steps = f"{width} → {width}" if name == "discriminator" else f"{width}"
                details = (f"{before}{steps} → {outputs}", shape(*items, outputs), counted(parameters(head)))
                found.append((name, Label(name.replace("_", " ").capitalize(), details, "head")))
        return found

    def _masked_lm(self) -> list[list[Label]]:
        config, head, vocabulary = self.config, self.model.masked_lm, self.config.vocab_size
        if head is None:
            return []
        stack, width = [], config.hidden_size
        guesses = "Next token" if config.is_causal else "Masked LM"
        if head.dense is not None:
            width = config.embedding_width
            name = activation_name(config.masked_lm_activation or config.hidden_act)
            steps = f"{config.hidden_size} → {width} · {name} · norm"
            count = counted(parameters(head.dense, head.norm))
            stack.append(Label(f"{guesses} transform", (steps, shape(self.selected, width), count), "head"))
        decoder = f"{width} → {vocabulary}"
        decoder += " · tied to token embedding" if head.decoder is None else ""
        count = counted(vocabulary * ((0 if head.decoder is None else width) + config.decoder_bias))
        stack.append(Label(f"{guesses} decoder", (decoder, shape(self.selected, vocabulary), count), "head"))
        return [stack]
