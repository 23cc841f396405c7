"""One server has one name, however its address is written."""

from __future__ import annotations

import pytest

from upbit_backbone.exchange.endpoints import normal_host


@pytest.mark.parametrize(
    "address",
    ["https://api.upbit.com", "https://api.upbit.com:443", "HTTPS://API.Upbit.Com", "https://api.upbit.com.",
     "https://API.UPBIT.COM.:0443", "api.upbit.com", "api.upbit.com:443", "wss://api.upbit.com/websocket/v1"],
)  # fmt: skip
def test_port_case_and_a_trailing_dot_make_no_other_server(address: str) -> None:
    assert normal_host(address) == "api.upbit.com"


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:8080", "http://localhost:8080", "http://LOCALHOST:8080", "http://localhost.:8080",
     "http://[::1]:8080", "http://[0:0:0:0:0:0:0:1]:8080", "http://[::ffff:127.0.0.1]:8080", "127.0.0.1:8080",
     "ws://upbit.localhost:8080/websocket/v1"],
)  # fmt: skip
def test_this_machine_is_one_server_whatever_it_is_called(address: str) -> None:
    assert normal_host(address) == "127.0.0.1:8080"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://api.upbit.com", "https://sg-api.upbit.com"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8081"),
        ("http://127.0.0.1", "https://127.0.0.1"),
        ("https://[2001:db8::1]", "https://[2001:db8::2]"),
        ("https://127.0.0.1.example.com", "https://127.0.0.1"),
    ],
)
def test_other_servers_keep_other_names(one: str, other: str) -> None:
    assert normal_host(one) != normal_host(other)


def test_an_address_in_the_new_protocol_is_written_in_one_way() -> None:
    assert normal_host("https://[2001:DB8:0::1]:9") == normal_host("https://[2001:db8::1]:9") == "[2001:db8::1]:9"
