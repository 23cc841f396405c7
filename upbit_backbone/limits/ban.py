"""Ban: a 418 and what follows from it, decided purely.

Upbit blocks the IP and lengthens the block for whoever goes on. So no request is sent until the stated time; then
exactly one goes first, and only its success opens the door for the rest.

Streams are another matter. Connecting is a rate group of its own (docs: rate-limits), a 418 to a REST request does not
say whether it covers that one too, and what is open already goes on flowing. So a line that breaks meanwhile may try to
come back, once a second for the whole process: five times slower than Upbit allows anybody. If the answer is a 418 as
well, the block is the whole IP's, and nobody connects before its end, nor in a later ban of the same series: what not
knowing costs is one handshake.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from ..exchange.status import DEFAULT_BAN_SECONDS

# Upbit says that repeated offences lengthen a block, up to a permanent one; whatever was said, it is asked again after
# a day.
LONGEST_BAN_SECONDS: Final = 86_400.0
FORGOTTEN_AFTER_SECONDS: Final = 3_600.0  # Upbit does not say for how long it remembers
PROBE_SECONDS: Final = 5.0  # a probe nobody reports on counts as passed after this
CAREFUL_SECONDS: Final = 1.0  # between two handshakes in a ban that nobody knows to cover them


@dataclass(frozen=True, slots=True)
class Ban:
    """The present standing of this IP with one host. An immutable value: each happening gives its successor.

    All times are monotonic. `Ban()` is a good standing.
    """

    since: float = float("-inf")
    until: float = float("-inf")
    offences: int = 0
    is_proven_over: bool = True
    probe_since: float | None = None
    covers_connects: bool = False  # a handshake was answered with a 418, too
    connect_at: float = float("-inf")  # when one was tried last in a ban

    def imposed(self, seconds: float | None, sent_at: float, now: float, *, at_connect: bool = False) -> Ban:
        """After a 418 that answered a request (or a handshake) sent at `sent_at`; `seconds` is what Upbit said, if it
        did."""
        is_news_about_connects = at_connect and not self.covers_connects
        if self.remaining(now) and (sent_at < self.since or is_news_about_connects):
            # An answer to what was under way when the ban came, or to the one attempt it allows: the same ban.
            until = max(self.until, now + (seconds or 0.0))
            return replace(self, until=until, covers_connects=self.covers_connects or at_connect)
        # Counted from the end of the last ban: however long it was, what comes soon after it is the same series.
        is_repetition = now - self.until < FORGOTTEN_AFTER_SECONDS
        offences = self.offences + 1 if is_repetition else 1
        default = DEFAULT_BAN_SECONDS * 2 ** (offences - 1)
        length = min(default if seconds is None else max(seconds, 1.0), LONGEST_BAN_SECONDS)
        return Ban(
            since=now,
            # A second, shorter ban does not shorten the first: the longer of two waits is the one that breaks neither.
            until=max(self.until, now + length),
            offences=offences,
            is_proven_over=False,
            covers_connects=at_connect or (is_repetition and self.covers_connects),
            # Kept, so that a new ban does not give lines a handshake sooner than a second after the last.
            connect_at=self.connect_at,
        )

    def remaining(self, now: float) -> float:
        """Seconds during which nothing may be sent; 0.0 when something may."""
        return 0.0 if self.is_proven_over else max(0.0, self.until - now)

    def connect_wait(self, now: float) -> float:
        """Seconds before a line that broke may try a handshake during the ban; 0.0 when it may now."""
        left = self.remaining(now)
        return left if self.covers_connects else min(left, max(0.0, self.connect_at + CAREFUL_SECONDS - now))

    def connecting(self, now: float) -> Ban:
        """A broken line tries a handshake although the ban is not over."""
        return replace(self, connect_at=now)

    def admits(self, now: float) -> bool:
        """Whether one more request may leave now, as far as the ban is concerned."""
        if self.is_proven_over:
            return True
        is_probed = self.probe_since is not None and now - self.probe_since < PROBE_SECONDS
        return not self.remaining(now) and not is_probed

    def sending(self, now: float) -> Ban:
        """A request leaves; the first after a ban is the probe."""
        if self.is_proven_over:
            return self
        if self.probe_since is not None:
            return replace(self, is_proven_over=True, probe_since=None)  # the last probe was never heard of again
        # Until it is heard of nobody else leaves: ten requests that find the block still standing would be ten
        # offences.
        return replace(self, probe_since=now)

    def passed(self, sent_at: float) -> Ban:
        """An answer other than 418 came for a request sent at `sent_at`."""
        # What was sent before the ban ended was answered by somebody who did not know of it yet, or still did: it
        # proves nothing.
        if self.is_proven_over or sent_at < self.until:
            return self
        return replace(self, is_proven_over=True, probe_since=None)

    def withdrawn(self, now: float) -> Ban:
        """The probe was not sent after all, or told nothing: the next request is the probe."""
        return self if self.is_proven_over else replace(self, probe_since=None)
