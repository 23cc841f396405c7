"""Two machines, each with an address, a network and a temporary folder of its own: network namespaces of Linux, which
only root may make."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.chaos.proxy import ChaosProxy
from tests.support.asking import FOR_CANDLES, Asking, assert_limits_were_kept, many_markets, wait_for_more
from tests.support.redis_server import RedisServer
from upbit_backbone.simulator import FakeUpbit

PORT = 26_391  # at addresses that nobody else has
# Upbit is asked at the machine's own loopback, as everywhere in these tests, and from there by way of its gateway.
BEHIND_A_GATEWAY = """
import socket, sys, threading
from urllib.parse import urlsplit

def pump(source, target):
    try:
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
        target.close()

def forward(listener, gateway):
    while True:
        here, _ = listener.accept()
        there = socket.create_connection(gateway)
        threading.Thread(target=pump, args=(here, there), daemon=True).start()
        threading.Thread(target=pump, args=(there, here), daemon=True).start()

url, gateway, port = sys.argv[3:]
listener = socket.create_server(("127.0.0.1", urlsplit(url).port))
threading.Thread(target=forward, args=(listener, (gateway, int(port))), daemon=True).start()
"""


class Machine(NamedTuple):
    name: str  # of its namespace
    link: str  # the other end of its cable
    gateway: str
    address: str


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)  # noqa: S607


@pytest.fixture
def machines() -> Iterator[list[Machine]]:
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces take Linux, root and the program ip")
    with ExitStack() as things:
        made = []
        for number in (1, 2):
            # Of the block that is for tests of networks, and in no network (RFC 2544).
            name, link = f"upbit-{os.getpid()}-{number}", f"ub{os.getpid() % 1_000_000}x{number}"
            machine = Machine(name, link, f"198.18.{number}.1", f"198.18.{number}.2")
            try:
                ip("netns", "add", name)
                things.callback(ip, "netns", "del", name)
                ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
            except subprocess.CalledProcessError as refused:
                pytest.skip(f"network namespaces are not allowed here: {refused.stderr.decode().strip()}")
            # What is left to be sent would keep a network alive whose cable was pulled.
            things.callback(ip, "link", "del", link)
            ip("addr", "add", f"{machine.gateway}/24", "dev", link)
            ip("link", "set", link, "up")
            ip("-n", name, "addr", "add", f"{machine.address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
            made.append(machine)
        yield made


@pytest.fixture
def upbit() -> Iterator[FakeUpbit]:
    with many_markets(80) as upbit:
        yield upbit


@pytest.mark.endurance
def test_two_machines_share_ten_a_second_and_one_whose_cable_is_pulled_holds_up_nobody(
    machines: list[Machine], upbit: FakeUpbit, tmp_path: Path
) -> None:
    with ExitStack() as things:
        folder = Path(things.enter_context(tempfile.TemporaryDirectory()))
        addresses = [machine.gateway for machine in machines]
        options = ("--bind", *addresses, "--port", str(PORT), "--protected-mode", "no")
        server = RedisServer(folder, options=options)
        things.callback(server.close)
        host, _, port = upbit.rest_url.removeprefix("http://").partition(":")
        programs = []
        for number, machine in enumerate(machines):
            gate = things.enter_context(ChaosProxy((host, int(port)), host=machine.gateway))
            program = Asking(
                upbit,
                f"redis://{machine.gateway}:{PORT}",
                tmp_path / machine.name,
                40,
                number * 40,
                upbit.rest_url,
                *gate.address,
                program=BEHIND_A_GATEWAY + textwrap.dedent(FOR_CANDLES),
                inside=("ip", "netns", "exec", machine.name),
            )
            programs.append(things.enter_context(program))
        seen = {str(each["addr"]).partition(":")[0] for each in server.client.client_list()}
        assert {machine.address for machine in machines} <= seen
        for program in programs:
            program.begin()
        wait_for_more(upbit, 30)
        ip("link", "set", machines[0].link, "down")
        assert programs[1].ends() == 0
    assert_limits_were_kept(upbit)
    assert len(upbit.requests(group="candle")) > 40  # of both
