"""An order book that stays in its bytes until somebody reads it.

Busy books arrive ten times a second and most of them are overtaken before anyone looks, so decoding them on arrival
would be work for nobody. Whoever holds a `LazyBook` calls `read()`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import cast

from .market import CandleData, OrderbookData, TickerData, TradeData
from .request import Topic


class _Unread:
    def __repr__(self) -> str:
        return "unread"


UNREAD = _Unread()


class LazyBook:
    """One undecoded frame: what its header tells, and how to open it.

    `open_book` must call `settle`, and see to it that two readers at once are no harm. A broken payload reads as
    None, always.
    """

    __slots__ = ("_book", "_open", "level", "raw", "received_at", "session", "symbol", "timestamp")

    def __init__(
        self,
        raw: bytes,
        symbol: str,
        level: Decimal,
        timestamp: datetime,
        received_at: datetime,
        session: str,
        open_book: Callable[[LazyBook], None],
    ) -> None:
        self.raw = raw
        self.symbol = symbol
        self.level = level
        self.timestamp = timestamp
        self.received_at = received_at
        self.session = session
        self._book: OrderbookData | _Unread | None = UNREAD
        self._open = open_book

    def read(self) -> OrderbookData | None:
        """The book, decoded on the first call and remembered; None where the payload is broken. From any thread."""
        # Without a lock: two readers at once are the opener's business, and all later ones pay one comparison.
        if self._book is UNREAD:
            self._open(self)
        return cast("OrderbookData | None", self._book)

    @property
    def is_read(self) -> bool:
        return self._book is not UNREAD

    def settle(self, book: OrderbookData | None) -> None:
        """Remember the outcome and let go of the bytes."""
        self._book = book
        self.raw = b""

    def __repr__(self) -> str:
        state = "unread" if self._book is UNREAD else "broken" if self._book is None else "read"
        return f"<LazyBook {self.symbol} {self.timestamp.isoformat()} {state}>"


Datum = TickerData | TradeData | OrderbookData | CandleData
StoredItem = Datum | LazyBook
# What travels from the intake to the mailboxes: topic, item, monotonic time it was read off the socket.
Envelope = tuple[Topic, StoredItem, float]


def decoded(stored: StoredItem) -> Datum | None:
    """The stored's content; None where it was a book that cannot be read."""
    return stored.read() if type(stored) is LazyBook else cast("Datum", stored)
