"""A store in PostgreSQL with pgvector, whose nearest neighbours are exact (no index, every vector is compared).

The tables lie in the first schema of the connection's search_path, one folder each. Another schema that exists is named
in the address, before the one that holds pgvector: `postgresql://host/database?options=-csearch_path%3Dnotes,public`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bertsmith.errors import InputError, RunError, import_extra
from bertsmith.search.folder import Seen
from bertsmith.search.passages import Passage
from bertsmith.search.store import Found, Head, Part, StoredFile

log = logging.getLogger("bertsmith")

CONNECT_SECONDS = 10
"""How long a server may take to answer, unless the address says otherwise."""

NAMES = ("head", "passages", "files", "contents")
"""Tables, each with `bertsmith_search_` before it, in the order in which they can be dropped."""

TABLES = """
create table bertsmith_search_head (value text not null);
create table bertsmith_search_contents (id bigserial primary key, key text not null unique, complete boolean not null,
  problem text);
create table bertsmith_search_files (path text primary key, size bigint not null, mtime_ns bigint not null,
  content bigint not null references bertsmith_search_contents);
create index on bertsmith_search_files (content);
create table bertsmith_search_passages (content bigint not null references bertsmith_search_contents,
  number integer not null, first integer not null, last integer not null, text text not null,
  embedding vector(%d) not null, primary key (content, number));
"""

UNUSED = "not exists (select 1 from bertsmith_search_files f where f.content = bertsmith_search_contents.id)"

LOCK = "hashtext('bertsmith search'), hashtext(current_schema())"
"""Key of the advisory lock that whoever writes holds; the server lets go of it when the process ends."""


class PostgresStore:
    """`Store` in the database that `address` names. Raises `InputError` if there is no server, pgvector or right."""

    own_files: tuple[Path, ...] = ()

    def __init__(self, address: str) -> None:
        self._psycopg = import_extra("psycopg", extra="search", field="--store")
        pgvector = import_extra("pgvector.psycopg", extra="search", field="--store")
        self.name = self._shown(address)
        conninfo = self._psycopg.conninfo
        with self._translated():
            given = conninfo.conninfo_to_dict(address)
            given.setdefault("connect_timeout", CONNECT_SECONDS)
            self._connection = self._psycopg.connect(conninfo.make_conninfo(**given), autocommit=True)
        try:
            if not self._rows("select 1 from pg_extension where extname = 'vector'"):
                self._connection.execute("create extension if not exists vector")
            pgvector.register_vector(self._connection)
        except self._psycopg.Error as error:
            self.close()
            fix = "install it on the server, and let its owner run `create extension vector` in the database"
            raise InputError(f"pgvector cannot be used ({_line(error)}); {fix}", file=self.name) from None

    def _shown(self, address: str) -> str:
        """The address without what may be a password: `postgresql://host:5432/notes`."""
        try:
            given = self._psycopg.conninfo.conninfo_to_dict(address)
        except self._psycopg.ProgrammingError:
            raise InputError("not an address that PostgreSQL understands", field="--store") from None
        port = f":{given['port']}" if "port" in given else ""
        return f"postgresql://{given.get('host', '')}{port}/{given.get('dbname', '')}"

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Errors of the driver as ours."""
        psycopg = self._psycopg
        try:
            yield
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
            reason = f"the store is damaged ({_line(error)}); --overwrite builds it again"
            raise InputError(reason, file=self.name) from None
        except psycopg.errors.InsufficientPrivilege as error:
            reason = f"{_line(error)}; give an address whose user may make tables"
            raise InputError(reason, file=self.name) from None
        except psycopg.OperationalError as error:
            if hasattr(self, "_connection"):
                raise RunError(f"{self.name}: {_line(error)}") from None
            raise InputError(f"cannot be reached: {_line(error)}", file=self.name, field="--store") from None
        except psycopg.Error as error:
            raise RunError(f"{self.name}: {_line(error)}") from None

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        return list(self._connection.execute(sql, values or None).fetchall())

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        with self._translated(), self._connection.transaction(), self._connection.cursor() as cursor:
            yield cursor

    def head(self) -> Head | None:
        """See `Store`."""
        with self._translated():
            if not self._rows("select 1 where to_regclass('bertsmith_search_head') is not null"):
                return None
            values = self._rows("select value from bertsmith_search_head")
        if len(values) != 1:
            raise InputError("the store is damaged; --overwrite builds it again", file=self.name)
        return Head.from_json(values[0][0], store=self.name)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """See `Store`."""
        with self._translated():
            if self._rows(f"select pg_try_advisory_lock({LOCK})") != [(True,)]:
                log.info("another process is writing %s: waiting for it", self.name)
                self._rows(f"select pg_advisory_lock({LOCK})")
        try:
            yield
        finally:
            if not self._connection.broken:
                self._rows(f"select pg_advisory_unlock({LOCK})")

    def create(self, head: Head) -> None:
        """See `Store`."""
        with self._transaction() as cursor:
            for name in NAMES:
                cursor.execute(f"drop table if exists bertsmith_search_{name}")
            cursor.execute(TABLES % head.size)
            cursor.execute("insert into bertsmith_search_head values (%s)", (head.to_json(),))

    def set_head(self, head: Head) -> None:
        """See `Store`."""
        with self._transaction() as cursor:
            cursor.execute("update bertsmith_search_head set value = %s", (head.to_json(),))

    def files(self) -> dict[str, StoredFile]:
        """See `Store`."""
        with self._translated():
            rows = self._rows(
                "select path, size, mtime_ns, key, problem from bertsmith_search_files "
                "join bertsmith_search_contents c on c.id = content"
            )
        return {path: StoredFile(Seen(path, size, age), key, problem) for path, size, age, key, problem in rows}

    def contents(self) -> dict[str, tuple[bool, int]]:
        """See `Store`."""
        with self._translated():
            rows = self._rows(
                "select key, complete, count(p.number) from bertsmith_search_contents c "
                "left join bertsmith_search_passages p on p.content = c.id group by c.id"
            )
        return {key: (complete, count) for key, complete, count in rows}

    def write(self, parts: Sequence[Part]) -> None:
        """See `Store`."""
        with self._transaction() as cursor:
            for part in parts:
                ((content,),) = cursor.execute(
                    "insert into bertsmith_search_contents (key, complete) values (%s, false) "
                    "on conflict (key) do update set key = excluded.key returning id",
                    (part.key,),
                ).fetchall()
                if part.problem is not None:
                    cursor.execute("delete from bertsmith_search_passages where content = %s", (content,))
                    changed = (part.problem, content)
                    cursor.execute("update bertsmith_search_contents set problem = %s where id = %s", changed)
                cursor.executemany(
                    "insert into bertsmith_search_passages values (%s, %s, %s, %s, %s, %s)",
                    [
                        (content, number, passage.first, passage.last, passage.text, vector)
                        for number, (passage, vector) in enumerate(
                            zip(part.passages, part.vectors, strict=True), part.start
                        )
                    ],
                )
                if part.files is not None:
                    cursor.execute("update bertsmith_search_contents set complete = true where id = %s", (content,))
                    self._place(cursor, dict.fromkeys(part.files, part.key))

    def place(self, files: Mapping[Seen, str]) -> None:
        """See `Store`."""
        with self._transaction() as cursor:
            self._place(cursor, files)

    @staticmethod
    def _place(cursor: Any, files: Mapping[Seen, str]) -> None:
        cursor.executemany(
            "insert into bertsmith_search_files values (%s, %s, %s, "
            "(select id from bertsmith_search_contents where key = %s)) on conflict (path) do update set "
            "size = excluded.size, mtime_ns = excluded.mtime_ns, content = excluded.content",
            [(seen.path, seen.size, seen.mtime_ns, key) for seen, key in files.items()],
        )

    def remove(self, paths: Sequence[str]) -> None:
        """See `Store`."""
        with self._transaction() as cursor:
            cursor.execute("delete from bertsmith_search_files where path = any(%s)", (list(paths),))

    def has_unused(self) -> bool:
        """See `Store`."""
        with self._translated():
            return bool(self._rows(f"select 1 from bertsmith_search_contents where {UNUSED} limit 1"))

    def sweep(self) -> None:
        """See `Store`."""
        with self._transaction() as cursor:
            unused = f"select id from bertsmith_search_contents where {UNUSED}"
            cursor.execute(f"delete from bertsmith_search_passages where content in ({unused})")
            cursor.execute(f"delete from bertsmith_search_contents where {UNUSED}")

    def passages(self) -> int:
        """See `Store`."""
        with self._translated():
            ((count,),) = self._rows("select count(*) from bertsmith_search_passages")
        return int(count)

    def nearest(self, vector: np.ndarray, count: int) -> list[Found]:
        """See `Store`."""
        with self._translated():
            rows = self._rows(
                "select number, first, last, text, embedding, "
                "array(select path from bertsmith_search_files f where f.content = p.content order by path) "
                "from bertsmith_search_passages p where content in (select content from bertsmith_search_files) "
                "order by embedding <=> %s limit %s",
                (vector.astype(np.float32), count),
            )
        return [
            Found(tuple(paths), number, Passage(first, last, text), embedding.to_numpy())
            for number, first, last, text, embedding, paths in rows
        ]

    def close(self) -> None:
        """See `Store`."""
        self._connection.close()


def _line(error: Exception) -> str:
    """The first line of what the driver says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
