"""Tables of the generated pages."""

from __future__ import annotations

from collections.abc import Iterable


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def row(*cells: str) -> str:
    """One line of a table."""
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table with its head."""
    return "\n".join([row(*head), f"|{'---|' * len(head)}", *(row(*cells) for cells in rows)]) + "\n"
