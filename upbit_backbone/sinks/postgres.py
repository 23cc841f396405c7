"""PostgreSQL (extra `[postgres]`): the tables of `sqlite` in a schema of a database that others use as well.

Numbers are NUMERIC and exact, times `timestamptz`, the levels of a book JSONB. Where TimescaleDB is installed, the
tables of data are hypertables. The schema is version 1 (table `meta`); another version, or what another program made,
is refused and left alone.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from .._file_lock import FileLock
from ..errors import (
    AuthenticationError,
    InvalidRequestError,
    NetworkError,
    ServerError,
    UpbitBackboneError,
    one_line,
)
from ..models.events import GapEvent
from .base import Batch, Hole, Sink, Span
from .columns import TABLE_NAMED, TABLES, Row, Table, from_micros, keyed
from .coverage import Interval, merged
from .ledger import Ledger
from .sqlite import own_version

SCHEMA_VERSION: Final = "1"
SCHEMA: Final = "upbit"
_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
# Without them a server that vanishes without a word (a cable, a firewall) holds a write up for two hours.
_OPTIONS: Final = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
    "application_name": "upbit-backbone",
}
# One writer at a time, of whatever program: two that enter stretches of one topic, or the same rows in another order,
# would lose a stretch or wait for each other for ever. An advisory lock is a number; ours says "UPBT".
_LOCK: Final = 0x55504254
_BEGIN: Final = (
    "SELECT pg_advisory_xact_lock(%s), set_config('search_path', %s, true), set_config('timezone', 'UTC', true)"
)
_BESIDE: Final = """
CREATE INDEX trades_by_time ON trades (symbol, timestamp);
CREATE TABLE coverage (
    symbol text, type text, start timestamptz, "end" timestamptz NOT NULL, PRIMARY KEY (symbol, type, start)
);
CREATE TABLE gaps (
    symbol text, type text, start timestamptz, "end" timestamptz NOT NULL,
    missing_start timestamptz, missing_end timestamptz, recovered bigint NOT NULL, complete boolean NOT NULL,
    late boolean NOT NULL, reason text NOT NULL, told_at timestamptz, filled_at timestamptz,
    PRIMARY KEY (symbol, type, start, told_at)
);
CREATE TABLE meta (key text PRIMARY KEY, value text NOT NULL)
"""
# As in `sqlite`: a corrected candle takes the place of the earlier one, but none that is still forming that of a final
# one; of several books in one millisecond the last counts.
_ON_CONFLICT: Final = {
    "candles": """DO UPDATE SET {all} WHERE excluded.is_closed >= candles.is_closed AND
        (excluded.open_price, excluded.high_price, excluded.low_price, excluded.close_price, excluded.volume,
         excluded.is_closed) IS DISTINCT FROM
        (candles.open_price, candles.high_price, candles.low_price, candles.close_price, candles.volume,
         candles.is_closed)""",
    "orderbooks": """DO UPDATE SET {all} WHERE excluded.received_at >= orderbooks.received_at AND
        (excluded.asks, excluded.bids) IS DISTINCT FROM (orderbooks.asks, orderbooks.bids)""",
}
_READ: Final[dict[str, Callable[[Any], Any]]] = {
    "timestamptz": from_micros,
    "boolean": bool,
}  # from a row of ours to what the driver takes
# Of what fails before there is a session, nothing but words tells why.
_REFUSED: Final = re.compile("password authentication failed")
_SOON_BACK: Final = re.compile(
    "starting up|shutting down|recovery mode|too many (clients|connections)|connection slots"
)
_NO_VOLUME: Final = "-1"  # of a ticker that came without one: a key has no NULL, and no volume is negative


def schema(*, is_timescale: bool = False) -> str:
    """The statements that make an empty store in a schema, as they stand in the documentation."""
    return ";\n".join([*(_create(table, is_timescale) for table in TABLES), _BESIDE.strip()])


def _create(table: Table, is_timescale: bool) -> str:
    columns = ", ".join(
        f"{column.name} {column.postgres}{' NOT NULL' if column.name in table.key else ''}" for column in table.columns
    )
    # A hypertable wants its time in every key. A trade has one time, so that its key tells no more and no less with it.
    key = (*table.key, "timestamp") if is_timescale and "timestamp" not in table.key else table.key
    return f"CREATE TABLE {table.name} ({columns}, PRIMARY KEY ({', '.join(key)}))"


def _insert(table: Table) -> bytes:
    names = ", ".join(table.names)
    cells = ", ".join(f"%s::{column.postgres}[]" for column in table.columns)
    everything = ", ".join(f"{name} = excluded.{name}" for name in table.names if name not in table.key)
    action = _ON_CONFLICT.get(table.name, "DO NOTHING").format(all=everything)
    # Trades say nothing of their key, which is another where there is Timescale.
    target = "" if table.name == "trades" else f"({', '.join(table.key)})"
    return f"INSERT INTO {table.name} ({names}) SELECT * FROM unnest({cells}) ON CONFLICT {target} {action}".encode()  # noqa: S608


_INSERTS: Final = {table.name: _insert(table) for table in TABLES}


class PostgresSink(Sink):
    """Keeps everything in one schema of a PostgreSQL database (12 or newer), which is made where there is none.

    `dsn` is what libpq takes: `postgresql://USER@HOST:PORT/DATABASE` or `host=… dbname=…`; what it leaves out comes
    from PGPASSWORD and the other variables of libpq, and `~/.pgpass`. What is in the schema already is continued, and
    what was missed since then is fetched as far as Upbit still has it. Several recorders may write into one schema, the
    same markets, too: nothing is there twice. A batch is one transaction: a crash at any moment loses what was not
    yet written, and never a part of a batch.

    While the server is away, batches wait as with every sink. `spill` is a file for them which the next recording
    takes over; without it, what still waits when the recording ends is lost, and counted.

    `open` raises NetworkError where the server cannot be reached, AuthenticationError where it refuses the user or
    password, InvalidRequestError for a `dsn` that is none, a database that cannot be used, or a schema that holds what
    this version did not make; FileInUseError while another recorder has the `spill` file. The password is in no log,
    repr or error.
    """

    def __init__(self, dsn: str, *, schema: str = SCHEMA, spill: str | Path | None = None) -> None:
        self._options: dict[str, Any] = {**_OPTIONS, **_parsed(dsn)}
        if not isinstance(schema, str) or not _NAME.fullmatch(schema):
            raise InvalidRequestError(
                f"schema={schema!r}: expected up to 63 small letters, digits and _, and no digit at the beginning"
            )
        self.schema = schema
        self.spill_path = None if spill is None else Path(spill)
        self.place = _place(self._options)
        self._lock: FileLock | None = None
        self._connection: psycopg.Connection[Any] | None = None
        self._is_open = False

    @property
    def name(self) -> str:
        return f"postgres:{self._options.get('dbname') or self.schema}"

    def open(self) -> None:
        """See the class."""
        if self.spill_path is not None:
            self._lock = FileLock(self.spill_path, "recording")
        try:
            self._is_open = True
            with self._transaction():
                pass
        except BaseException:
            self.close()
            raise

    def write(self, batch: Batch) -> int:
        """All of a batch in one transaction; how many of its items were not there before."""
        news = 0
        rows = batch.rows()
        with self._transaction() as connection:
            for name, found in rows.items():
                due, superseded = keyed(TABLE_NAMED[name], found)
                news += superseded
                news += connection.execute(_INSERTS[name], _columns(TABLE_NAMED[name], due)).rowcount
            _cover(connection, batch.spans)
        return news

    def gap(self, event: GapEvent) -> None:
        """One row in `gaps`."""
        with self._transaction() as connection:
            _ledger_of(connection).tell(event)

    def holes(self) -> list[Hole]:
        """Between what is complete, and from the end of the last stretch on."""
        with self._transaction() as connection:
            return _ledger_of(connection).holes()

    def close(self) -> None:
        """Let go of the server."""
        self._is_open = False
        self._let_go()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection[Any]]:
        """All of what is done within, kept by the server when it is over; or nothing of it."""
        if not self._is_open:
            raise InvalidRequestError(f"{self.place} is not open: hand the sink to market.record_to(…)")
        try:
            connection = self._connected()
            with connection.transaction():
                connection.execute(_BEGIN, (_LOCK, self.schema))
                yield connection
        except psycopg.Error as theirs:
            # Whatever it was, the next attempt begins with a new connection: what the old one still knows is unsure.
            self._let_go()
            raise self._as_ours(theirs) from theirs

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None:
            # No statement is prepared: behind a pool that hands out connections for a transaction they are not there.
            connection = psycopg.connect(**self._options, autocommit=True, prepare_threshold=None)
            try:
                # Each time: the server that comes back may be another one, or empty.
                with connection.transaction():
                    self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _prepare(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute(_BEGIN, (_LOCK, self.schema))
        known = connection.execute("SELECT oid FROM pg_namespace WHERE nspname = %s", (self.schema,)).fetchone()
        if known is None:  # not IF NOT EXISTS, which asks for the right to make one in any case
            connection.execute(f'CREATE SCHEMA "{self.schema}"'.encode())
        there = {} if known is None else _tables(connection, known[0])
        if there:
            self._check(connection, there)
        else:
            self._create_all(connection)

    def _check(self, connection: psycopg.Connection[Any], there: Iterable[str]) -> None:
        """InvalidRequestError, in words, where the schema is not what this version makes."""
        found = None
        if "meta" in there and "coverage" in there:
            found = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
        if found is None:
            raise InvalidRequestError(
                f"{self.place} has tables of another program in schema {self.schema}, which were left alone; "
                "choose another schema"
            )
        if found[0] != SCHEMA_VERSION:
            raise InvalidRequestError(
                f"{self.place} has schema version {one_line(found[0])} in {self.schema}, and this version of "
                f"upbit-backbone writes {SCHEMA_VERSION}: record into another schema, or update upbit-backbone"
            )

    def _create_all(self, connection: psycopg.Connection[Any]) -> None:
        timescale = connection.execute(
            "SELECT n.nspname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace "
            "WHERE p.proname = 'create_hypertable' LIMIT 1"
        ).fetchone()
        for statement in schema(is_timescale=timescale is not None).split(";"):
            connection.execute(statement.encode())
        if timescale is not None:
            for table in TABLES:
                make = f"SELECT \"{timescale[0]}\".create_hypertable(%s::regclass, 'timestamp', {_CHUNKS})"
                connection.execute(make.encode(), (table.name,))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        about = {"schema_version": SCHEMA_VERSION, "made_by": f"upbit-backbone {own_version()}", "made_at": now}
        for pair in about.items():
            connection.execute("INSERT INTO meta VALUES (%s, %s)", pair)

    def _as_ours(self, theirs: psycopg.Error) -> UpbitBackboneError:
        words, pgconn = one_line(theirs), theirs.pgconn
        if isinstance(theirs, psycopg.errors.InvalidAuthorizationSpecification):
            return AuthenticationError(f"{self.place} refuses the user or password")
        if pgconn is not None and (pgconn.needs_password or _REFUSED.search(words)):
            return AuthenticationError(f"{self.place} refuses the user or password")
        # What fails before there is a session has no code: "no such database" is told apart by its severity alone.
        is_fatal = "FATAL:" in words and not _SOON_BACK.search(words)
        if isinstance(theirs, psycopg.errors.InsufficientPrivilege) or is_fatal:
            return InvalidRequestError(f"{self.place} cannot be used: {words}")
        if isinstance(theirs, psycopg.OperationalError | psycopg.InterfaceError):
            return NetworkError(f"{self.place} cannot be reached: {words}")
        return ServerError(f"{self.place} answers: {words}")


_CHUNKS: Final = "chunk_time_interval => INTERVAL '1 day'"


def _parsed(dsn: str) -> dict[str, Any]:
    try:
        # Its own words for what is wrong repeat what was given, the password as well.
        return {name: value for name, value in conninfo_to_dict(dsn).items() if value is not None}
    except (psycopg.Error, TypeError, AttributeError):
        raise InvalidRequestError(
            "the address of PostgreSQL cannot be read: expected postgresql://USER@HOST:PORT/DATABASE or host=… dbname=…"
        ) from None


def _place(options: dict[str, Any]) -> str:
    """Where the server is, without who asks."""
    host, port = options.get("host") or options.get("hostaddr") or "localhost", options.get("port")
    where = f"{host}:{port}" if port else host
    return f"PostgreSQL at {where}/{options.get('dbname', '')}".removesuffix("/")


def _tables(connection: psycopg.Connection[Any], namespace: int) -> set[str]:
    kinds = "SELECT relname FROM pg_class WHERE relnamespace = %s AND relkind IN ('r', 'p', 'v', 'm', 'f')"
    return {name for (name,) in connection.execute(kinds, (namespace,)).fetchall()}


def _columns(table: Table, rows: Iterable[Row]) -> list[list[Any]]:
    """Each column of these rows as one array: a statement for all rows, whatever the way to the server takes."""
    found = []
    for column, cells in zip(table.columns, zip(*rows, strict=True), strict=True):
        read = _READ.get(column.postgres)
        if read is not None:
            found.append([None if cell is None else read(cell) for cell in cells])
        elif column.name == "volume_today":
            found.append([cell or _NO_VOLUME for cell in cells])
        else:
            found.append(list(cells))
    return found


def _ledger_of(connection: psycopg.Connection[Any]) -> Ledger:
    def execute(statement: str, values: Sequence[Any]) -> psycopg.Cursor[Any]:
        return connection.execute(statement.replace("?", "%s").encode(), values)

    return Ledger(execute, lambda moment: moment, lambda moment: moment.astimezone(UTC))


def _cover(connection: psycopg.Connection[Any], spans: Sequence[Span]) -> None:
    """As `Ledger.cover`, of all topics by three statements: a full market has some hundred, each some way off."""
    if not spans:
        return
    new: dict[tuple[str, str], list[Interval]] = {}
    for span in spans:
        new.setdefault((span.symbol, span.type), []).append(Interval(span.start, span.end))
    asked = [
        (*topic, min(each.start for each in found), max(each.end for each in found)) for topic, found in new.items()
    ]
    known: dict[tuple[str, str], list[Interval]] = {}
    for symbol, kind, start, end in connection.execute(_TOUCHING, _transposed(asked)).fetchall():
        known.setdefault((symbol, kind), []).append(Interval(start, end))
    gone, come = [], []
    for topic, found in new.items():
        before = known.get(topic, [])
        after = merged([*before, *found])
        gone += [(*topic, each.start) for each in before if each not in after]
        come += [(*topic, *each) for each in after if each not in before]
    if gone:
        connection.execute(_DELETE, _transposed(gone))
    if come:
        connection.execute(_COME, _transposed(come))
    ledger = _ledger_of(connection)
    for span in spans:
        ledger.filled(span)


def _transposed(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


_GIVEN: Final = "unnest(%s::text[], %s::text[], %s::timestamptz[], %s::timestamptz[])"
_TOUCHING: Final = (
    f'SELECT c.symbol, c.type, c.start, c."end" FROM coverage c JOIN {_GIVEN} AS new (symbol, type, start, "end") '  # noqa: S608
    'ON c.symbol = new.symbol AND c.type = new.type AND c.start <= new."end" AND c."end" >= new.start'
).encode()
_DELETE: Final = (
    b"DELETE FROM coverage c USING unnest(%s::text[], %s::text[], %s::timestamptz[]) AS old (symbol, type, start) "
    b"WHERE c.symbol = old.symbol AND c.type = old.type AND c.start = old.start"
)
_COME: Final = f"INSERT INTO coverage SELECT * FROM {_GIVEN}".encode()  # noqa: S608
