"""The findings on a screen: what is fine first, what needs somebody last, next to the prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .findings import Finding, Level

_STYLES = {
    Level.OK: "green",
    Level.NOTE: "cyan",
    Level.UNKNOWN: "magenta",
    Level.WARNING: "yellow",
    Level.ERROR: "bold red",
}
_WORDS = {Level.OK: "fine", Level.NOTE: "notes", Level.UNKNOWN: "not looked at", Level.WARNING: "warnings"}
_ONE = {Level.NOTE: "note", Level.WARNING: "warning", Level.ERROR: "error"}


def findings_screen(findings: Sequence[Finding]) -> RenderableType:
    """All findings with their remedies, and a last line that counts them."""
    order = list(Level)
    width = max((len(finding.check) for finding in findings), default=0)
    lines: list[RenderableType] = []
    for finding in sorted(findings, key=lambda item: order.index(item.level)):
        indent = 9 + width + 2
        lines.append(
            _hanging(
                Text.assemble(
                    (f"{finding.level.upper():<9}", _STYLES[finding.level]),
                    (f"{finding.check:<{width}}  ", "bold"),
                ),
                Text(finding.message),
            )
        )
        if finding.remedy:
            lines.append(Padding(Text(f"-> {finding.remedy}"), (0, 0, 0, indent)))
        if finding.command:
            lines.append(Padding(Text(f"$ {finding.command}", style="cyan"), (0, 0, 0, indent + 3)))
    return Group(*lines, Text(""), Text(counted(findings), style="bold"))


def _hanging(head: Text, body: Text) -> RenderableType:
    grid = Table.grid()
    grid.add_column(no_wrap=True, width=head.cell_len)
    grid.add_column(overflow="fold")
    grid.add_row(head, body)
    return grid


def counted(findings: Sequence[Finding]) -> str:
    """How many of each, the worst first."""
    counts = Counter(finding.level for finding in findings)
    parts = []
    for level in reversed(Level):
        count = counts[level]
        if count:
            word = _ONE.get(level, "") if count == 1 else ""
            parts.append(f"{count} {word or _WORDS.get(level, 'errors')}")
    return ", ".join(parts) or "nothing was looked at"
