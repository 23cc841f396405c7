"""What settings are refused, and what of them is never shown."""

from __future__ import annotations

import base64
import dataclasses
import logging
import os
import pickle
import re
import socket
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upbit_backbone import BackboneConfig, DataStrategy, InvalidRequestError, MarketDataBackbone, UpbitBackboneError
from upbit_backbone.simulator import FakeUpbit

SECRET = "canary-3f9c"  # noqa: S105  # no password, but what must not be seen where one would be
ENCODED = base64.b64encode(f"user:{SECRET}".encode()).decode()


@pytest.mark.parametrize(
    "url",
    [
        "http://api.upbit.com",
        "http://10.0.0.1:80",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "ftp://127.0.0.1",
        "file:///etc/passwd",
        "api.upbit.com",
        "https://",
        "//api.upbit.com",
        "https://api.upbit.com/v1",
        "https://api.upbit.com:notaport",
        "https://api.upbit.com#",
        "https://api.upbit.com?x=",
        "https://api.upbit.com\\evil.example",
        "https://api.upbit.com\n",
        "https://api.up bit.com",
    ],
)
def test_only_encrypted_urls_or_this_machine(url: str) -> None:
    with pytest.raises(InvalidRequestError, match="rest_url"):
        BackboneConfig(rest_url=url)
    with pytest.raises(InvalidRequestError):
        MarketDataBackbone(rest_url=url)
    websocket = url.replace("http", "ws", 1)
    if websocket.startswith("ws://"):
        with pytest.raises(InvalidRequestError, match="websocket_url"):
            BackboneConfig(websocket_url=websocket)


@pytest.mark.parametrize(
    "url",
    [
        f"https://user:{SECRET}@api.upbit.com",
        f"https://user:{SECRET}@api.upbit.com:notaport",
        f"ftp://user:{SECRET}@host",
        f"http://user:{SECRET}@127.0.0.1",
        f"https://{SECRET}@host/v1",
        f"https://user:{SECRET}@",
    ],
)
@pytest.mark.parametrize("name", ["rest_url", "websocket_url"])
def test_credentials_in_urls_are_refused_without_repeating_them(name: str, url: str) -> None:
    url = url.replace("http", "ws", 1) if name == "websocket_url" else url
    with pytest.raises(InvalidRequestError) as refused:
        BackboneConfig(**{name: url})
    assert SECRET not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    "proxy", [f"socks4://user:{SECRET}@host:1", f"http://user:{SECRET}@host", f"http://user:{SECRET}@host:x", SECRET]
)
def test_a_proxy_that_makes_no_sense_is_refused_without_repeating_it(proxy: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        MarketDataBackbone(proxy=proxy)
    assert SECRET not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize("name", [each.name for each in dataclasses.fields(BackboneConfig) if "str" in str(each.type)])
def test_what_should_be_a_text_and_is_none_is_refused_by_name_without_repeating_it(name: str) -> None:
    for value in (7, f"https://user:{SECRET}@host:1".encode(), [SECRET], True):
        with pytest.raises(InvalidRequestError, match=name) as refused:
            BackboneConfig(**{name: value})
        assert SECRET not in "".join(traceback.format_exception(refused.value))


def test_a_certificate_may_be_a_path(tmp_path: Path) -> None:
    path = tmp_path / "authority.pem"
    path.touch()
    assert BackboneConfig(ca_file=path).ca_file == path  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("variable", "expected"),
    [("QUEUE_SIZE", "a whole number"), ("TIMEOUT_SECONDS", "a number"), ("AUDIT_SUBSCRIPTIONS", "'on' or 'off'")],
)
def test_a_variable_that_cannot_be_read_says_what_may_be_written(variable: str, expected: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"UPBIT_BACKBONE_{variable}='soon': expected {expected}$"):
        BackboneConfig.from_environment({f"UPBIT_BACKBONE_{variable}": "soon"})


def test_no_representation_of_settings_shows_the_proxy() -> None:
    config = BackboneConfig(proxy=f"http://user:{SECRET}@127.0.0.1:9")
    assert SECRET not in f"{config!r} {config} {[config]}"
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301  # our own, of a moment ago
    with MarketDataBackbone(config) as market:
        shown = [repr(market), repr(market.health()), market.health().to_json(), market.performance().to_json()]
        shown += [repr(part) for part in vars(market._parts).values()]
    assert SECRET not in "".join(shown)
    assert ENCODED not in "".join(shown)


def test_a_secret_in_the_environment_is_not_shown_when_another_variable_is_wrong() -> None:
    environment = {"UPBIT_BACKBONE_PROXY": f"http://u:{SECRET}@h:1", "UPBIT_BACKBONE_TIMEOUT_SECONDS": "soon"}
    with pytest.raises(InvalidRequestError, match="UPBIT_BACKBONE_TIMEOUT_SECONDS") as refused:
        BackboneConfig.from_environment(environment)
    assert SECRET not in str(refused.value)


@pytest.fixture
def proxy() -> Iterator[tuple[socket.socket, int]]:
    """A listener that a test may answer on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        yield listener, listener.getsockname()[1]


ANSWERS = {
    "wants other credentials": "HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=x\r\n\r\n",
    "refuses": "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n",
    "is none": "SSH-2.0 x\r\n",
    "hangs up": "",
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_failing_proxy_gives_nothing_away(
    name: str, proxy: tuple[socket.socket, int], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it says: our own credentials are in no error, no event and no log record, however detailed."""
    listener, port = proxy
    caplog.set_level(logging.DEBUG)
    heard: list[object] = []
    asked: list[bytes] = []

    def serve() -> None:
        for _ in range(4):
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                asked.append(connection.recv(4096))
                connection.sendall(ANSWERS[name].encode())

    serving = threading.Thread(target=serve, name="pytest-proxy")
    serving.start()
    shown = []
    with MarketDataBackbone(proxy=f"http://user:{SECRET}@127.0.0.1:{port}", rest_attempts=1) as market:
        market.on_event(heard.append)
        for call in (
            lambda: market.get_markets(timeout=2),
            lambda: market.get_ticker("KRW-BTC", strategy=DataStrategy.REST_ONLY, timeout=2),
            lambda: market.get_ticker("KRW-BTC", realtime=True, timeout=2),
        ):
            with pytest.raises(UpbitBackboneError) as failed:
                call()
            shown += ["".join(traceback.format_exception(failed.value)), repr(failed.value)]
        shown += [repr(market.health()), repr(market)]
    listener.close()
    serving.join()
    assert any(ENCODED.encode() in request for request in asked), "the proxy was really asked, with the credentials"
    formatter = logging.Formatter("%(message)s %(args)s %(exc_text)s")
    shown += [formatter.format(record) + repr(vars(record)) for record in caplog.records]
    shown += [repr(event) for event in heard]
    assert SECRET not in "".join(shown)
    assert ENCODED not in "".join(shown)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_no_text_makes_an_unencrypted_foreign_url_acceptable(text: str) -> None:
    for url in (text, f"http://{text}", f"http://127.0.0.1{text}", f"ws://{text}"):
        try:
            config = BackboneConfig(url=url)
        except InvalidRequestError:
            continue
        here = re.fullmatch(r"http://(127\.0\.0\.1|localhost|\[::1\])(:\d*)?", config.rest_url)
        assert config.rest_url.startswith("https://") or here


def test_the_environment_of_this_process_is_no_configuration_of_ours() -> None:
    """Only variables with our prefix are read."""
    assert BackboneConfig.from_environment({"HTTP_PROXY": "http://evil:1", "REST_URL": "https://evil"}).proxy is None
    assert not [name for name in os.environ if name.startswith("UPBIT_BACKBONE_PROXY")]


@pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("0.5", 0.5), ("7", 7.0)])
def test_how_long_live_data_waits_for_a_repair_may_be_nothing_and_come_from_the_environment(
    text: str, value: float
) -> None:
    config = BackboneConfig.from_environment({"UPBIT_BACKBONE_GAP_HOLD_SECONDS": text})
    assert (config.gap_hold_seconds, config.gap_strict_seconds) == (value, 60.0)
    assert BackboneConfig().gap_hold_seconds == 2.0


@pytest.mark.parametrize("value", [-0.1, float("inf"), float("nan"), True, "2"])
def test_a_wait_that_makes_no_sense_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequestError, match=r"gap_hold_seconds=.*expected a number >= 0"):
        BackboneConfig(gap_hold_seconds=value)  # type: ignore[arg-type]


# ── one server for both ways ─────────────────────────────────────────────────────────────────────────────────────────


def test_one_setting_names_another_server_for_questions_and_streams() -> None:
    for config in (
        BackboneConfig(url="http://127.0.0.1:8765/"),
        BackboneConfig.from_environment({"UPBIT_BACKBONE_URL": "http://127.0.0.1:8765"}),
    ):
        assert (config.rest_url, config.websocket_url) == ("http://127.0.0.1:8765", "ws://127.0.0.1:8765/websocket/v1")
    secure = BackboneConfig(url="https://proxy.example")
    assert (secure.rest_url, secure.websocket_url) == ("https://proxy.example", "wss://proxy.example/websocket/v1")


@pytest.mark.parametrize("region", ["kr", "sg", "id", "th"])
@pytest.mark.parametrize(
    "half",
    [{"rest_url": "http://127.0.0.1:1"}, {"websocket_url": "ws://localhost:1/x"}, {"rest_url": "https://api.example"}],
)
def test_questions_and_streams_of_different_hosts_are_refused_unless_said_so(half: dict[str, str], region: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"rest_url=.*websocket_url=.*url= for both.*allow_different_hosts"):
        BackboneConfig(region=region, **half)
    variables = {f"UPBIT_BACKBONE_{name.upper()}": value for name, value in half.items()}
    with pytest.raises(InvalidRequestError, match="allow_different_hosts"):
        BackboneConfig.from_environment(variables)
    meant = BackboneConfig.from_environment(variables | {"UPBIT_BACKBONE_ALLOW_DIFFERENT_HOSTS": "yes"})
    assert meant.allow_different_hosts is True


def test_two_doors_of_one_host_belong_together_and_so_do_the_names_of_this_machine() -> None:
    for rest, websocket in (
        ("http://127.0.0.1:1", "ws://localhost:2/x"),
        ("https://API.example.", "wss://api.example:444/x"),
        ("http://[::1]:1", "ws://127.0.0.1:1/x"),
    ):
        assert BackboneConfig(rest_url=rest, websocket_url=websocket).allow_different_hosts is False


def test_a_url_said_here_and_now_outweighs_both_urls_of_the_environment() -> None:
    elsewhere = {
        "UPBIT_BACKBONE_REST_URL": "https://other.example",
        "UPBIT_BACKBONE_WEBSOCKET_URL": "wss://other.example/x",
    }
    config = BackboneConfig.from_environment(elsewhere, url="http://127.0.0.1:1")
    assert (config.rest_url, config.websocket_url) == ("http://127.0.0.1:1", "ws://127.0.0.1:1/websocket/v1")


def test_a_fake_upbit_gives_one_url_for_both_and_the_backbone_shows_where_it_goes() -> None:
    with (
        FakeUpbit(trades_per_second=0, markets=["KRW-BTC"]) as upbit,
        MarketDataBackbone(url=upbit.url, timeout_seconds=20) as market,
    ):
        assert market.get_ticker("KRW-BTC").symbol == "KRW-BTC"
        with market.subscribe("KRW-BTC") as tickers:
            assert tickers.get(timeout=20).symbol == "KRW-BTC"
        assert market.config.rest_url in repr(market)
        assert market.config.websocket_url in repr(market)
