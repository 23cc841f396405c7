"""Redis server (extra `[redis]`): the only one to know redis-py. It runs scripts, each of which happens as a whole."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha1
from typing import Any, Final
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ..errors import AuthenticationError, InvalidRequestError, NetworkError, ServerError, one_line
from .pushed_line import PushedLine

LINE_BYTES: Final = 4096  # that an answer of one line may have


class RedisServer:
    """The server at `url`. Usable from any thread, but for what `listen` gives: each call has a connection of its own.
    `timeout` seconds are for one call; nothing is tried twice, since whether and when to try again depends on what
    others have done by then.

    Raises InvalidRequestError where the URL is none; then NetworkError, AuthenticationError and ServerError as Redis
    fails, or what `explain` makes of its words. No text of them holds the password.
    """

    def __init__(
        self, url: str, *, timeout: float, name: str, explain: Callable[[str], Exception | None] = lambda _: None
    ) -> None:
        self.place = place_of(url)
        self._explain = explain
        try:
            client = redis.Redis.from_url(
                url,
                protocol=2,  # newer versions of redis-py choose another, in which what is pushed looks otherwise
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                retry=Retry(NoBackoff(), 0),
                client_name=name,
            )
        except (ValueError, TypeError) as theirs:  # its words may hold what the URL holds
            raise InvalidRequestError(f"the URL of {self.place} is not one that Redis is reached by") from theirs
        self._client: Any = client
        self._scripts: dict[str, Callable[..., Any]] = {}

    def run(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """What `script` answers. It is sent once and called by its digest from then on."""
        with self.translated():
            if script not in self._scripts:
                self._scripts[script] = self._client.register_script(script)
            return self._scripts[script](keys=keys, args=arguments)

    def hash(self, key: str, fields: Sequence[str] | None = None) -> dict[str, str]:
        """The named fields of a hash that there are, or all."""
        with self.translated():
            if fields is None:
                found = self._client.hgetall(key)
                return {name.decode(): value.decode() for name, value in found.items()}
            values = self._client.hmget(key, fields) if fields else []
            return {name: value.decode() for name, value in zip(fields, values, strict=True) if value is not None}

    def time(self) -> float:
        """What the server's clock shows, in seconds since 1970."""
        with self.translated():
            seconds, micros = self._client.time()
            return float(seconds + micros / 1e6)

    def ask(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The answers to several commands, as Redis gives them, in one round trip."""
        with self.translated():
            asked = self._client.pipeline(transaction=False)
            for command in commands:
                asked.execute_command(*command)
            return list(asked.execute())

    def listen(self, channel: str) -> PushedLine:
        """A connection on which `channel` is heard, and that asks nothing of its own accord."""
        with self.translated():
            connection = self._client.connection_pool.make_connection()
            connection.connect()
            line = PushedLine(self, connection, connection._sock)  # redis-py has no other way to be selected on
            line.send("SUBSCRIBE", channel)
            return line

    def line(self) -> ScriptLine:
        """A connection for scripts alone, for one thread at a time."""
        return ScriptLine(self, self._client.connection_pool.make_connection)

    def close(self) -> None:
        with self.translated():
            self._client.close()

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Redis's errors as ours: around whatever is done with redis-py."""
        try:
            yield
        except redis.AuthenticationError as theirs:
            raise AuthenticationError(f"{self.place} refuses the user or password") from theirs
        except (redis.ConnectionError, redis.TimeoutError, OSError) as theirs:
            raise NetworkError(f"{self.place} cannot be reached: {one_line(theirs)}") from theirs
        except redis.RedisError as theirs:
            text = one_line(theirs)
            is_answer = isinstance(theirs, redis.ResponseError)
            raise self.refusal(text) if is_answer else ServerError(f"{self.place} answers: {text}") from theirs

    def refusal(self, text: str) -> Exception:
        """Redis's answer that something is wrong, as one of our errors."""
        return self._explain(text) or ServerError(f"{self.place} answers: {one_line(text)}")

    def __repr__(self) -> str:
        return f"<RedisServer {self.place}>"


class ScriptLine:
    """Runs scripts on a connection of its own: whoever runs hundreds a second spares what a pool does for each, as much
    as all the rest. Raises as its server does; after an error the next call connects anew."""

    def __init__(self, server: RedisServer, make: Callable[[], Any]) -> None:
        self._server = server
        self._make = make
        self._connection: Any = None
        self._sock: Any = None  # the connection's
        self._digests: dict[str, bytes] = {}
        self._sent: tuple[str, int, bytes] | None = None  # whose answer was not read yet

    def run(self, script: str, keys: Sequence[str | bytes], arguments: Sequence[Any]) -> Any:
        """What `script` answers. It is sent once and called by its digest from then on."""
        with self._server.translated():
            try:
                return self._call(b"EVALSHA", self._digest(script), keys, arguments)
            except redis.exceptions.NoScriptError:  # a server that was started anew
                return self._call(b"EVAL", script.encode(), keys, arguments)

    def send(self, script: str, count: int, words: bytes) -> None:
        """Have `script` run, which answers with a number: `number` reads it, before anything else is asked. Whoever has
        other work meanwhile is not put to sleep for an answer that is there once he is done. `words` are `count` keys
        and arguments, spelled by `spelled`, after the number of keys."""
        self._write(b"*%d\r\n$7\r\nEVALSHA\r\n%b%b" % (count + 3, spelled(self._digest(script)), words))
        self._sent = script, count, words

    def _write(self, command: bytes) -> None:
        try:
            if self._sock is None:
                self._connect()
            self._sock.sendall(command)
        except BaseException:
            self.close()
            with self._server.translated():
                raise

    def number(self) -> int:
        """What the script that was sent answers, waited for if need be."""
        sent = self._sent
        try:
            if sent is None:
                raise redis.ConnectionError("the connection was closed")
            line = self._read_line()
            if line.startswith(b"-NOSCRIPT"):  # a server that was started anew
                script, count, words = sent
                self._write(b"*%d\r\n$4\r\nEVAL\r\n%b%b" % (count + 3, spelled(script.encode()), words))
                line = self._read_line()
        except BaseException:
            self.close()
            with self._server.translated():
                raise
        self._sent = None
        if line.startswith(b":"):
            return int(line[1:])
        with self._server.translated():
            raise redis.ResponseError(line[1:].decode("utf-8", "replace"))

    def _read_line(self) -> bytes:
        """Of an answer that is one line: a number or an error."""
        line = b""
        while not line.endswith(b"\r\n"):
            got = self._sock.recv(LINE_BYTES)
            if not got:
                raise redis.ConnectionError("the connection was closed")
            line += got
            if len(line) > LINE_BYTES:
                raise redis.ConnectionError("an answer that is no number")
        return line[:-2]

    def _digest(self, script: str) -> bytes:
        digest = self._digests.get(script)
        if digest is None:
            digest = self._digests[script] = sha1(script.encode(), usedforsecurity=False).hexdigest().encode()
        return digest

    def _connect(self) -> None:
        if self._connection is None:
            self._connection = self._make()
        self._connection.connect()  # unless it is
        self._sock = self._connection._sock  # redis-py takes several times as long to send and read

    def _call(self, command: bytes, script: bytes, keys: Sequence[str | bytes], arguments: Sequence[Any]) -> Any:
        if self._sent is not None:
            self.close()  # nobody has read its answer, which is none to this
        self._sock = None  # redis-py may take another
        if self._connection is None:
            self._connection = self._make()
        connection = self._connection
        try:
            connection.send_packed_command([packed((command, script, len(keys), *keys, *arguments))])
            return connection.read_response()
        except redis.ResponseError:
            raise  # an answer like any other
        except BaseException:
            # Also where it is called off in between: the next answer would be taken for one to another question.
            self.close()
            raise

    def close(self) -> None:
        connection, self._connection, self._sock, self._sent = self._connection, None, None, None
        if connection is not None:
            connection.disconnect()


def packed(words: Sequence[str | bytes | int]) -> bytes:
    """A command in the protocol of Redis, in a seventh of the time that redis-py takes, and in one piece."""
    return b"*%d\r\n%b" % (len(words), spelled(*words))


def spelled(*words: str | bytes | int) -> bytes:
    """Words of a command, as they stand in it."""
    as_bytes = [word if type(word) is bytes else str(word).encode() for word in words]
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in as_bytes])


def place_of(url: str) -> str:
    """Where the server is, without who asks: a password is in no log, repr or error."""
    if not isinstance(url, str) or not url.startswith(("redis://", "rediss://", "unix://")):
        raise InvalidRequestError("the URL of Redis: expected redis://, rediss:// or unix://, with a host or path")
    try:
        parts = urlsplit(url)
        return f"Redis at {parts.path}" if parts.scheme == "unix" else f"Redis at {parts.hostname}:{parts.port or 6379}"
    except ValueError:
        raise InvalidRequestError("the URL of Redis: expected a host and a port from 1 to 65535 in it") from None
