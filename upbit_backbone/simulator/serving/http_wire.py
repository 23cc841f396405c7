"""As much HTTP/1.1 as Upbit's public side needs: parse a GET, render an answer."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl

MAX_HEAD_BYTES = 65_536
GZIP_FROM_BYTES = 512
JSON = "application/json;charset=UTF-8"


class BadRequestError(Exception):
    """The bytes are not an HTTP request."""


@dataclass(slots=True)
class Request:
    """One request; header names are lower case, query values are decoded, equal names are joined by commas.

    Joining is what Upbit does: clients in the wild ask for several pairs with `markets=A&markets=B`.
    """

    method: str
    path: str
    raw_query: str
    query: dict[str, str]
    headers: dict[str, str]
    keep_alive: bool


@dataclass(slots=True)
class Response:
    """An answer before it is rendered. `headers` are added to what every answer carries."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)

    def render(self, date: str, keep_alive: bool, accepts_gzip: bool, with_body: bool = True) -> bytes:
        """The bytes on the wire, compressed if the client asked for that and it pays."""
        body = self.body
        lines = [status_line(self.status), f"Date: {date}", f"Content-Type: {self.content_type}"]
        if accepts_gzip and len(body) >= GZIP_FROM_BYTES and "Content-Encoding" not in self.headers:
            body = gzip.compress(body, 1)
            lines.append("Content-Encoding: gzip")
        lines.append(f"Content-Length: {len(body)}")
        lines.append("Connection: " + ("keep-alive" if keep_alive else "close"))
        lines.extend(f"{name}: {value}" for name, value in self.headers.items())
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")
        return head + body if with_body else head


def status_line(status: int) -> str:
    phrases = {each.value: each.phrase for each in HTTPStatus}
    return f"HTTP/1.1 {status} {phrases.get(status, 'Status')}"


def etag(body: bytes) -> str:
    return f'W/"0{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


def parse_head(head: bytes) -> Request:
    """The request line and headers, without the blank line."""
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise BadRequestError(lines[0][:100])
    headers = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequestError(line[:100])
        headers[name.strip().lower()] = value.strip()
    path, _, raw_query = parts[1].partition("?")
    keep_alive = headers.get("connection", "").lower() != "close" and parts[2] == "HTTP/1.1"
    query: dict[str, str] = {}
    for name, value in parse_qsl(raw_query, keep_blank_values=True, encoding="utf-8", errors="replace"):
        query[name] = f"{query[name]},{value}" if name in query else value
    return Request(parts[0], path, raw_query, query, headers, keep_alive)
