"""Record what comes in, and play it again: for tests, backtests and reports of strange behaviour.

format ○ lays out the bytes, members ● walks over them, recording ● keeps the file, recorder ● writes through a tap,
replay ● stands in for the sessions and replay_transport ● for REST.
"""

from typing import TYPE_CHECKING

from .. import _lazy

if TYPE_CHECKING:
    from ..models.report import RecorderStats
    from .recorder import Recorder
    from .recording import Recording
    from .replay import ReplaySource
    from .replay_sessions import ReplayClock
    from .replay_transport import ReplayTransport
else:  # every backbone has a tap; few record or play
    __getattr__, __dir__ = _lazy.attributes(
        __name__,
        {
            "recorder": ("Recorder", "RecorderStats"),
            "recording": ("Recording",),
            "replay": ("ReplaySource",),
            "replay_sessions": ("ReplayClock",),
            "replay_transport": ("ReplayTransport",),
        },
    )

__all__ = [
    "Recorder",
    "RecorderStats",
    "Recording",
    "ReplayClock",
    "ReplaySource",
    "ReplayTransport",
]
