"""SQLite: one file that any program reads, with exact numbers, unique keys, and what is complete written beside it.

`trades`, `candles`, `tickers`, `orderbooks` have the models' fields as columns (see `columns`); `coverage` has the
stretches that are complete, `gaps` what is missing all the same, `meta` who made the file. The schema is version 3
(`PRAGMA user_version`): `trades` is a view of the table `trade_rows`. A file of version 1, where it is a table, is read
and continued as it is, since nobody should wait while millions of rows are moved. One of version 2, which no release
wrote, is read as it is, and made one of version 3 by whoever writes to it. One of another version, or of another
program, is refused and left alone.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from .._file_lock import FileLock
from ..errors import InvalidRequestError, one_line
from ..models.events import GapEvent
from . import trade_rows
from .base import Batch, Hole, Sink
from .columns import TABLE_NAMED, TABLES, Table, from_micros, keyed, to_micros
from .ledger import Ledger

SCHEMA_VERSION: Final = 3
KNOWN_VERSIONS: Final = frozenset({1, 2, SCHEMA_VERSION})
APPLICATION_ID: Final = 0x55504254  # "UPBT"
BUSY_SECONDS: Final = 5.0
# So many wait in the log, 16 MB, before they go into the file, for which the disk is waited for twice more: a page
# that several batches add to goes there once.
CHECKPOINT_PAGES: Final = 4_000
FOLDER_STORE: Final = "store.db"  # its name in a folder of day files
# Rows that are small and whose key is their natural order: without a row id they need one tree instead of two.
_WITHOUT_ROWID: Final = frozenset({"candles"})
_KEPT_BESIDE: Final = """
CREATE TABLE coverage (
    symbol TEXT NOT NULL, type TEXT NOT NULL, start INTEGER NOT NULL, "end" INTEGER NOT NULL,
    PRIMARY KEY (symbol, type, start)
) WITHOUT ROWID;
CREATE TABLE gaps (
    symbol TEXT NOT NULL, type TEXT NOT NULL, start INTEGER NOT NULL, "end" INTEGER NOT NULL,
    missing_start INTEGER, missing_end INTEGER, recovered INTEGER NOT NULL, complete INTEGER NOT NULL,
    late INTEGER NOT NULL, reason TEXT NOT NULL, told_at INTEGER NOT NULL, filled_at INTEGER,
    PRIMARY KEY (symbol, type, start, told_at)
) WITHOUT ROWID;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
# A corrected candle takes the place of the earlier one, but none that is still forming that of a final one.
_ON_CONFLICT: Final = {
    "candles": """DO UPDATE SET {all} WHERE excluded.is_closed >= candles.is_closed AND
        (excluded.open_price, excluded.high_price, excluded.low_price, excluded.close_price, excluded.volume,
         excluded.is_closed) IS NOT
        (candles.open_price, candles.high_price, candles.low_price, candles.close_price, candles.volume,
         candles.is_closed)""",
    # Upbit stamps books in milliseconds: of several in one, the last counts.
    "orderbooks": """DO UPDATE SET {all} WHERE excluded.received_at >= orderbooks.received_at AND
        (excluded.asks, excluded.bids) IS NOT (orderbooks.asks, orderbooks.bids)""",
}


def schema() -> str:
    """The statements that make an empty store, all of them, as they stand in the documentation."""
    others = [_create(table) for table in TABLES if table is not trade_rows.TRADES]
    return ";\n".join([trade_rows.schema(), *others, _KEPT_BESIDE.strip()])


def _create(table: Table) -> str:
    columns = ", ".join(
        f"{column.name} {column.sql}{' NOT NULL' if column.name in table.key else ''}" for column in table.columns
    )
    suffix = " WITHOUT ROWID" if table.name in _WITHOUT_ROWID else ""
    return f"CREATE TABLE {table.name} ({columns}, PRIMARY KEY ({', '.join(table.key)})){suffix}"


def _insert(table: Table) -> str:
    names = ", ".join(table.names)
    places = ", ".join("?" * len(table.names))
    everything = ", ".join(f"{name} = excluded.{name}" for name in table.names if name not in table.key)
    action = _ON_CONFLICT.get(table.name, "DO NOTHING").format(all=everything)
    return f"INSERT INTO {table.name} ({names}) VALUES ({places}) ON CONFLICT ({', '.join(table.key)}) {action}"  # noqa: S608


_INSERTS: Final = {table.name: _insert(table) for table in TABLES}


class SqliteSink(Sink):
    """Keeps everything in one SQLite file (WAL), which other programs may read at the same time.

    An existing store is continued, and what was missed since then is fetched as far as Upbit still has it. `open`
    raises FileInUseError while somebody else records into it, InvalidRequestError for a file that is no store of this
    version, or cannot be written. A batch is one transaction and on the disk when it is over: a crash at any moment
    loses what was not yet written, and never a part of a batch.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.spill_path = self.path.with_name(f"{self.path.name}.spill")
        self._lock: FileLock | None = None
        self._connection: sqlite3.Connection | None = None
        self._has_trade_rows = True

    @property
    def name(self) -> str:
        return f"sqlite:{self.path.name}"

    def open(self) -> None:
        """See the class."""
        self._lock = FileLock(self.path, "recording")
        try:
            with _in_words(self.path):
                self._connection = connect(self.path)
                _prepare(self._connection, self.path)
                self._has_trade_rows = trade_rows.has_trade_rows(self._connection)
        except BaseException:
            self.close()
            raise

    @property
    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise InvalidRequestError(f"{one_line(self.path)} is not open: hand the sink to market.record_to(…)")
        return self._connection

    def write(self, batch: Batch) -> int:
        """All of a batch in one transaction; how many of its items were not there before."""
        connection, news = self._open_connection, 0
        with transaction(connection):
            for name, items in batch.kinds().items():
                news += self._insert(connection, name, items)
            ledger = ledger_of(connection)
            for span in batch.spans:
                ledger.cover(span)
        return news

    def _insert(self, connection: sqlite3.Connection, name: str, items: Sequence[Any]) -> int:
        """How many of these items were not there before."""
        if name == trade_rows.TRADES.name and self._has_trade_rows:
            return trade_rows.insert(items, connection)
        table = TABLE_NAMED[name]
        due, superseded = keyed(table, table.rows(items))
        return connection.executemany(_INSERTS[name], due).rowcount + superseded

    def gap(self, event: GapEvent) -> None:
        """One row in `gaps`."""
        ledger_of(self._open_connection).tell(event)

    def holes(self) -> list[Hole]:
        """Between what is complete, and from the end of the last stretch on."""
        return ledger_of(self._open_connection).holes()

    def close(self) -> None:
        """Let others have the file."""
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                connection.close()
        finally:
            if self._lock is not None:
                self._lock.release()
                self._lock = None


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection without transactions of its own making; sqlite3.Error where there is none to be had."""
    # `open` is called on one thread and everything else on another, never at the same time.
    if read_only:
        where = f"{path.resolve().as_uri()}?mode=ro"
        return sqlite3.connect(where, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS)
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS)


def ledger_of(connection: sqlite3.Connection) -> Ledger:
    """What the store at the other end says is complete."""
    return Ledger(connection.execute, to_micros, from_micros)


@contextlib.contextmanager
def _in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise InvalidRequestError(
            f"{one_line(path)} cannot be used as a store: {one_line(error)}; name another file, or a new one"
        ) from error


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All of what is done within, on the disk when it is over; or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        # A full disk has rolled it back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    is_empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if not is_empty:
        check_schema(connection, path)
    connection.execute("PRAGMA journal_mode = WAL")
    # One wait for the disk a batch is cheap, and without it a power failure may take back what was said to be kept.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    if is_empty:
        _create_all(connection)
    elif _version_of(connection) == 2:
        with transaction(connection):
            trade_rows.convert(connection)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _create_all(connection: sqlite3.Connection) -> None:
    about = {"made_by": f"upbit-backbone {own_version()}", "made_at": datetime.now(UTC).isoformat(timespec="seconds")}
    with transaction(connection):
        for statement in filter(str.strip, schema().split(";")):
            connection.execute(statement)
        connection.executemany("INSERT INTO meta VALUES (?, ?)", about.items())
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _version_of(connection: sqlite3.Connection) -> int:
    version_found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version_found


def check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """InvalidRequestError, in words, where a file is no store of the version that this library writes."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    found = _version_of(connection)
    if application != APPLICATION_ID:
        raise InvalidRequestError(
            f"{one_line(path)} is another program's database, and was left alone; name another file"
        )
    if found not in KNOWN_VERSIONS:
        what_helps = "update upbit-backbone" if found > SCHEMA_VERSION else "record into a new file"
        raise InvalidRequestError(
            f"{one_line(path)} has schema {found}, and this version of upbit-backbone reads and writes "
            f"{SCHEMA_VERSION}: {what_helps}"
        )


def own_version() -> str:
    try:
        return version("upbit-backbone")
    except PackageNotFoundError:
        return "unknown"
