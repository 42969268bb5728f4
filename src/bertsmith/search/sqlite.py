"""A store in one file: SQLite with sqlite-vec, whose nearest neighbours are exact (every vector is compared).

The driver is apsw: it brings an SQLite that loads extensions, which Python's own often may not. The journal is SQLite's
rollback journal, which works on network drives too; a process that is killed leaves what it had committed.
"""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bertsmith.errors import InputError, RunError, import_extra
from bertsmith.files import try_lock
from bertsmith.search.folder import Seen
from bertsmith.search.passages import Passage
from bertsmith.search.store import Found, Head, Part, StoredFile

log = logging.getLogger("bertsmith")

APPLICATION = 0x62657274
"""`application_id` of the file ("bert"), by which a database of something else is told."""

FOREIGN = "an SQLite database of something else; name another place with --store"

BUSY_MILLISECONDS = 60_000
"""How long a transaction waits for another process's."""

BESIDE = ("", "-journal", "-wal", "-shm", ".lock")
"""What stands after the file's name in those of its companions."""

TABLES = """
create table head (value text not null);
create table contents (id integer primary key, key text not null unique, complete integer not null, problem text);
create table files (path text primary key, size integer not null, mtime_ns integer not null,
  content integer not null references contents) without rowid;
create index files_by_content on files (content);
create table passages (id integer primary key, content integer not null references contents, number integer not null,
  first integer not null, last integer not null, text text not null, unique (content, number));
"""

UNUSED = "not exists (select 1 from files where files.content = contents.id)"


class SqliteStore:
    """`Store` in the file `path`, which is made by `create`."""

    def __init__(self, path: Path) -> None:
        """Raises `InputError` if `path` is there and no such store, or if the extra is not installed."""
        self.path = path
        self.name = str(path)
        self._apsw = import_extra("apsw", extra="search", field="--store")
        self._extension = import_extra("sqlite_vec", extra="search", field="--store").loadable_path()
        self._opened: Any = None
        if path.is_dir():
            raise InputError("is a directory; name a file in it", file=path, field="--store")

    @property
    def own_files(self) -> tuple[Path, ...]:
        """See `Store`."""
        whole = self.path.resolve()
        return tuple(whole.with_name(whole.name + suffix) for suffix in BESIDE)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Errors of the driver as ours."""
        apsw = self._apsw
        try:
            yield
        except (apsw.CorruptError, apsw.NotADBError):
            raise self._damaged() from None
        except (apsw.CantOpenError, apsw.PermissionsError, apsw.ReadOnlyError) as error:
            reason = f"cannot be opened or written: {error}; name another place with --store"
            raise InputError(reason, file=self.path) from None
        except (apsw.BusyError, apsw.LockedError):
            raise InputError("another process is busy with the store; try again", file=self.path) from None
        except apsw.ExtensionLoadingError as error:
            raise RunError(f"sqlite-vec cannot be loaded: {error}") from None
        except apsw.SQLError as error:  # sqlite-vec reports in this way that its tables do not fit together
            raise self._damaged(f" ({error})") from None
        except apsw.Error as error:
            raise RunError(f"{self.path}: {error}") from None
        except ValueError:  # a text that is no UTF-8, or a row that others speak of and that is not there
            raise self._damaged() from None

    def _damaged(self, detail: str = "") -> InputError:
        fix = "--overwrite builds it again" if self._is_ours() else "delete it, or name another place with --store"
        return InputError(f"the store is damaged, or no store{detail}; {fix}", file=self.path)

    def _is_ours(self) -> bool:
        """Whether the file's head is that of a store, whatever follows it."""
        with self.path.open("rb") as stream:
            head = stream.read(100)
        return head[:16] == b"SQLite format 3\0" and int.from_bytes(head[68:72], "big") == APPLICATION

    def _connect(self) -> Any:
        if self._opened is None:
            apsw = self._apsw
            connection = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
            self._opened = connection
            connection.set_busy_timeout(BUSY_MILLISECONDS)
            connection.enable_load_extension(True)
            connection.load_extension(self._extension)
        return self._opened

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        return list(self._connect().execute(sql, values))

    @contextmanager
    def _transaction(self, kind: str = "immediate") -> Iterator[Any]:
        with self._translated():
            connection = self._connect()
            connection.execute(f"begin {kind}")
            try:
                yield connection
                connection.execute("commit")
            except BaseException:
                if not connection.get_autocommit():
                    connection.execute("rollback")
                raise

    def head(self) -> Head | None:
        """See `Store`."""
        if not self.path.exists() or not self.path.stat().st_size:
            return None
        with self._translated():
            tables = {name for (name,) in self._rows("select name from sqlite_master where type = 'table'")}
            if not tables:
                return None
            if self._rows("pragma application_id") != [(APPLICATION,)]:
                raise InputError(FOREIGN, file=self.path)
            values = self._rows("select value from head") if "head" in tables else []
        if len(values) != 1:
            raise self._damaged()
        return Head.from_json(values[0][0], store=self.name)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """See `Store`."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            stream = self.path.with_name(self.path.name + ".lock").open("wb")
        except OSError as error:
            reason = f"cannot be made: {error.strerror}; name another place with --store"
            raise InputError(reason, file=self.path) from None
        with stream:
            if not try_lock(stream):
                log.info("another process is writing %s: waiting for it", self.name)
                fcntl.flock(stream, fcntl.LOCK_EX)
            self.close()  # the file may be another one by now
            yield

    def create(self, head: Head) -> None:
        """See `Store`. A file that is there is replaced only if its head says that it is a store."""
        self.close()
        if self.path.exists() and self.path.stat().st_size and self._is_ours():
            for path in self.own_files[:-1]:
                path.unlink(missing_ok=True)
        with self._transaction() as connection:
            if self._rows("select 1 from sqlite_master"):
                raise InputError(FOREIGN, file=self.path)
            connection.execute(f"pragma application_id = {APPLICATION}")
            connection.execute(TABLES)
            connection.execute(
                f"create virtual table vectors using vec0(embedding float[{head.size}] distance_metric=cosine)"
            )
            connection.execute("insert into head values (?)", (head.to_json(),))

    def set_head(self, head: Head) -> None:
        """See `Store`."""
        with self._transaction() as connection:
            connection.execute("update head set value = ?", (head.to_json(),))

    def files(self) -> dict[str, StoredFile]:
        """See `Store`."""
        with self._translated():
            rows = self._rows(
                "select path, size, mtime_ns, key, problem from files join contents on contents.id = content"
            )
        return {path: StoredFile(Seen(path, size, age), key, problem) for path, size, age, key, problem in rows}

    def contents(self) -> dict[str, tuple[bool, int]]:
        """See `Store`."""
        with self._translated():
            rows = self._rows(
                "select key, complete, count(passages.id) from contents "
                "left join passages on passages.content = contents.id group by contents.id"
            )
        return {key: (bool(complete), count) for key, complete, count in rows}

    def write(self, parts: Sequence[Part]) -> None:
        """See `Store`."""
        with self._transaction() as connection:
            for part in parts:
                connection.execute("insert or ignore into contents (key, complete) values (?, 0)", (part.key,))
                ((content,),) = self._rows("select id from contents where key = ?", (part.key,))
                if part.problem is not None:
                    self._empty(connection, "content = ?", (content,))
                    connection.execute("update contents set problem = ? where id = ?", (part.problem, content))
                for number, (passage, vector) in enumerate(zip(part.passages, part.vectors, strict=True), part.start):
                    connection.execute(
                        "insert into passages (content, number, first, last, text) values (?, ?, ?, ?, ?)",
                        (content, number, passage.first, passage.last, passage.text),
                    )
                    connection.execute(
                        "insert into vectors (rowid, embedding) values (?, ?)",
                        (connection.last_insert_rowid(), vector.astype("<f4").tobytes()),
                    )
                if part.files is not None:
                    connection.execute("update contents set complete = 1 where id = ?", (content,))
                    self._place(connection, dict.fromkeys(part.files, part.key))

    def place(self, files: Mapping[Seen, str]) -> None:
        """See `Store`."""
        with self._transaction() as connection:
            self._place(connection, files)

    @staticmethod
    def _place(connection: Any, files: Mapping[Seen, str]) -> None:
        connection.executemany(
            "insert or replace into files values (?, ?, ?, (select id from contents where key = ?))",
            [(seen.path, seen.size, seen.mtime_ns, key) for seen, key in files.items()],
        )

    def remove(self, paths: Sequence[str]) -> None:
        """See `Store`."""
        with self._transaction() as connection:
            connection.executemany("delete from files where path = ?", [(path,) for path in paths])

    def has_unused(self) -> bool:
        """See `Store`."""
        with self._translated():
            return bool(self._rows(f"select 1 from contents where {UNUSED} limit 1"))

    def sweep(self) -> None:
        """See `Store`."""
        with self._transaction() as connection:
            self._empty(connection, f"content in (select id from contents where {UNUSED})")
            connection.execute(f"delete from contents where {UNUSED}")

    def _empty(self, connection: Any, chosen: str, values: Sequence[Any] = ()) -> None:
        """Delete passages and their vectors."""
        passages = self._rows(f"select id from passages where {chosen}", values)
        connection.executemany("delete from vectors where rowid = ?", passages)
        connection.execute(f"delete from passages where {chosen}", values)

    def passages(self) -> int:
        """See `Store`."""
        with self._translated():
            ((count,),) = self._rows("select count(*) from passages")
        return int(count)

    def nearest(self, vector: np.ndarray, count: int) -> list[Found]:
        """See `Store`."""
        found = []
        with self._transaction("deferred"):
            used = ""
            if self._rows(f"select 1 from contents where {UNUSED} limit 1"):  # else all are: no list is needed
                used = "and rowid in (select id from passages where content in (select content from files))"
            near = self._rows(
                f"select rowid from vectors where embedding match ? and k = ? {used}",
                (vector.astype("<f4").tobytes(), count),
            )
            for (number,) in near:
                ((content, place, first, last, text),) = self._rows(
                    "select content, number, first, last, text from passages where id = ?", (number,)
                )
                ((blob,),) = self._rows("select embedding from vectors where rowid = ?", (number,))
                files = self._rows("select path from files where content = ? order by path", (content,))
                paths = tuple(path for (path,) in files)
                found.append(Found(paths, place, Passage(first, last, text), np.frombuffer(blob, "<f4")))
        return found

    def close(self) -> None:
        """See `Store`."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None
