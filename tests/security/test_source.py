"""What must never stand in the source: nothing switches TLS off, nothing runs what it was given, no shell."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "upbit_backbone").rglob("*.py"))

FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "marshal.loads",
    "yaml.load", "shelve.open", "ssl._create_unverified_context", "ssl.wrap_socket", "websocket.enableTrace",
    "requests.get", "requests.request", "requests.Session",
}  # fmt: skip
FORBIDDEN_NAMES = {"CERT_NONE", "CERT_OPTIONAL", "_create_unverified_context", "sslopt", "http_proxy_host"}
FORBIDDEN_VALUES = {("verify", False), ("shell", True), ("check_hostname", False), ("trust_env", True)}


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def offences(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        is_empty = isinstance(node, ast.Call) and [ast.unparse(each) for each in node.args] == ["''"]  # does nothing
        if isinstance(node, ast.Call) and dotted(node.func) in FORBIDDEN_CALLS and not is_empty:
            yield f"line {node.lineno}: {dotted(node.func)}()"
        if isinstance(node, ast.Attribute | ast.Name):
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            if name in FORBIDDEN_NAMES:
                yield f"line {node.lineno}: {name}"
        given: list[tuple[str, ast.expr]] = []
        if isinstance(node, ast.Call):
            given = [(each.arg, each.value) for each in node.keywords if each.arg]
        elif isinstance(node, ast.Assign):
            given = [(dotted(target).rpartition(".")[2], node.value) for target in node.targets]
        for name, value in given:
            if isinstance(value, ast.Constant) and (name, value.value) in FORBIDDEN_VALUES:
                yield f"line {value.lineno}: {name}={value.value}"


@pytest.mark.parametrize(
    "hole",
    [
        "eval(x)",
        "ctx.check_hostname = False",
        "run(x, shell=True)",
        "pickle.loads(x)",
        "ssl.CERT_NONE",
        "get(verify=False)",
    ],
)
def test_the_search_finds_what_it_looks_for(hole: str) -> None:
    assert list(offences(ast.parse(hole)))


def test_no_source_holds_any_of_it() -> None:
    assert len(SOURCES) > 150
    found = {str(path.relative_to(ROOT)): list(offences(ast.parse(path.read_text("utf-8")))) for path in SOURCES}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_tls_settings_are_made_in_one_place() -> None:
    """The simulator and the command line's doctor aside, one function makes the only TLS context there is."""
    makers = [path for path in SOURCES if "create_default_context" in path.read_text("utf-8")]
    outside = [path for path in makers if not {"simulator", "cli"} & set(path.parts)]
    assert [path.name for path in outside] == ["trust.py"]


def test_the_tls_context_verifies_names_and_certificates_and_cannot_be_told_otherwise() -> None:
    import inspect
    import ssl

    from upbit_backbone.wire.trust import tls_context

    context = tls_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert list(inspect.signature(tls_context).parameters) == ["ca_file"]
