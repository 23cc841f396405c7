"""Where Upbit answers, and in which formats its stream speaks. Pure.

Each region is a venue of its own, with its own listings, fiat currency and limits.
Docs: the REST and WebSocket guides. All REST paths start with /v1, the public stream is /websocket/v1.
"""

from __future__ import annotations

from typing import Final

REGION_HOSTS: Final = {
    "kr": "api.upbit.com",
    "sg": "sg-api.upbit.com",
    "id": "id-api.upbit.com",
    "th": "th-api.upbit.com",
}

# docs: websocket-guide; the LIST formats came 2025-07-07. The format belongs to the connection, not to a request.
WEBSOCKET_FORMATS: Final = ("SIMPLE", "DEFAULT", "JSON_LIST", "SIMPLE_LIST")
