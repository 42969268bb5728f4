"""Options of `bertsmith search`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from bertsmith.config.options import Options

SCHEMES = ("postgresql://", "postgres://")
"""How the address of a store in PostgreSQL begins."""


class SearchOptions(Options):
    """Find the passages of a folder's texts that mean what a query says. The first start embeds them all, later ones
    only what changed."""

    dir: Path = Field(json_schema_extra={"positional": True})
    """The folder of texts, sub-folders included: .jsonl .csv .tsv .parquet (column text) and any other file that is
    UTF-8 text, all but .parquet also .gz .xz .zst. Names that begin with a dot are not looked at."""
    query: str = Field(json_schema_extra={"positional": True})
    """What to look for, in words."""
    model: str
    """The embedder: a model directory, or hf:org/name[@revision]."""
    store: str | None = None
    """Where the vectors are kept: a file, or postgresql://user@host/database for pgvector (tables in the first schema
    of its search_path, one folder each); by default DIR/.bertsmith/search.sqlite3."""
    top_k: int = Field(default=10, ge=1, le=1000)
    """Most passages to answer with."""
    reranker: str | None = None
    """A model with one output for a pair of texts, which reads the nearest passages beside the query and orders them
    anew: a directory, or hf:org/name[@revision]."""
    candidates: int = Field(default=50, ge=1, le=1000)
    """How many of the nearest passages a `--reranker` reads; at least `--top-k`."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of the CPU; by default what torch chooses."""
    batch_tokens: int | None = Field(default=None, ge=1)
    """Most tokens computed at a time by one thread; by default what suits the engine."""
    overwrite: bool = False
    """Empty the store first and embed every file again, for example with another model."""

    @field_validator("query")
    @classmethod
    def _says_something(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is empty; say what to look for")
        return value

    @field_validator("store")
    @classmethod
    def _is_file_or_postgresql(cls, value: str | None) -> str | None:
        if value is not None and "://" in value and not value.startswith(SCHEMES):
            raise ValueError("expected a file, or an address that begins with postgresql://")
        return value or None
