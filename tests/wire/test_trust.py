"""Whose certificates are accepted: as `requests` does it, by REST and the stream alike; and what an error advises."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import certifi
import pytest
import trustme

from tests.support.waiting import PATIENCE_SECONDS
from upbit_backbone import InvalidRequestError, MarketDataBackbone, TlsError
from upbit_backbone._concurrency import Deadline
from upbit_backbone.exchange import endpoints
from upbit_backbone.simulator import FakeUpbit
from upbit_backbone.wire import trust
from upbit_backbone.wire.rest_transport import RestTransport
from upbit_backbone.wire.websocket_transport import WebSocketTransport

VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
NOWHERE = "/no/such/place"


@pytest.fixture(scope="module")
def secure() -> Iterator[FakeUpbit]:
    with FakeUpbit(seed=16, tls=True, markets=["KRW-BTC"]) as upbit:
        yield upbit


@pytest.fixture
def ca_file(secure: FakeUpbit) -> str:
    """The file of the authority that vouches for `secure`."""
    assert secure.ca_file is not None
    return secure.ca_file


@pytest.fixture(autouse=True)
def bare_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without any authority, as python.org's Python on macOS and slim images have it."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", NOWHERE)
    monkeypatch.setenv("SSL_CERT_DIR", NOWHERE)


def price_and_stream(upbit: FakeUpbit) -> None:
    """One answer of REST and one item of the stream, or their error."""
    options = {"rest_url": upbit.rest_url, "websocket_url": upbit.websocket_url, "timeout_seconds": PATIENCE_SECONDS}
    with MarketDataBackbone(**options) as market:
        assert market.get_ticker("KRW-BTC").current_price > 0
        with market.subscribe("KRW-BTC", "ticker") as tickers:
            assert tickers.get(timeout=PATIENCE_SECONDS).symbol == "KRW-BTC"


def refused(upbit: FakeUpbit, words: str) -> None:
    """Neither REST nor the stream accepts the server, and both say so in these words."""
    deadline = Deadline.after(PATIENCE_SECONDS)
    with contextlib.closing(RestTransport(upbit.rest_url)) as rest, pytest.raises(TlsError, match=words):
        rest.get(endpoints.tickers(["KRW-BTC"]), deadline)
    with pytest.raises(TlsError, match=words):
        WebSocketTransport(upbit.websocket_url).open(deadline)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_whom_the_environment_names_is_trusted_by_rest_and_stream_alike(
    secure: FakeUpbit, ca_file: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, ca_file)
    assert trust.trusted_source() == ("the system's" if variable == "SSL_CERT_FILE" else f"{variable}={ca_file}")
    price_and_stream(secure)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="gives the hashed names of a folder of authorities")
@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_DIR"])
def test_a_folder_of_authorities_serves_as_well(
    secure: FakeUpbit, ca_file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    shutil.copy(ca_file, tmp_path / "authority.pem")
    subprocess.run(["openssl", "rehash", str(tmp_path)], check=True)  # noqa: S607  # wherever it is installed
    monkeypatch.setenv(variable, str(tmp_path))
    price_and_stream(secure)


def test_where_the_system_has_none_certifis_authorities_are_trusted(
    secure: FakeUpbit, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certifi, "where", lambda: ca_file)
    assert trust.trusted_source() == f"certifi's ({ca_file})"
    price_and_stream(secure)


def test_where_the_system_has_some_certifis_are_not_asked(
    secure: FakeUpbit, ca_file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    monkeypatch.setattr(certifi, "where", lambda: ca_file)
    assert trust.trusted_source() == "the system's"
    refused(secure, "certificate not accepted: unable to get local issuer certificate")


def test_on_windows_certifis_fill_up_what_the_system_has(
    secure: FakeUpbit, ca_file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    monkeypatch.setattr(certifi, "where", lambda: ca_file)
    monkeypatch.setattr(trust, "_IS_FILLED_LATE", True)
    assert trust.trusted_source() == f"the system's and certifi's ({ca_file})"
    price_and_stream(secure)


def test_a_program_without_certifis_file_still_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certifi, "where", lambda: NOWHERE)
    assert trust.tls_context().cert_store_stats()["x509"] == 0
    assert trust.trusted_source().startswith("nobody's")


def test_a_bundle_that_cannot_be_loaded_is_named_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for path in (NOWHERE, str(empty)):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", path)
        with pytest.raises(InvalidRequestError, match=f"REQUESTS_CA_BUNDLE='{path}' cannot be loaded"):
            MarketDataBackbone()


def test_what_else_is_named_is_trusted_beside_a_bundle(
    secure: FakeUpbit, ca_file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other))
    monkeypatch.setenv("SSL_CERT_FILE", ca_file)
    price_and_stream(secure)


def test_the_error_says_what_helps(secure: FakeUpbit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certifi, "where", lambda: NOWHERE)
    refused(secure, "name its authority: ca_file=… or REQUESTS_CA_BUNDLE$")
    for certificate, advice in (("expired", "clock is right$"), ("wrong-host", "answers in this host's place$")):
        with FakeUpbit(seed=16, tls=True, markets=["KRW-BTC"], certificate=certificate) as upbit:
            monkeypatch.setenv("SSL_CERT_FILE", str(upbit.ca_file))
            refused(upbit, f"certificate not accepted: .*{advice}")
