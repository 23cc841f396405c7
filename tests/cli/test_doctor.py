from __future__ import annotations

import json

from upbit_backbone.simulator import FakeUpbit


def findings(done):
    return {row["check"]: row for row in json.loads(done.stdout)["findings"]}


def test_a_well_connection_is_called_well(piped):
    done = piped("doctor", "--json")
    found = findings(done)
    assert done.returncode == 0, done.stdout
    assert {"system", "packages", "DNS", "TCP", "REST", "Origin", "WebSocket", "stream", "limits"} <= found.keys()
    assert "not sent" in found["Origin"]["detail"]


def test_a_terminal_shows_marks_and_a_verdict(terminal):
    screen = terminal("doctor")
    assert screen.finish() == 0, screen.seen
    assert "Everything is well." in screen.seen
    assert "✔" in screen.seen


def test_a_closed_port_is_named_with_advice(piped):
    done = piped("--rest-url", "http://127.0.0.1:9", "doctor", "--json")
    assert done.returncode == 1
    assert findings(done)["TCP, TLS"]["verdict"] == "bad"
    assert "UPBIT_BACKBONE_PROXY" in findings(done)["TCP, TLS"]["advice"]


def test_a_certificate_that_nobody_vouches_for_is_named(piped):
    with FakeUpbit(seed=1, tls=True, markets=["KRW-BTC"]) as upbit:
        done = piped("--rest-url", upbit.rest_url, "--websocket-url", upbit.websocket_url, "doctor", "--json")
    assert done.returncode == 1
    row = findings(done)["TCP, TLS"]
    assert "certificate" in row["detail"]
    assert "CA_FILE" in row["advice"]


def test_a_refusing_upbit_is_told_from_a_broken_line(piped):
    with FakeUpbit(seed=1, markets=["KRW-BTC"]) as upbit:
        upbit.rest_fault("*", status=418, times=None)
        done = piped("--rest-url", upbit.rest_url, "--websocket-url", upbit.websocket_url, "doctor", "--json")
    row = findings(done)["REST"]
    assert (done.returncode, row["verdict"]) == (1, "bad")
    assert "limit" in row["advice"]
