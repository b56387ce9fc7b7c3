"""What checks give: findings, each with what a person can do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ..errors import Exit
from ..kubectl import Unknown
from ..objects import Pod
from ..steps import remedy
from ..times import age
from .facts import Facts


class Level(StrEnum):
    """How bad a finding is. `note` needs nobody, `unknown` could not be looked at."""

    OK = "ok"
    NOTE = "note"
    UNKNOWN = "unknown"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found. `remedy`: what to do, as a sentence; `command`: how, when one command does it or shows more."""

    check: str
    level: Level
    message: str
    remedy: str = ""
    command: str = ""


def exit_code(findings: tuple[Finding, ...]) -> Exit:
    """0 when nothing needs anybody, 1 with warnings, 2 with errors."""
    levels = {finding.level for finding in findings}
    if Level.ERROR in levels:
        return Exit.CRITICAL
    return Exit.WARNING if Level.WARNING in levels else Exit.OK


def unknown(check: str, fact: Unknown) -> Finding:
    return Finding(check, Level.UNKNOWN, f"could not be looked at: {fact.why}")


def pod_finding(check: str, pod: Pod, facts: Facts, command: str) -> Finding:
    lasting = age(pod.ready_since or pod.created, facts.now)
    said = f": {pod.message}" if pod.message else ""
    where = f" on {pod.node}" if pod.node else ""
    what = pod.trouble or ("not ready" if pod.phase == "Running" else pod.phase)
    return Finding(
        check,
        Level.ERROR if pod.trouble else Level.WARNING,
        f"{pod.name}{where}: {what} for {lasting}{said}",
        remedy(pod.trouble) or "See its Events.",
        command,
    )
