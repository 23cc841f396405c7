"""From the bytes of one read to the sink, for what nearly every read brings: messages, and all of them data.

The long way, `Lifecycle.handle` with Received, Deliver and Noticed, leads to the same step by step. It is what the
simulation runs for every other seed, and it costs the session's thread about as much again as decoding a trade does.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..wire.frames import only_messages
from . import inputs as on
from .effects import Effect
from .lifecycle import Lifecycle
from .ports import TakeFrames


def take_in(lifecycle: Lifecycle, take_frames: TakeFrames, data: bytes, now: float) -> Sequence[Effect]:
    """Hand the messages in `data` to the sink (its `frames`); what else there is to do, if anything."""
    events = lifecycle.cut(data, now)
    if not events:
        return ()
    if not only_messages(events):
        return lifecycle.handle(on.Heard(events), now)
    pulse = lifecycle.pulse
    notices = take_frames(pulse, pulse.epoch, events, now)
    if notices:
        return lifecycle.handle(on.Noticed(pulse.epoch, len(events), notices), now)
    return lifecycle.delivered(now)
