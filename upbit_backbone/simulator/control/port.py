"""The control port: `POST /<verb>` with a JSON object of arguments; the answer is `{"result": …}` or `{"error": …}`.

Every public method of `Verbs` is a verb. `GET /` lists them.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from typing import Any

from upbit_backbone.simulator.control.verbs import Verbs
from upbit_backbone.simulator.serving.server import Server


class Control:
    """Serves the control port; it works whatever faults the other doors have."""

    def __init__(self, server: Server) -> None:
        self._verbs = Verbs(server)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One control connection: requests until the client ends."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                method, path = head.split(" ", 2)[:2]
                length = _content_length(head)
                body = await reader.readexactly(length) if length else b""
                status, answer = await self._answer(method, path.strip("/"), body)
                text = json.dumps(answer, ensure_ascii=False).encode()
                start = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
                writer.write(start.encode() + text)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # the other side has ended or is no HTTP client
        finally:
            writer.close()

    async def _answer(self, method: str, verb: str, body: bytes) -> tuple[str, dict[str, Any]]:
        if not verb:
            return "200 OK", {"result": self._verbs_help()}
        handler = getattr(self._verbs, verb, None) if not verb.startswith("_") else None
        if handler is None:
            return "404 Not Found", {"error": f"there is no verb {verb!r}; GET / lists them"}
        try:
            arguments = json.loads(body) if body else {}
            result = handler(**arguments)
            if inspect.isawaitable(result):
                result = await result
        except (TypeError, ValueError, KeyError) as problem:
            return "400 Bad Request", {"error": f"{verb}: {type(problem).__name__}: {problem}"}
        return "200 OK", {"result": result}

    def _verbs_help(self) -> dict[str, str]:
        return {
            name: f"{inspect.signature(verb)} {inspect.getdoc(verb) or ''}"
            for name, verb in inspect.getmembers(self._verbs, callable)
            if not name.startswith("_")
        }


def _content_length(head: str) -> int:
    for line in head.split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-length":
            return int(value)
    return 0
