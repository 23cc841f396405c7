"""Count file: one count of what was asked of a host, and one ban, for all processes of a user on this machine.

A small file for each host, in a folder of this user's under the temporary one, read and written by the request that
needs it: no daemon, and about ten microseconds a request. Times in it are monotonic, which all processes of one machine
read alike on Linux, macOS and Windows.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

from .._concurrency import Clock, Deadline, Flag
from ..errors import one_line
from ..models.enums import RateGroup
from .ban import LONGEST_BAN_SECONDS, Ban
from .owners import stands_still
from .shared_count import ARRIVED_SECONDS, FREE, LOOK_AGAIN_SECONDS, Claim, Users
from .window import UNDELIVERED_SECONDS

# Held for a few system calls; whoever cannot have it looks again instead of blocking in the kernel, where no deadline
# reaches him.
LOCK_RETRY_SECONDS: Final = 0.002
LOCK_PATIENCE_SECONDS: Final = 0.25
# Held for longer than any scheduler takes a thread away, the lock is that of a process which was stopped (SIGSTOP, a
# debugger): the others go on with a copy of the file.
STUCK_SECONDS: Final = 0.5
SLOW_SECONDS: Final = 0.1  # who took longer looks whether that has happened to him
LOOK_AT_FILE_SECONDS: Final = 1.0  # somebody may have tidied the temporary folder
HELD_SECONDS: Final = 10.0  # a request that nobody settles counts for so long
ORDINARY_SECONDS: Final = 0.25  # one that is settled later makes others look whether its process still runs
LONGEST_HOLD_SECONDS: Final = UNDELIVERED_SECONDS + 10.0  # what ends later was written before the machine started anew
OLD_FILE_SECONDS: Final = 86_400.0

# The file: a header with the ban, then a block for each rate group: its last 429 and its requests, each with the time
# at which it stops to count and, until it is settled, its owner. Zeros everywhere are an empty count, and so is a short
# file. Written and read in place and not mapped into memory: a mapped file that somebody cuts short kills its readers.
MAGIC: Final = b"UPBITLM1"
HEADER: Final = struct.Struct("=8s5d2q")
NO_BAN: Final = HEADER.pack(MAGIC, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)
PAUSE: Final = struct.Struct("=3dq")
PLACE: Final = struct.Struct("=dq")
# Whoever allows himself more in a second than this keeps no limit of Upbit's, and is not counted.
PLACES: Final = 64
BLOCK_BYTES: Final = PAUSE.size + PLACES * PLACE.size
_BLOCKS: Final = {group: HEADER.size + number * BLOCK_BYTES for number, group in enumerate(RateGroup)}
# Behind them since when, and until when, some process sends without knowing of other machines; and what was heard of
# those last: until when that counts, how many bytes it has, and these.
APART: Final = struct.Struct("=2d")
APART_AT: Final = HEADER.size + len(RateGroup) * BLOCK_BYTES
HEARD: Final = struct.Struct("=dq")
HEARD_AT: Final = APART_AT + APART.size
LONGEST_HEARD_BYTES: Final = 100_000
LONGEST_HEARD_SECONDS: Final = 3_600.0

_read_at: Callable[[int, int, int], bytes]
_write_at: Callable[[int, bytes, int], int]
try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    _FAR = 1 << 30  # Windows refuses even to read a locked byte, so the one that is locked lies behind the count

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined, unused-ignore]

    def _seek_and_read(descriptor: int, size: int, offset: int) -> bytes:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, size)

    def _seek_and_write(descriptor: int, data: bytes, offset: int) -> int:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, data)

    _read_at, _write_at = _seek_and_read, _seek_and_write

else:

    def _lock(descriptor: int) -> None:
        # flock and not a lock file: the kernel lets go of it when its owner dies.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    _read_at, _write_at = os.pread, os.pwrite

_BUSY: Final = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK})


class SharedCountFile:
    """Counts requests to `host` together with every other process that does. OSError where the file cannot be had."""

    trouble = None  # it has none of its own: where it cannot be had, it raises

    def __init__(self, host: str, clock: Clock, directory: Path | None = None) -> None:
        self.users = Users()
        self._clock = clock
        self._name = shared_name(host)
        self._directory = directory
        self._lock = threading.Lock()  # guards all below, and the file's lock, which threads of one process share
        self._descriptor = -1
        self._look_at = 0.0
        self._busy_since: float | None = None
        self._has_seen_ban = False

    # --- requests -----------------------------------------------------------------------------------------------

    def take(self, group: RateGroup, limit: int, owner: int) -> Claim:
        """Count one more request of `owner`, where fewer than `limit` count at present. Waits for nobody."""
        if limit > PLACES:
            return FREE
        while True:
            # No context manager: this is on the way of every request, and one costs as much as two system calls.
            with self._lock:
                descriptor = self._open()
                # Without patience: whoever takes waits for his turn anyway, and asks again with an eye on his deadline.
                if not self._has_file_lock(descriptor):
                    return Claim(LOCK_RETRY_SECONDS)
                try:
                    now = self._clock.monotonic()
                    claim = self._take(descriptor, group, limit, owner, now)
                    is_slow = self._clock.monotonic() - now > SLOW_SECONDS
                    if not is_slow or _is_linked(descriptor):
                        return claim
                    # We stood still in here, and the others have a copy in which this does not count.
                    self._look_at = 0.0
                finally:
                    _unlock(descriptor)

    def _take(self, descriptor: int, group: RateGroup, limit: int, owner: int, now: float) -> Claim:
        offset = _BLOCKS[group]
        header, (offended_at, paused_until, paused_until_wall, used), fields = _read_count(descriptor, offset, limit)
        if not header.startswith(MAGIC):
            _begin(descriptor)
            return self._take(descriptor, group, limit, owner, now)
        ban = None if header == NO_BAN else self._read_ban(header, now)
        if ban is not None and self._has_seen_ban:
            if left := ban.remaining(now):
                return Claim(left, ban=ban)
            if not ban.admits(now):
                return Claim(LOOK_AGAIN_SECONDS)  # another process asks first whether it is over
        if paused_until > now and (pause := self._left(paused_until, paused_until_wall, now)):
            return Claim(pause, penalised=offended_at)
        latest = now + LONGEST_HOLD_SECONDS
        ends = [end if now < end <= latest else 0.0 for end in fields[::2]]
        if len(ends) - ends.count(0.0) >= limit:
            self._settle_for_others(descriptor, offset, ends, fields[1::2], now)
            first = min(filter(None, ends)) - now
            return Claim(min(max(LOCK_RETRY_SECONDS, first), LOOK_AGAIN_SECONDS))
        place = ends.index(0.0)
        at = offset + PAUSE.size + place * PLACE.size
        _write_at(descriptor, PLACE.pack(now + HELD_SECONDS, owner), at)
        if place >= used:
            _write_at(descriptor, PAUSE.pack(offended_at, paused_until, paused_until_wall, place + 1), offset)
        if ban is not None and self._has_seen_ban:
            self._write_ban(descriptor, ban.sending(now), now)
        return Claim(0.0, at=at)

    def _settle_for_others(
        self, descriptor: int, offset: int, ends: list[float], owners: tuple[int, ...], now: float
    ) -> None:
        """What belongs to processes that have ended or stand still has arrived by now, or never will unasked."""
        late = now + HELD_SECONDS - ORDINARY_SECONDS
        for place, (end, owner) in enumerate(zip(ends, owners, strict=True)):
            if owner and end and end < late and stands_still(owner):
                settled = PLACE.pack(now + ARRIVED_SECONDS, 0)
                _write_at(descriptor, settled, offset + PAUSE.size + place * PLACE.size)

    def settle(self, group: RateGroup, owner: int, at: int | None, free_at: float | None) -> None:
        """The request of `owner`, which was counted `at`, counts until `free_at`; None: it was never sent."""
        # Without the file's lock: nobody else writes a place that has an owner, but who finds that he stands still.
        with self._lock:
            descriptor = self._open()
            place = self._place_of(descriptor, group, owner, at)
            if place is not None:
                _write_at(descriptor, PLACE.pack(free_at or 0.0, 0), place)
        if free_at is None and self._has_seen_ban:
            self._change_ban(Ban.withdrawn)

    def holds(self, group: RateGroup, owner: int, at: int | None) -> bool:
        """Whether the request of `owner`, not yet settled, still counts."""
        with self._lock:
            descriptor = self._open()
            place = self._place_of(descriptor, group, owner, at)
            end = 0.0 if place is None else PLACE.unpack(_read_at(descriptor, PLACE.size, place))[0]
        return bool(end > self._clock.monotonic())

    def _place_of(self, descriptor: int, group: RateGroup, owner: int, at: int | None) -> int | None:
        if at is not None:
            raw = _read_at(descriptor, PLACE.size, at)
            return at if len(raw) == PLACE.size and PLACE.unpack(raw)[1] == owner else None
        start = _BLOCKS[group] + PAUSE.size  # interrupted before it could be told where it was counted
        raw = _read_at(descriptor, PLACES * PLACE.size, start).ljust(PLACES * PLACE.size, b"\0")
        with contextlib.suppress(ValueError):
            return start + _places(PLACES).unpack(raw)[1::2].index(owner) * PLACE.size
        return None

    def counted(self, group: RateGroup) -> int:
        """Requests of all processes that count at present."""
        with self._lock:
            start = _BLOCKS[group] + PAUSE.size
            raw = _read_at(self._open(), PLACES * PLACE.size, start).ljust(PLACES * PLACE.size, b"\0")
        now = self._clock.monotonic()
        return sum(now < end <= now + LONGEST_HOLD_SECONDS for end in _places(PLACES).unpack(raw)[::2])

    def pause(self, group: RateGroup, seconds: float) -> float:
        """Nobody sends to `group` for so long, because of a 429. The time that names it to the others."""
        with self._opened(LOCK_PATIENCE_SECONDS) as descriptor:
            now = self._clock.monotonic()
            if descriptor is not None:
                block = _read_at(descriptor, PAUSE.size, _BLOCKS[group]).ljust(PAUSE.size, b"\0")
                _, until, until_wall, used = PAUSE.unpack(block)
                if self._left(until, until_wall, now) < seconds:
                    until, until_wall = now + seconds, self._wall() + seconds
                _write_at(descriptor, PAUSE.pack(now, until, until_wall, used), _BLOCKS[group])
            return now

    # --- machines -----------------------------------------------------------------------------------------------

    def stay_apart(self, seconds: float) -> float:
        """For so long some process of this machine may send what other machines do not know of. Since when that is so
        without a break."""
        with self._opened(LOCK_PATIENCE_SECONDS) as descriptor:
            now = self._clock.monotonic()
            if descriptor is None:
                return now
            since, until = self._read_apart(descriptor, now)
            since = since if until else now
            _write_at(descriptor, APART.pack(since, max(until, now + seconds)), APART_AT)
            return since

    def is_apart(self) -> bool:
        """Whether some process of this machine may send what other machines do not know of."""
        with self._lock:
            return self._read_apart(self._open(), self._clock.monotonic())[1] > 0.0

    def keep_heard(self, text: bytes, seconds: float) -> None:
        """What this process has heard of other machines, which counts for so long for all of this one."""
        with self._opened(LOCK_PATIENCE_SECONDS) as descriptor:
            if descriptor is not None and len(text) <= LONGEST_HEARD_BYTES:
                until = self._clock.monotonic() + seconds
                _write_at(descriptor, HEARD.pack(until, len(text)) + text, HEARD_AT)

    def heard(self) -> bytes:
        """What `keep_heard` was told last, by whichever process of this machine; nothing once that is over."""
        with self._opened(LOCK_PATIENCE_SECONDS) as descriptor:
            if descriptor is None:
                return b""
            until, size = HEARD.unpack(_read_at(descriptor, HEARD.size, HEARD_AT).ljust(HEARD.size, b"\0"))
            now = self._clock.monotonic()
            # What lies ahead was written before the machine started anew.
            is_ours = now < until <= now + LONGEST_HEARD_SECONDS and 0 < size <= LONGEST_HEARD_BYTES
            return _read_at(descriptor, size, HEARD_AT + HEARD.size) if is_ours else b""

    def _read_apart(self, descriptor: int, now: float) -> tuple[float, float]:
        since, until = APART.unpack(_read_at(descriptor, APART.size, APART_AT).ljust(APART.size, b"\0"))
        # What lies ahead was written before the machine started anew.
        return (since, until) if since <= now < until <= now + LONGEST_HOLD_SECONDS else (0.0, 0.0)

    # --- bans ---------------------------------------------------------------------------------------------------

    def impose_ban(self, seconds: float | None, sent_at: float | None, *, at_connect: bool) -> Ban:
        """As `Ban.imposed`, for all processes."""

        def imposed(ban: Ban, now: float) -> Ban:
            return ban.imposed(seconds, now if sent_at is None else sent_at, now, at_connect=at_connect)

        return self._change_ban(imposed)

    def passed(self, sent_at: float) -> None:
        """As `Ban.passed`; costs nothing where no ban was seen."""
        if self._has_seen_ban:
            self._change_ban(lambda ban, now: ban.passed(sent_at))

    def connecting(self) -> Ban:
        """Before a line that broke tries a handshake: the ban, in which the attempt is noted where it may be made."""
        found: list[Ban] = []

        def noted(ban: Ban, now: float) -> Ban:
            found.append(ban)
            return ban.connecting(now) if ban.remaining(now) and not ban.connect_wait(now) else ban

        changed = self._change_ban(noted)
        return found[0] if found else changed

    def _change_ban(self, change: Callable[[Ban, float], Ban]) -> Ban:
        with self._opened(LOCK_PATIENCE_SECONDS) as descriptor:
            now = self._clock.monotonic()
            if descriptor is None:
                return Ban()
            before = self._read_ban(_read_at(descriptor, HEADER.size, 0), now)
            after = change(before, now)
            if after != before:
                self._write_ban(descriptor, after, now)
            return after

    def _read_ban(self, header: bytes, now: float) -> Ban:
        if len(header) < HEADER.size:
            header = NO_BAN
        _, since, until, until_wall, probe_since, connect_at, offences, flags = HEADER.unpack(header)
        self._has_seen_ban = bool(flags & 1)
        # What lies ahead was written before the machine started anew.
        until = now + self._left(until, until_wall, now) if until > now else until
        probed = probe_since if 0.0 < probe_since <= now else None
        is_over, covers = not self._has_seen_ban, bool(flags & 2)
        return Ban(min(since, now), until, max(0, min(offences, 30)), is_over, probed, covers, min(connect_at, now))

    def _write_ban(self, descriptor: int, ban: Ban, now: float) -> None:
        until_wall = self._wall() + ban.until - now
        flags = (not ban.is_proven_over) | ban.covers_connects << 1
        times = (ban.since, ban.until, until_wall, ban.probe_since or 0.0, max(0.0, ban.connect_at))
        _write_at(descriptor, HEADER.pack(MAGIC, *times, ban.offences, flags), 0)
        self._has_seen_ban = not ban.is_proven_over

    def _left(self, until: float, until_wall: float, now: float) -> float:
        """Seconds until then, by both clocks: the monotonic one begins anew with the machine."""
        if not now < until <= now + LONGEST_BAN_SECONDS:
            return 0.0
        return max(0.0, min(until - now, until_wall - self._wall()))

    def _wall(self) -> float:
        return self._clock.wall().timestamp()

    # --- the file -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _opened(self, patience: float) -> Iterator[int | None]:
        """The locked file; None when another process holds it for longer than `patience`."""
        deadline = Deadline.after(patience)
        while True:
            with self._lock:
                descriptor = self._open()
                if self._has_file_lock(descriptor):
                    try:
                        if not _read_at(descriptor, len(MAGIC), 0).startswith(MAGIC):
                            _begin(descriptor)
                        yield descriptor
                    finally:
                        _unlock(descriptor)
                    return
            if deadline.expired:
                yield None
                return
            Flag().wait(LOCK_RETRY_SECONDS)

    def _has_file_lock(self, descriptor: int) -> bool:
        try:
            _lock(descriptor)
        except OSError as error:
            if error.errno not in _BUSY:
                raise
        else:
            self._busy_since = None
            return True
        now = self._clock.monotonic()
        self._busy_since = now if self._busy_since is None else self._busy_since
        if now - self._busy_since > STUCK_SECONDS:
            self._busy_since = None
            self._replace(descriptor)
        return False

    def _replace(self, stuck: int) -> None:
        """A copy takes the place of a file whose lock a stopped process holds."""
        path = self._path()
        # Another process may have been quicker: its copy is as good.
        if _is_linked(stuck) and os.path.samestat(os.stat(path), os.fstat(stuck)):
            copy = path.with_name(f"{self._name}.{os.getpid()}")
            copy.write_bytes(_read_at(stuck, APART_AT + APART.size, 0))
            copy.chmod(0o600)
            copy.replace(path)  # raises on Windows, where nobody removes what another has open
        self._close()

    def _open(self) -> int:
        now = self._clock.monotonic()
        if self._descriptor >= 0 and now >= self._look_at:
            self._look_at = now + LOOK_AT_FILE_SECONDS
            if not _is_linked(self._descriptor):
                self._close()
        if self._descriptor < 0:
            path = self._path()
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
            is_new = not path.exists()
            self._descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o600)
            self._look_at = now + LOOK_AT_FILE_SECONDS
            if is_new:
                _tidy(path.parent, self._clock.wall().timestamp())
        return self._descriptor

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of the file, until it is used again."""
        with self._lock:
            self._close()

    def leave_to_parent(self) -> None:
        """In a forked child: of its locks nobody knows in what state they are."""
        self._lock = threading.Lock()
        self.users = Users()
        self._close()

    def identity(self) -> str:
        """What tells those who share this file from all others, on this machine or another."""
        folder = self._path().parent.stat()
        return f"{platform.node()} {_boot()} {folder.st_dev} {folder.st_ino}"

    def _path(self) -> Path:
        return shared_folder(self._directory) / self._name

    def __repr__(self) -> str:
        return f"<SharedCountFile {self._name}>"


def shared_name(host: str) -> str:
    """How the files begin that are about `host`; what nobody has used for a day is removed."""
    return f"{re.sub('[^A-Za-z0-9.-]', '_', host)}.limits"


def shared_folder(within: Path | None = None) -> Path:
    """The folder for what processes of this user share, in `within` or the temporary one; OSError where none is to be
    had that only this user can write to."""
    return _own_folder(within or _temporary_folder())


def _boot() -> str:
    """Another with each start of the machine; '' where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


@cache
def _places(count: int) -> struct.Struct:
    return struct.Struct("=" + "dq" * count)


def _read_count(descriptor: int, offset: int, count: int) -> tuple[bytes, tuple[Any, ...], tuple[Any, ...]]:
    """The header, and of the block at `offset` the pause and at least `count` places."""
    while True:
        # All that lies before as well: copying it costs less than a second call.
        start = offset + PAUSE.size
        size = start + count * PLACE.size
        raw = _read_at(descriptor, size, 0)
        if len(raw) < size:
            raw = raw.ljust(size, b"\0")
        pause = PAUSE.unpack_from(raw, offset)
        used = pause[3]
        if used <= count or count == PLACES:
            return raw[: HEADER.size], pause, _places(count).unpack_from(raw, start)
        count = min(PLACES, used)  # others allow themselves more


def _begin(descriptor: int) -> None:
    """Make an empty count of what is new, or rubbish: each process still keeps the limit for itself."""
    os.ftruncate(descriptor, 0)
    _write_at(descriptor, NO_BAN, 0)


def _is_linked(descriptor: int) -> bool:
    """Whether the file still has its name: else it was tidied away, or another has taken its place."""
    return os.fstat(descriptor).st_nlink > 0


def _temporary_folder() -> Path:
    # Not `tempfile.gettempdir()`: where the named one cannot be used it takes another, at last the working directory,
    # so that two processes would each count in a file of their own and nobody be told.
    named = (os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    return Path(next(filter(None, named), "/tmp"))  # noqa: S108  # inside is a folder that only this user can write to


def _own_folder(within: Path) -> Path:
    """A folder that only this user can write to, so that nobody lays a link or a file of his there."""
    if not hasattr(os, "getuid"):
        folder = within / "upbit-backbone"
        folder.mkdir(exist_ok=True)
        return folder
    folder = within / f"upbit-backbone-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(errno.EPERM, f"{one_line(folder)} is not a folder of this user's alone")
    return folder


def _tidy(folder: Path, wall: float) -> None:
    """Remove the counts of hosts that nobody has asked for a day (simulators, each at a port of its own)."""
    for path in folder.glob("*.limits*"):
        with contextlib.suppress(OSError):  # another process tidies as well
            if path.stat().st_mtime < wall - OLD_FILE_SECONDS:
                path.unlink()
