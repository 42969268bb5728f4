"""Options of `bertsmith prepare`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from bertsmith.config.options import Options


class PrepareOptions(Options):
    """Turn text into token shards."""

    files: tuple[Path, ...] = Field(min_length=1, json_schema_extra={"positional": True})
    """Text files (.txt .jsonl .csv .tsv .parquet, also .gz .xz .zst); blank lines part the documents of a .txt."""
    tokenizer: Path
    """Tokenizer directory, as written by `bertsmith tokenizer`."""
    out: Path
    """Directory to write."""
    heldout: float = Field(default=0.05, ge=0, lt=1)
    """Share of the documents kept apart for evaluation."""
    seed: int = Field(default=0, ge=0)
    """Chooses the held-out documents."""
    columns: str | None = None
    """Column with the text: `text=body` for a file with a header; `label,text` if there is none."""
    pairs: bool = False
    """Files hold `A<TAB>B` pairs, one a line, without header: B follows A."""
    shard_tokens: int = Field(default=16_000_000, ge=1)
    """Most tokens of a shard file (a document is never split)."""
    overwrite: bool = False
    """Replace an existing output once the new one is complete."""
