"""Record what comes in, and play it again: for tests, backtests and reports of strange behaviour.

format ○ lays out the bytes and finds the members over every damage, recording ● keeps the file, recorder ● writes
through a tap, replay ● stands in for the sessions and for REST.
"""

from typing import TYPE_CHECKING

from .. import _lazy

if TYPE_CHECKING:
    from ..models.report import RecorderStats
    from .recorder import Recorder
    from .recording import Recording
    from .replay import ReplayClock, ReplaySource, ReplayTransport
else:  # every backbone has a tap; few record or play
    __getattr__, __dir__ = _lazy.attributes(
        __name__,
        {
            "recorder": ("Recorder", "RecorderStats"),
            "recording": ("Recording",),
            "replay": ("ReplayClock", "ReplaySource", "ReplayTransport"),
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
