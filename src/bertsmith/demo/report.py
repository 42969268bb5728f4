"""The report card of the demo, as Markdown: for the screen and for `report.md`."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def to_markdown(report: dict[str, Any], out: Path) -> str:
    """The figures of `report.json` in tables, and the commands to try next."""
    corpus, pretrain, scores = report["corpus"], report["pretrain"], report["classifier"]
    train = report["shards"]["train"]
    lines = [
        "# Report card",
        "",
        f"Text: {corpus['documents']:,} documents, {corpus['words']:,} words of this Python's own documentation; "
        f"{train['tokens']:,} tokens to train on. Vocabulary: {report['tokenizer']['vocab_size']:,} pieces, "
        f"{report['tokenizer']['pieces_per_word']:.2f} per word.",
        "",
        *_table(
            ("pretraining, held-out documents", "model", "baseline"),
            [
                (
                    "masked-LM loss (nats)",
                    f"{pretrain['heldout_mlm_loss']:.3f}",
                    f"{pretrain['unigram_loss']:.3f} unigram",
                ),
                (
                    "next sentence, accuracy",
                    f"{pretrain['nsp_accuracy']:.3f}",
                    f"{pretrain['nsp_chance']:.3f} chance",
                ),
            ],
        ),
        "",
        f"{pretrain['parameters']:,} parameters, {pretrain['steps']:,} steps, {pretrain['epochs']:.1f} epochs, "
        f"{pretrain['tokens_per_second']:,.0f} real tokens per second = {pretrain['percent_of_peak']:.0f} % of this "
        f"machine's matrix peak ({pretrain['peak_gflops']:,.0f} GFLOP/s).",
        "",
        *_table(
            (f"area of the library, {scores['test_rows']} test paragraphs", "accuracy", "macro F1"),
            [
                ("fine-tuned from the pretrained encoder", *_pair(scores, "")),
                ("fine-tuned from random weights", *_pair(scores, "random_init_")),
                ("TF-IDF + logistic regression", *_pair(scores, "tfidf_")),
                ("majority class", *_pair(scores, "majority_")),
            ],
        ),
        "",
        "Fill-mask on held-out sentences (drawn by the seed):",
        "",
    ]
    for example in report["fill"]:
        guesses = ", ".join(f"{guess['token']} {guess['score']:.2f}" for guess in example["guesses"])
        lines += [f"- {example['text']}", f"  hidden: {example['hidden']}; guessed: {guesses}"]
    seconds = report["seconds"]
    lines += ["", "Seconds: " + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()) + ".", ""]
    return "\n".join([*lines, *_next(out)])


def _next(out: Path) -> list[str]:
    return [
        "Try next:",
        "",
        f'    bertsmith predict {out}/classifier --text "Open a TCP connection and send the request."',
        f'    bertsmith fill {out}/encoder "Return the [MASK] of the list."',
        f"    bertsmith evaluate {out}/classifier --data {out}/data/test.tsv",
        "    bertsmith tokenizer YOUR.txt --out runs/tokenizer",
    ]


def _pair(scores: dict[str, Any], prefix: str) -> tuple[str, str]:
    return f"{scores[prefix + 'accuracy']:.3f}", f"{scores[prefix + 'macro_f1']:.3f}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Markdown, aligned so that it also reads well as plain text."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return [line(head), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)]
