"""The screens for people: the summary of a cluster, elections, Leases."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from runnerhub_operator.api import NEARLY_FULL_PERCENT, Failover

from .errors import Exit
from .objects import Lease
from .output import LEVEL_STYLES, table
from .picture import Component, Member
from .status import ConditionRow, Summary
from .times import age, span

# A screen has room for a few; `failovers` shows all.
_FAILOVERS_ON_SCREEN = 4
_LEVEL_WORDS = {Exit.OK: "OK", Exit.WARNING: "WARNING", Exit.CRITICAL: "CRITICAL", Exit.UNKNOWN: "UNKNOWN"}


def level_text(level: Exit) -> Text:
    """The word of a level in its colour."""
    return Text(_LEVEL_WORDS[level], style=LEVEL_STYLES[level])


def summary_screen(summary: Summary, now: datetime, *, wide: bool) -> RenderableType:
    """All there is to know of one cluster."""
    head = Text.assemble(
        level_text(summary.level),
        "  ",
        (f"{summary.name}", "bold"),
        f" in {summary.namespace}: {summary.phase}, created {age(summary.created, now)} ago",
    )
    parts: list[RenderableType] = [
        head,
        Text(summary.headline, style=LEVEL_STYLES[summary.level]),
        Text(f"Operator: {summary.operator}"),
    ]
    if summary.going_on:
        parts += _section("What is going on", *(Text(line) for line in summary.going_on))
    facts = [Text(f"{item.name}: {', '.join(item.facts)}") for item in summary.components if item.facts]
    parts += _section("Components", _components(summary.components, now, wide=wide), *facts)
    if summary.conditions:
        parts += _section("Conditions", _conditions(summary.conditions, now))
    if summary.failovers:
        parts += _section(
            "Last elections", failovers_table(summary.failovers[:_FAILOVERS_ON_SCREEN], now, wide=wide)
        )
    parts += _section(
        "Next step", *(line for step in summary.next_steps for line in step_lines(step.text, step.command))
    )
    return Group(*parts)


def step_lines(text: str, command: str) -> list[RenderableType]:
    """A step, and its command on a line of its own, to be copied."""
    shown: list[RenderableType] = [Text(text)]
    if command:
        shown.append(Padding(Text(f"$ {command}", style="cyan"), (0, 0, 0, 2)))
    return shown


def _section(title: str, *parts: RenderableType) -> list[RenderableType]:
    return [Text(""), Text(title, style="bold underline"), *parts]


def _components(components: Sequence[Component], now: datetime, *, wide: bool) -> Table:
    head = ["COMPONENT", "READY", "POD", "ROLE", "STATE", "LAG", "VOLUME", "RESTARTS", "AGE"]
    rows = []
    for component in components:
        wanted = "?" if component.wanted is None else str(component.wanted)
        full = component.wanted is None or component.ready >= component.wanted
        ready = Text(f"{component.ready}/{wanted}", style="" if full else "yellow")
        first: list[str | Text] = [component.name, ready]
        for member in component.members or (None,):
            cells = _member(member, now, wide=wide) if member is not None else ["no pods"]
            rows.append([*first, *cells])
            first = ["", ""]
    return table([*head, "NODE", "IP"] if wide else head, rows)


def _member(member: Member, now: datetime, *, wide: bool) -> list[str | Text]:
    percent = member.volume_used_percent
    volume = Text("" if percent is None else f"{percent} %")
    if (percent or 0) >= NEARLY_FULL_PERCENT:
        volume.stylize("bold red")
    cells: list[str | Text] = [
        member.name,
        Text(member.role, style="bold" if member.role in ("primary", "master", "leader") else ""),
        Text(member.state, style="" if member.ready else "bold red"),
        member.lag,
        volume,
        Text(str(member.restarts), style="yellow" if member.restarts else ""),
        age(member.created, now),
    ]
    return [*cells, member.node, member.ip] if wide else cells


def _conditions(rows: Sequence[ConditionRow], now: datetime) -> Table:
    styles = {True: "green", False: "bold red", None: "yellow"}
    return table(
        ["CONDITION", "STATUS", "FOR", "REASON", "MESSAGE"],
        (
            [row.type, Text(row.status, style=styles[row.good]), age(row.since, now), row.reason, row.text]
            for row in rows
        ),
    )


def failovers_table(failovers: Sequence[Failover], now: datetime, *, wide: bool) -> Table:
    """Elections, newest first."""
    head = ["AGO", "COMPONENT", "FROM", "TO", "TOOK", "CAUSE"]
    rows: list[list[str | Text]] = []
    for item in failovers:
        took = "-" if item.duration_seconds is None else f"{item.duration_seconds:.1f}s"
        row: list[str | Text] = [
            age(item.at, now),
            item.component,
            item.from_ or "-",
            item.to,
            took,
            item.cause,
        ]
        rows.append([*row, item.at] if wide else row)
    return table([*head, "AT"] if wide else head, rows)


def leases_table(rows: Sequence[tuple[Lease, str]], now: datetime, *, wide: bool) -> Table:
    """Leases, each with what it is for."""
    head = ["LEASE", "HOLDER", "FOR", "CHANGES", "RENEWED", "WHAT IT IS FOR"]
    shown = []
    for lease, purpose in rows:
        renewed = f"{age(lease.renewed, now)} ago" if lease.renewed else "-"
        if lease.duration_seconds:
            renewed += f" (expires after {span(lease.duration_seconds)})" if wide else ""
        held = age(lease.acquired, now)
        cells = [lease.name, lease.holder or "nobody", held, str(lease.transitions), renewed, purpose]
        shown.append([*cells, lease.namespace] if wide else cells)
    return table([*head, "NAMESPACE"] if wide else head, shown)
