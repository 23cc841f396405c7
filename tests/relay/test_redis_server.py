"""How a command for Redis is spelled."""

from __future__ import annotations

from upbit_backbone.wire.redis_server import packed


def test_commands_are_spelled_as_redis_reads_them() -> None:
    words = b"EVALSHA", 2, "값", b"\x00\r\n", "", "x" * 20_000
    assert packed(words) == (
        b"*6\r\n$7\r\nEVALSHA\r\n$1\r\n2\r\n$3\r\n\xea\xb0\x92\r\n$3\r\n\x00\r\n\r\n$0\r\n\r\n$20000\r\n"
        + b"x" * 20_000
        + b"\r\n"
    )
