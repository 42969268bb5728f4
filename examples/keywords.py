"""Keywords of modules of the standard library, by KeyBERT with an embedder that bertsmith wrote.

An embedder's directory is one of sentence-transformers too; whatever takes a `SentenceTransformer` takes it.

    pip install keybert
    python examples/keywords.py runs/embedder json csv sqlite3 threading
"""

from __future__ import annotations

import importlib
import inspect
import sys

from keybert import KeyBERT
from sentence_transformers import SentenceTransformer


def documentation(module: str) -> str:
    """The docstrings of a module and of what it defines, one after the other."""
    loaded = importlib.import_module(module)
    parts = [loaded, *(part for _, part in inspect.getmembers(loaded) if inspect.getmodule(part) is loaded)]
    return "\n".join(filter(None, (inspect.getdoc(part) for part in parts)))


def main(directory: str, *modules: str) -> None:
    """Print the five keywords of each module with their cosine to its text."""
    model = KeyBERT(SentenceTransformer(directory, device="cpu"))
    for module in modules or ("json", "csv", "sqlite3", "threading"):
        found = model.extract_keywords(documentation(module), keyphrase_ngram_range=(1, 1), top_n=5)
        print(f"{module}: {', '.join(f'{word} {score:.2f}' for word, score in found)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
