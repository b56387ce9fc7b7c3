"""Every command of the documentation is run by the end-to-end tests, or says why not, and can be typed as it is."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from kindbed import gotools
from runnerhub_cli.app import app
from runnerhub_operator.resources.common import Images
from tests import doc_commands
from tests.doc_commands import ROOT, UnmarkedBlockError

PROGRAMS = re.compile(r"(?:^|[|&;(]|\bbe |\bdo )\s*(kubectl|helm|make) ([^|&;)\n]*)", re.MULTILINE)
INLINE = re.compile(r"(?<!`)`((?:kubectl|helm|make) [^`]+)`(?!`)")
WORD = re.compile(r"[a-z][a-z-]*")
FLAG = re.compile(r"(?<!\S)(--?[a-zA-Z][a-zA-Z-]*)")
PAGES = [path for path in (*sorted(doc_commands.DOCS.rglob("*.md")), ROOT / "README.md") if path.is_file()]


@pytest.mark.parametrize("page", doc_commands.pages())
def test_every_block_is_run_or_says_why_not(page: str) -> None:
    assert {block.language for block in doc_commands.blocks(page)} <= {"sh", "yaml", "text"}


def test_most_pages_have_commands_that_are_run() -> None:
    assert doc_commands.runnable_pages()[0] == doc_commands.QUICK_START
    assert len(doc_commands.runnable_pages()) >= len(doc_commands.pages()) - 1


def test_marks_are_read_with_their_block() -> None:
    text = "<!-- run -->\n```sh\ntrue\n```\n\n<!-- not run: no disk -->\n```sh\nfalse\nfalse\n```\n"
    first, second = doc_commands.fences("page.md", text)
    assert (first.text, first.reason, first.place) == ("true", None, "docs/page.md:3")
    assert (second.text, second.reason, second.place) == ("false\nfalse", "no disk", "docs/page.md:8")
    for unmarked in ("```sh\ntrue\n```", "<!-- not run: -->\n```sh\ntrue\n```", "text\n```sh\ntrue\n```"):
        with pytest.raises(UnmarkedBlockError):
            list(doc_commands.fences("page.md", unmarked))


@pytest.mark.parametrize("page", doc_commands.pages())
def test_every_block_is_a_shell_script(page: str) -> None:
    for block in doc_commands.commands(page):
        done = subprocess.run(
            ["bash", "-n"], input=block.text, capture_output=True, text=True, check=False, timeout=30
        )
        assert done.returncode == 0, f"{block.place}: {done.stderr}"


def test_every_image_that_operator_and_clusters_need_is_put_into_the_registry() -> None:
    (block,) = [block for block in doc_commands.commands("install.md") if "docker push" in block.text]
    named = re.search(r"for name in (.+); do", block.text)
    assert named is not None
    assert set(named[1].split()) == {image.name for image in fields(Images)}


def _typed(path: Path) -> Iterator[tuple[str, str]]:
    """Program and arguments of each command of a page, in blocks and in the text."""
    text = path.read_text()
    scripts = [block.text for block in doc_commands.every_fence(text) if block.language in ("", "sh")]
    inline = [" ".join(found.split()) for found in INLINE.findall(text)]
    for script in (*scripts, *inline):
        # What stands in single quotes are values.
        plain = re.sub(r"'[^']*'", "VALUE", script.replace("\\\n", " "))
        yield from PROGRAMS.findall(plain)


@cache
def _help_flags(program: str, *words: str) -> frozenset[str]:
    binary = str(gotools.ensure(program)[program])

    def told(*arguments: str) -> str:
        done = subprocess.run([binary, *arguments], capture_output=True, text=True, check=False, timeout=60)
        return done.stdout + done.stderr

    text = told(*words, "--help") + (told("options") if program == "kubectl" else "")
    return frozenset(re.findall(r"(?:^|[\s,])(--?[a-zA-Z][a-zA-Z-]*)", text))


def _plugin_flags(words: list[str]) -> frozenset[str]:
    group: Any = get_command(app)
    command = group.commands[words[0]] if words else group
    return frozenset(
        flag for item in command.params for flag in (*item.opts, *item.secondary_opts) if flag[0] == "-"
    ) | {"--help"}


def _known_flags(program: str, arguments: str) -> frozenset[str]:
    words = []
    for word in arguments.split():
        if not WORD.fullmatch(word):
            break
        words.append(word)
    if program == "kubectl" and words[:1] == ["runnerhub"]:
        return _plugin_flags(words[1:])
    depth = 2 if words[:1] == ["config"] or words[:2] == ["create", "secret"] else 1
    return _help_flags(program, *words[:depth], *(words[2:3] if words[:2] == ["create", "secret"] else []))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_have_only_flags_that_their_programs_know(path: Path) -> None:
    for program, arguments in _typed(path):
        if program == "make" or arguments.startswith(("COMMAND", "runnerhub COMMAND")):
            continue
        own = re.split(r"\s--(?:\s|$)", f" {arguments}")[0]
        flags = set(FLAG.findall(own))
        unknown = flags - {"--help"} - _known_flags(program, arguments.strip()) if flags else set()
        assert unknown == set(), f"{program} {arguments}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_targets_of_make_exist(path: Path) -> None:
    known = set()
    for makefile in (ROOT / "Makefile", ROOT / "e2e" / "kind" / "kind.mk"):
        known |= set(re.findall(r"^([a-z0-9-]+):", makefile.read_text(), re.MULTILINE))
    for program, arguments in _typed(path):
        if program == "make":
            targets = {word for word in arguments.partition("#")[0].split() if WORD.fullmatch(word)}
            assert targets <= known, arguments
