"""Every word that the operator tells by is explained in the documentation."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from runnerhub_operator.api import EventReason
from runnerhub_operator.api.events import EVENTS
from tests.generate import ROOT

OPERATOR = ROOT / "operator"
REFERENCE = ROOT / "docs" / "reference"
PACKAGES = {"runnerhub_operator", "runnerhub_orchestrator"}
# Tables of the ha-agents' probes.
TABLES = {"runnerhub_ha_probe", "runnerhub_ha_canary"}


def _written_events() -> Iterator[tuple[str, str]]:
    """Type and reason of each EventNote whose both are plain words in the code."""
    for path in OPERATOR.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            words = [item.value for item in node.args[:2] if isinstance(item, ast.Constant)]
            if node.func.id == "EventNote" and len(words) == 2:
                yield str(words[0]), str(words[1])


def test_every_event_has_an_entry_of_its_own_type() -> None:
    assert set(EVENTS) == set(get_args(EventReason))
    written = set(_written_events())
    assert len(written) > 15, "the search finds the code's Events"
    assert written <= {(item.type, reason) for reason, item in EVENTS.items()}


def _told_metrics(folder: Path) -> set[str]:
    """Names of metrics as they stand in the code; those that are put together end with an underscore."""
    pattern = re.compile(r"\"(runnerhub_(?:operator|cluster|ha|orchestrator)_[a-z_]+)")
    return {name for path in folder.rglob("*.py") for name in pattern.findall(path.read_text())}


def test_every_metric_has_an_entry() -> None:
    page = (REFERENCE / "metrics.md").read_text()
    names = _told_metrics(OPERATOR) - TABLES
    assert len(names) > 30, "the search finds the code's metrics"
    assert [name for name in sorted(names) if f"`{name}" not in page] == []


def test_the_documentation_speaks_of_no_metric_that_there_is_not() -> None:
    page = (REFERENCE / "metrics.md").read_text()
    pattern = re.compile(r"\brunnerhub_(?:operator|cluster|ha|orchestrator)_[a-z_]+[a-z]")
    for path in (ROOT / "docs").rglob("*.md"):
        named = set(pattern.findall(path.read_text())) - PACKAGES - TABLES
        missing = {name for name in named if name not in page}
        assert missing == set(), path.name
