"""Market table: what the table models have in common: titles in two languages, colours, what they follow, and grey."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

from .._language import is_korean
from .binding import QAbstractTableModel, QModelIndex, Qt
from .colours import ColourScheme
from .live import LiveSubscription

L = TypeVar("L", bound=LiveSubscription)

NONE = QModelIndex()

# For each cell that is painted Qt asks for seven roles, every one a call into Python. Those without an answer are told
# apart by their number, before anything is looked up, and what is always the same is made once: flags of an enumeration
# are joined in Python code.
DISPLAY, FOREGROUND, ALIGNMENT, USER, TOOL_TIP = (
    int(role)
    for role in (
        Qt.ItemDataRole.DisplayRole,
        Qt.ItemDataRole.ForegroundRole,
        Qt.ItemDataRole.TextAlignmentRole,
        Qt.ItemDataRole.UserRole,
        Qt.ItemDataRole.ToolTipRole,
    )
)
TO_THE_RIGHT: Final[Any] = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
TO_THE_LEFT: Final[Any] = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter


class MarketTable(QAbstractTableModel):  # type: ignore[misc]  # qtpy carries no types
    """Base of the table models. `titles` are the columns' names, each in English and in Korean; `live` is what is
    followed, or None; `language` is "ko" or "en" (None: the user's). For the GUI thread."""

    def __init__(
        self, titles: Sequence[tuple[str, str]], colours: ColourScheme, language: str | None, parent: Any
    ) -> None:
        super().__init__(parent)
        self._titles = titles
        self.colours = colours
        self._is_korean = is_korean() if language is None else language == "ko"
        self.live: Any = None

    def set_colours(self, colours: ColourScheme) -> None:
        self.colours = colours
        self._repaint()

    def set_language(self, language: str) -> None:
        """Titles, and names where there are any, in "ko" or "en"."""
        self._is_korean = language == "ko"
        self.headerDataChanged.emit(Qt.Orientation.Horizontal, 0, len(self._titles) - 1)

    def set_stale(self, stale: Any) -> None:
        """What is not provably current now; takes what the `stale_changed` of something live tells."""
        raise NotImplementedError

    # Qt's questions

    def rowCount(self, parent: Any = NONE) -> int:  # noqa: N802  # Qt's name
        return 0 if parent.isValid() else self._row_count()

    def columnCount(self, parent: Any = NONE) -> int:  # noqa: N802
        return 0 if parent.isValid() else len(self._titles)

    def headerData(self, section: int, orientation: Any, role: int = Qt.ItemDataRole.DisplayRole) -> Any:  # noqa: N802
        if role != Qt.ItemDataRole.DisplayRole or orientation != Qt.Orientation.Horizontal:
            return None
        return self._titles[section][self._is_korean]

    # Within

    def _row_count(self) -> int:
        raise NotImplementedError

    def _leave(self) -> None:
        """End what was followed until now."""
        if self.live is not None:
            self.live.close()

    def _follow(self, live: L) -> L:
        self.live = live
        live.stale_changed.connect(self.set_stale)
        return live

    def _repaint(self) -> None:
        if count := self._row_count():
            self._tell_rows(0, count - 1)

    def _tell_rows(self, first: int, last: int) -> None:
        self.dataChanged.emit(self.index(first, 0), self.index(last, len(self._titles) - 1))


class OneMarketTable(MarketTable):
    """Base of the tables of a single market: all of it is current, or none of it."""

    is_stale = True

    def set_stale(self, stale: object) -> None:
        """Whether it is not provably current; takes what `stale_changed` of its subscription tells."""
        if self.is_stale is not bool(stale):
            self.is_stale = bool(stale)
            self._repaint()
