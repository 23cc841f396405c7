"""What is installed: our own name and nothing else, typed, light, and silent on the network."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from upbit_backbone.unify.scanner import VARIABLE

ROOT = Path(__file__).resolve().parents[2]
VERSION = importlib.metadata.version("upbit-backbone")


def built(folder: Path, copy: Path, *, compiled: bool = False) -> Path:
    """A folder with the wheel and the source distribution, built as a release would be but without the network."""
    copy.mkdir()
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(
        ROOT / "upbit_backbone", copy / "upbit_backbone", ignore=shutil.ignore_patterns("__pycache__", "*.so")
    )
    shutil.copytree(ROOT / "tests" / "packaging", copy / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    what = ["--wheel"] if compiled else []
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", *what, "--outdir", str(folder), str(copy)],
        check=True, capture_output=True, env=os.environ | {VARIABLE: "1" if compiled else "0"},
    )  # fmt: skip
    return folder


def installed(wheel: Path, folder: Path) -> Path:
    """The wheel installed into a folder of its own; what it depends on comes from the environment of the tests."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-index"]
    if subprocess.run([*pip, "--target", str(folder), str(wheel)], capture_output=True, check=False).returncode:
        shutil.unpack_archive(wheel, folder, "zip")  # an environment without pip
    return folder


def python(script: str, *options: str, path: Path = ROOT, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a script in a Python of its own that finds our package under `path` first."""
    return subprocess.run(
        [sys.executable, *options, "-c", script],
        env=os.environ | {"PYTHONPATH": str(path)}, capture_output=True, text=True, check=False, cwd=cwd, timeout=60,
    )  # fmt: skip


@pytest.mark.slow
def test_a_release_holds_our_name_only_and_works_where_no_source_is(tmp_path: Path) -> None:
    """One test, because building takes longer than everything after it."""
    pytest.importorskip("build")
    release = built(tmp_path / "built", tmp_path / "source")
    wheel = next(release.glob("*.whl"))
    assert wheel.name.endswith("-py3-none-any.whl")
    holds_our_name_only(wheel)
    can_be_built_from(next(release.glob("*.tar.gz")))
    folder = installed(wheel, tmp_path / "installed")
    imports_from(folder, tmp_path)
    types_strictly(folder, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="no compiler here")
def test_who_asks_for_it_gets_compiled_decoding(tmp_path: Path) -> None:
    pytest.importorskip("build")
    wheel = next(built(tmp_path / "built", tmp_path / "source", compiled=True).glob("*.whl"))
    assert "none-any" not in wheel.name
    folder = installed(wheel, tmp_path / "installed")
    script = "from upbit_backbone.unify.scanner import is_compiled; print(is_compiled())"
    assert python(script, path=folder, cwd=tmp_path).stdout == "True\n"


def holds_our_name_only(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        told = archive.read(f"upbit_backbone-{VERSION}.dist-info/entry_points.txt").decode()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"upbit_backbone", f"upbit_backbone-{VERSION}.dist-info"}
    assert "upbit_backbone/py.typed" in names
    assert "[pyinstaller40]\nhook-dirs = upbit_backbone._pyinstaller:get_hook_dirs" in told
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "upbit_backbone").rglob("*.py")}
    assert {name for name in names if name.startswith("upbit_backbone/") and name.endswith(".py")} == sources


def can_be_built_from(source: Path) -> None:
    with tarfile.open(source) as archive:
        tops = {name.split("/")[1] for name in archive.getnames() if "/" in name}
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE", "upbit_backbone"} <= tops
    assert "upbit_backbone/unify/_scanner.c" in names
    assert "tests" not in tops  # a part of them would be of no use


def imports_from(folder: Path, elsewhere: Path) -> None:
    script = "import upbit_backbone as ub, pathlib; print(pathlib.Path(ub.__file__).parents[1], ub.__version__)"
    done = python(script, path=folder, cwd=elsewhere)
    assert done.stderr == ""
    where, version = done.stdout.split()
    assert Path(where) == folder
    assert version == VERSION


def types_strictly(folder: Path, elsewhere: Path) -> None:
    """Without our own mypy settings: what a user's type checker sees of the installed package."""
    if importlib.util.find_spec("mypy") is None:
        return  # only the environments that lint have it
    api = Path(__file__).with_name("typing_api.py")
    options = ["--strict", "--config-file=", "--follow-imports=silent", "--cache-dir", str(elsewhere / "cache")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(api)],
        env=os.environ | {"MYPYPATH": str(folder)}, cwd=elsewhere, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_one_version_everywhere() -> None:
    import upbit_backbone

    assert upbit_backbone.__version__ == VERSION


def test_the_metadata_names_what_it_needs() -> None:
    needed = {line.split(">")[0].split("<")[0].split(";")[0].strip()
              for line in importlib.metadata.requires("upbit-backbone") or [] if "extra" not in line}  # fmt: skip
    chosen = {"requests", "websocket-client", "dataclasses-json", "pybreaker", "cachetools", "msgspec"}
    assert needed == chosen | {"urllib3"}  # which comes with requests, and is named for its version alone
    scripts = {each.name for each in importlib.metadata.distribution("upbit-backbone").entry_points}
    assert {"upbit-backbone", "upbit-backbone-simulator"} <= scripts


def test_importing_touches_no_network_and_starts_no_thread() -> None:
    script = """
import sys, threading
touched = []
sys.addaudithook(lambda event, _: event.startswith("socket.") and touched.append(event))
import upbit_backbone
from upbit_backbone import *
print(touched)
market = MarketDataBackbone()
print(threading.active_count(), [event for event in touched if event not in ("socket.__new__", "socket.bind")])
"""
    done = python(script)
    # What is bound for a moment by making an object is urllib3's question whether this machine has IPv6.
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n1 []\n", "")


def test_importing_warns_of_nothing() -> None:
    done = python("import upbit_backbone, upbit_backbone.simulator", "-W", "error")
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_needs_to_be_importable_but_what_is_named_in_the_metadata() -> None:
    """Every module of the core can be imported while the extras' packages are missing."""
    script = """
import importlib, pkgutil, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"pandas", "pyarrow", "rich", "typer", "qtpy", "pyqtgraph", "numpy",
                                  "prometheus_client", "trustme", "redis", "psycopg", "duckdb", "polars"}:
            raise ModuleNotFoundError(f"no {name} here", name=name)
sys.meta_path.insert(0, Missing())
import upbit_backbone
EDGES = ("upbit_backbone.cli", "upbit_backbone.qt", "upbit_backbone.simulator", "upbit_backbone.monitoring.prometheus")
EDGES += ("upbit_backbone._pyinstaller.hook-", "upbit_backbone.sinks.postgres", "upbit_backbone.sinks.redis_streams")
EDGES += ("upbit_backbone.relay", "upbit_backbone.upstream", "upbit_backbone.wire.redis_server")
for module in pkgutil.walk_packages(upbit_backbone.__path__, "upbit_backbone.", onerror=lambda name: None):
    if not module.name.startswith(EDGES):
        importlib.import_module(module.name)
print("ok")
"""
    done = python(script)
    assert done.stdout == "ok\n", done.stderr


def test_the_public_names_are_there_and_only_names() -> None:
    import upbit_backbone

    assert sorted(set(upbit_backbone.__all__)) == sorted(upbit_backbone.__all__)
    assert [name for name in upbit_backbone.__all__ if not hasattr(upbit_backbone, name)] == []


@pytest.mark.skipif(sys.version_info < (3, 13), reason="isolated subinterpreters can be made from Python 3.13 on")
def test_an_isolated_subinterpreter_is_told_in_one_sentence() -> None:
    script = """
import _interpreters
failure = _interpreters.run_string(_interpreters.create(), "from upbit_backbone import MarketDataBackbone")
print(failure.msg)
"""
    done = python(script)
    assert done.stdout.startswith("upbit_backbone does not work in an isolated subinterpreter"), done.stderr
    assert done.stdout.endswith("use threads, or processes\n")
