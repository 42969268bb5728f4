"""`bertsmith search`: from a folder and a query to the passages that mean it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from bertsmith.config.search import SCHEMES, SearchOptions
from bertsmith.errors import InputError, RunError, listing, printable
from bertsmith.search.folder import Listing, check_folder, list_folder
from bertsmith.search.index import Update, is_current, update
from bertsmith.search.model import SearchModel
from bertsmith.search.sqlite import SqliteStore
from bertsmith.search.store import Head, Store, StoredFile, cosine
from bertsmith.tokenizer.words import surrogate_message

log = logging.getLogger("bertsmith")

DEFAULT = Path(".bertsmith") / "search.sqlite3"
"""Where the store of a folder lies in it; hidden, so that it is not searched itself."""


def search(options: SearchOptions) -> dict[str, Any]:
    """The passages nearest to `options.query` by the cosine of their vectors, and what had to be embedded for it.

    `{"hits": [{"file", "lines": [first, last], "score", "passage"}], "index": {…}}`, the best first; in a table,
    `lines` is where the row starts, twice. Files with equal bytes are one, the others stand under `"copies"`. With
    `options.reranker` hits also have its `"rerank_score"`, and are in the order of that.

    Raises `InputError`: no such folder or model, no text in the folder, a store of another folder or model, a damaged
    or unreachable one, an extra that is not installed, a model that is no reranker.
    """
    started = perf_counter()
    check_folder(options.dir)
    message = surrogate_message(options.query)
    if message is not None:
        raise InputError(message, field="QUERY")
    reranker: Any = None
    if options.reranker is not None:
        from bertsmith.search.rerank import load_reranker

        reranker = load_reranker(options.reranker, options)
    with closing(open_store(options)) as store:
        seen = _listed(store, options)
        model = SearchModel(options)
        head = _checked_head(store, options, model=model)
        vector = model.query_vector(head)  # first of all: a query may be too long
        if not np.isfinite(vector).all():
            raise RunError(f"{options.model} gives values that are no numbers; the training of it diverged")
        seen, stored, done = bring_up_to_date(store, head, seen, options, model=model)
        figures = _figures(store, seen, stored, done, folder=options.dir)
        hits = _hits(store, vector, options, reranker=reranker)
    figures["seconds"] = perf_counter() - started
    return {"hits": hits[: options.top_k], "index": figures}


def open_store(options: SearchOptions) -> Store:
    """The store of `--store`, or the folder's own."""
    if options.store is not None and options.store.startswith(SCHEMES):
        from bertsmith.search.postgres import PostgresStore

        return PostgresStore(options.store)
    return SqliteStore(options.dir / DEFAULT if options.store is None else Path(options.store))


def bring_up_to_date(
    store: Store, head: Head | None, seen: Listing, options: SearchOptions, *, model: SearchModel
) -> tuple[Listing, dict[str, StoredFile], Update]:
    """The folder's files, the store's, and what was done. Whoever finds nothing to do does not wait for one who writes;
    whoever waited lists the folder again."""
    if head is not None and model.is_known_to(head):
        stored = store.files()
        if is_current(seen, stored) and not store.has_unused():
            return seen, stored, Update()
    with store.writing():
        seen = _listed(store, options)  # another process may have put into the store what is new since
        head = _checked_head(store, options, model=model)  # or have made it
        if head is None:
            head = model.head(_folder(options))
            _hide(options)
            store.create(head)
        elif not model.is_known_to(head):
            head = model.head(_folder(options))
            store.set_head(head)
        done = update(store, options.dir, seen, model=model)
        return seen, store.files(), done


def _listed(store: Store, options: SearchOptions) -> Listing:
    """Raises `InputError` for a folder without files."""
    seen = list_folder(options.dir, without=store.own_files)
    if not seen.files:
        hidden = f", only {seen.hidden} hidden" if seen.hidden else ""
        raise InputError(f"holds no files to search{hidden}; give a folder with texts", file=options.dir)
    return seen


def _checked_head(store: Store, options: SearchOptions, *, model: SearchModel) -> Head | None:
    """The store's head; None if there is none, or it shall be built again. Raises `InputError` for a store of another
    folder or model."""
    try:
        head = store.head()
    except InputError:
        if options.overwrite:
            return None
        raise
    if head is None or options.overwrite:
        return None
    if options.store is not None and head.folder != _folder(options):
        raise InputError(
            f"the store is of the folder {head.folder}; name another place with --store, or give --overwrite",
            file=store.name,
        )
    if not model.is_known_to(head) and model.loaded.fingerprint != head.fingerprint:
        raise InputError(
            f"the store was made by {head.model} (fingerprint {head.fingerprint[:12]}), --model is {model.name} "
            f"({model.loaded.fingerprint[:12]}); give that model, --overwrite to embed again, or another --store",
            file=store.name,
        )
    return head


def _folder(options: SearchOptions) -> str:
    return str(options.dir.resolve())


def _hide(options: SearchOptions) -> None:
    """Tell git to leave the default store alone."""
    if options.store is None:
        (options.dir / DEFAULT).with_name(".gitignore").write_text("*\n", encoding="utf-8")


def _figures(
    store: Store, seen: Listing, stored: Mapping[str, StoredFile], done: Update, *, folder: Path
) -> dict[str, Any]:
    """What the store holds and what was done for it, also in the log. Raises `InputError` if it holds nothing."""
    problems = {path: file.problem for path, file in stored.items() if file.problem is not None}
    left_out = dict(sorted((problems | seen.odd | done.odd).items()))
    named = listing(f"{printable(path)} ({reason})" for path, reason in left_out.items())
    passages = store.passages()
    total = len(seen.files) + len(seen.odd)
    if not passages:
        raise InputError(f"none of its {total} files can be searched: {named}", file=folder)
    if left_out:
        log.warning("%d of %d files are left out: %s", len(left_out), total, named)
    if done.embedded or done.removed:
        log.info("embedded %d files (%d passages), %d left the store", done.embedded, done.passages, done.removed)
    counts = {"files": total - len(left_out), "passages": passages, "hidden": seen.hidden}
    work = {"embedded": done.embedded, "embedded_passages": done.passages, "removed": done.removed}
    return counts | work | {"left_out": left_out}


def _hits(store: Store, vector: np.ndarray, options: SearchOptions, *, reranker: Any) -> list[dict[str, Any]]:
    count = options.top_k if reranker is None else max(options.top_k, options.candidates)
    found = store.nearest(vector, count)
    if not found:
        raise RunError(f"{store.name}: another process has emptied the store since; try again")
    scores = cosine(vector, np.stack([near.vector for near in found]))
    if not np.isfinite(scores).all():
        raise InputError("a vector in it holds no numbers; --overwrite builds it again", file=store.name)
    hits = []
    for near, score in zip(found, scores, strict=True):
        hit = asdict(near.passage)
        file, *copies = (str(options.dir / path) for path in near.files)
        hits.append(
            {"file": file, "lines": [hit["first"], hit["last"]], "score": float(score), "passage": hit["text"]}
            | ({"copies": copies} if copies else {})
        )
    if reranker is not None:
        from bertsmith.search.rerank import rerank_scores

        for hit, logit in zip(hits, rerank_scores(reranker, options, found), strict=True):
            hit["rerank_score"] = float(logit)
    places = {id(hit): near.number for hit, near in zip(hits, found, strict=True)}
    by = "score" if reranker is None else "rerank_score"
    return sorted(hits, key=lambda hit: (-hit[by], hit["file"], places[id(hit)]))
