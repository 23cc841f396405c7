"""What outlives a single connection: passed from one line of a session to the next."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..config import BackboneConfig
from ..models.events import Event
from ..models.pulse import Pulse
from ..resilience.backoff import Random
from .effects import Effect, Emit
from .first_frames import FirstFrames
from .mute_topics import MuteTopics
from .record import Record
from .recovery import Recovery
from .silence import SilenceWatch
from .subscription_plan import SubscriptionPlan


@dataclass(frozen=True, slots=True)
class Shared:
    """One session's belongings. `effects` collects, in order, what the present input leads to."""

    config: BackboneConfig
    random: Random
    pulse: Pulse
    record: Record
    plan: SubscriptionPlan
    recovery: Recovery
    silence: SilenceWatch
    mute_topics: MuteTopics
    first_frames: FirstFrames
    effects: list[Effect] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        self.effects.append(Emit(event))
