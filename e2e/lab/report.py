"""Reports: JSON for tools, a table for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPORTS = Path(__file__).resolve().parents[2] / "build" / "reports"


def path(name: str) -> Path:
    """build/reports/<name>.json, whether it is there or not."""
    return REPORTS / f"{name}.json"


def write(name: str, content: Any) -> Path:
    """Write build/reports/<name>.json; its path."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    file = path(name)
    file.write_text(json.dumps(content, indent=2) + "\n")
    return file


def read(name: str) -> Any | None:
    """What build/reports/<name>.json has, None when it is not there."""
    file = path(name)
    return json.loads(file.read_text()) if file.exists() else None


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table with aligned columns."""
    text = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in text) for i in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in text
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
