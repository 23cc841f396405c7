"""The Qt binding in use, and what the parts here need of it: one import for PySide6, PyQt6, PyQt5 and PySide2."""

from __future__ import annotations

from collections.abc import Callable
from types import BuiltinMethodType, MethodType
from typing import Any, Final
from weakref import WeakMethod, ref

try:
    from qtpy import QtCore as QtCore
    from qtpy import QtGui as QtGui
    from qtpy import QtWidgets as QtWidgets
    from qtpy.compat import isalive
except ImportError as error:  # qtpy raises a subclass where it finds no Qt
    raise ImportError(
        "upbit_backbone.qt needs a Qt binding and qtpy: python -m pip install 'upbit-backbone[qt]' "
        "/ Qt 바인딩과 qtpy가 필요합니다: python -m pip install 'upbit-backbone[qt]'"
    ) from error

QObject, QTimer, Signal, Qt = QtCore.QObject, QtCore.QTimer, QtCore.Signal, QtCore.Qt
QAbstractTableModel, QModelIndex = QtCore.QAbstractTableModel, QtCore.QModelIndex
QSortFilterProxyModel = QtCore.QSortFilterProxyModel
QColor = QtGui.QColor
IS_PYQT5: Final = bool(getattr(QtCore, "PYQT_VERSION_STR", "").startswith("5."))

USUAL_FRAME_MILLISECONDS = 16  # of a screen of 60 Hz, and where there is none
FASTEST_FRAME_MILLISECONDS = 8


def frame_milliseconds() -> int:
    """How long the screen shows one picture; drawing more often is seen by nobody."""
    application = QtGui.QGuiApplication.instance()
    screen = application.primaryScreen() if isinstance(application, QtGui.QGuiApplication) else None
    rate = screen.refreshRate() if screen is not None else 0.0
    return max(FASTEST_FRAME_MILLISECONDS, int(1000 / rate)) if rate > 1 else USUAL_FRAME_MILLISECONDS


_signals: dict[tuple[type, str], Any] = {}  # looked up once: asked for with every frame


def is_connected(source: Any, signal: str) -> bool:
    """Whether anything is connected to the signal of that name."""
    key = (type(source), signal)
    if key not in _signals:
        meta = source.metaObject()
        methods = [meta.method(number) for number in range(meta.methodCount())]
        _signals[key] = next(each for each in methods if bytes(each.name()) == signal.encode() and _is_signal(each))
    return bool(source.isSignalConnected(_signals[key]))


class EventSignal:
    """A signal that may be called `event` with PyQt5, which takes whatever has that name for the method of QObject's
    and calls it with each QEvent. The other bindings tell a signal from a method."""

    def __init__(self, signal: Any, owner: Any) -> None:
        self.connect, self.disconnect, self.emit = signal.connect, signal.disconnect, signal.emit
        self._owner = ref(owner)

    def __call__(self, event: Any) -> bool:
        owner = self._owner()
        return owner is not None and bool(QObject.event(owner, event))


def _is_signal(method: Any) -> bool:
    return bool(method.methodType() == QtCore.QMetaMethod.MethodType.Signal)


class Receiver:
    """A function to be called later, unless what it belongs to is gone by then.

    It belongs to `context`, a QObject, or, as a bound method, to its own; a QObject is gone when Qt has deleted it or
    the last reference to it is lost, as with signals. Anything else is kept alive and called.
    """

    def __init__(self, function: Callable[[Any], object], context: Any = None) -> None:
        bound_to = getattr(function, "__self__", None) if isinstance(function, MethodType | BuiltinMethodType) else None
        owner = context if context is not None else bound_to
        self._owner: Callable[[], Any] | None = ref(owner) if isinstance(owner, QObject) else None
        is_weak = isinstance(function, MethodType) and isinstance(bound_to, QObject)
        self._function: Callable[[], Callable[[Any], object] | None] = (
            WeakMethod(function) if is_weak else lambda: function
        )

    @property
    def is_there(self) -> bool:
        if self._owner is None:
            return True
        owner = self._owner()
        return owner is not None and bool(isalive(owner))

    def __call__(self, value: Any) -> None:
        function = self._function() if self.is_there else None
        if function is not None:
            function(value)
