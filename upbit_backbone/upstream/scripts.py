"""Scripts: how each script begins that keeps something in common at a Redis server, and what it refuses."""

from __future__ import annotations

from typing import Final

from ..errors import InvalidRequestError

# The first of ARGV is the schema that this version writes, the last one its key: what is named in KEYS a user has to be
# allowed to write, and that one he need not be. The time is that of Redis, whatever the clocks of machines show.
BEGIN: Final = """
local function foreign(key, found) return redis.error_reply('FOREIGN ' .. key .. ' ' .. string.sub(found, 1, 60)) end
local schema = redis.call('GET', ARGV[#ARGV])
if schema and schema ~= ARGV[1] then return foreign(ARGV[#ARGV], schema) end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function text(number) return string.format('%.0f', number) end
"""


def refused(place: str, text: str, everything: str) -> InvalidRequestError | None:
    """The error where a script, or Redis itself, refused what it found among the keys `everything`; else None."""
    if "FOREIGN " in text:
        key, _, found = text.partition("FOREIGN ")[2].partition(" ")
        return foreign(place, key, found)
    return foreign(place, everything, "keys of another kind") if "WRONGTYPE" in text else None


def foreign(place: str, key: str, found: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{place} holds under {key} what this version did not write ({found[:60]}): choose another prefix"
    )
