"""`doctor`: is everything between here and Upbit well, and if not, what to do."""

from __future__ import annotations

from rich.text import Text

from ..config import BackboneConfig
from . import output
from .doctor_checks import Finding, Verdict, examine
from .running import FOUND_TROUBLE, Json, command, overrides

MARKS = {Verdict.OK: ("✔", "green"), Verdict.NOTE: ("•", "yellow"), Verdict.BAD: ("✘", "bold red")}


@command
def doctor(json: Json = False) -> int:
    """Check versions, DNS, TLS, REST, WebSocket, Origin, clock and limits; say what to do."""
    config = BackboneConfig.from_environment(**overrides)
    findings = []
    for finding in examine(config):
        findings.append(finding)
        if not json:
            _show(finding)
    is_well = all(finding.verdict is not Verdict.BAD for finding in findings)
    if json:
        rows = [
            {"check": f.check, "verdict": f.verdict.value, "detail": f.detail, "advice": f.advice} for f in findings
        ]
        output.print_json({"ok": is_well, "findings": rows})
    else:
        print("Everything is well." if is_well else "Something is wrong; see the lines with ✘.")
    return 0 if is_well else FOUND_TROUBLE


def _show(finding: Finding) -> None:
    mark, style = MARKS[finding.verdict]
    detail = output.safe(finding.detail, 400)
    if output.is_terminal():
        output.console.print(Text.assemble((mark, style), f" {finding.check:<10} ", detail))
    else:
        print(f"{mark} {finding.check:<10} {detail}", flush=True)
    if finding.verdict is Verdict.BAD and finding.advice:
        print(f"  → {finding.advice}", flush=True)
