"""Output: tables for people, JSON and YAML for programs; plain where nobody looks at a terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from enum import Enum, StrEnum
from typing import Any, Final, TextIO

import yaml
from pydantic import BaseModel
from pydantic.alias_generators import to_camel
from rich.console import Console, RenderableType
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from .errors import Exit

# Wide enough that nothing is wrapped where a program reads; lines end where their text does.
_UNBOUNDED: Final = 2000

LEVEL_STYLES: Final[Mapping[Exit, str]] = {
    Exit.OK: "green",
    Exit.WARNING: "yellow",
    Exit.CRITICAL: "bold red",
    Exit.UNKNOWN: "magenta",
}


class Format(StrEnum):
    """How results are shown."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


def is_plain(stream: TextIO) -> bool:
    """Whether a stream gets neither colours nor moving parts."""
    return not stream.isatty() or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


def console_for(stream: TextIO) -> Console:
    """A console that colours only what a person sees, and wraps only at the edge of a terminal."""
    plain = is_plain(stream)
    return Console(
        file=stream,
        width=None if stream.isatty() else _UNBOUNDED,
        no_color=plain,
        color_system=None if plain else "auto",
        force_terminal=False if plain else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )


def text_of(*parts: RenderableType, width: int = _UNBOUNDED) -> str:
    """Plain text, without spaces at the ends of lines."""
    console = Console(width=width, color_system=None, highlight=False, markup=False, emoji=False)
    with console.capture() as capture:
        console.print(*parts, sep="\n")
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def show(*parts: RenderableType) -> None:
    """Print parts below one another."""
    if is_plain(sys.stdout):
        console = console_for(sys.stdout)
        sys.stdout.write(text_of(*parts, width=console.width))
        return
    console_for(sys.stdout).print(*parts, sep="\n")


def show_data(value: object, style: Format) -> None:
    """Print a value as JSON or YAML."""
    sys.stdout.write(data_text(value, style))


def data_text(value: object, style: Format) -> str:
    """A value as JSON or YAML."""
    data = plain_data(value)
    if style is Format.YAML:
        return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=_UNBOUNDED))
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def plain_data(value: object) -> Any:
    """A value as JSON knows it, with names in camelCase as in the API; exit codes by name."""
    if isinstance(value, Exit):
        return value.name.lower()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    if is_dataclass(value) and not isinstance(value, type):
        return {to_camel(field.name): plain_data(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain_data(item) for item in value]
    return value


# What people copy stays in one piece where the terminal is narrow; sentences are broken first.
_WHOLE: Final = ("POD", "LEASE", "HOLDER", "FROM", "TO", "CONDITION", "REASON", "NODE")


def table(head: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """A table like those of kubectl: no lines, words in capitals on top. Nothing is cut."""
    made = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, header_style="bold", pad_edge=False)
    cells = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    for index, title in enumerate(head):
        widest = max((row[index].cell_len for row in cells if index < len(row)), default=0)
        made.add_column(title, overflow="fold", min_width=widest if title in _WHOLE else None)
    for row in cells:
        made.add_row(*row)
    return made


@contextmanager
def progress(what: str) -> Iterator[Progress]:
    """Something that moves on standard error while work takes long; nothing where nobody looks."""
    shown = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console_for(sys.stderr),
        transient=True,
        disable=is_plain(sys.stderr),
    )
    with shown:
        shown.add_task(what, total=None)
        yield shown
