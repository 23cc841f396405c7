"""pyupbit led to our server: its addresses are fixed in its source."""

from __future__ import annotations

from typing import Any

import pyupbit
import requests
from pyupbit import request_api

HOST = "https://api.upbit.com"


def pyupbit_at(rest_url: str) -> Any:
    """The module, whose requests go to `rest_url`; still one `requests.get` each, as it does it."""

    class Led:
        @staticmethod
        def get(url: str, **options: Any) -> requests.Response:
            return requests.get(url.replace(HOST, rest_url), timeout=10, **options)

    request_api.requests = Led
    return pyupbit
