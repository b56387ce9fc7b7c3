"""Completion: `kubectl runnerhub <TAB>` is answered by a program that kubectl looks for under a name of its own.

Source: https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/#plugin-shell-completion
"""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout

from typer.main import get_command

from .app import app
from .entry import PROGRAM

# Of cobra, the library of kubectl: no files when there is nothing to offer; and files.
# Source: https://pkg.go.dev/github.com/spf13/cobra#ShellCompDirective
_NO_FILES, _FILES = ":4", ":0"
_VARIABLE = "_KUBECTL_RUNNERHUB_COMPLETE"
_TAKES_FILES = ("-f", "--filename", "--file", "--kubeconfig")


def complete(words: Sequence[str]) -> int:
    """Answer kubectl: a line for each offer, with a tab and a description, and a directive as the last."""
    offers = offered(words)
    before = words[-2] if len(words) > 1 else ""
    directive = _FILES if not offers and before in _TAKES_FILES else _NO_FILES
    sys.stdout.write("".join(f"{offer}\n" for offer in offers) + f"{directive}\n")
    return 0


def offered(words: Sequence[str]) -> list[str]:
    """What may come in place of the last word, as value or value, tab, description."""
    line = [PROGRAM, *words[:-1]]
    incomplete = shlex.quote(words[-1]) if words and words[-1] else ""
    # typer answers fish in just the form that kubectl wants.
    os.environ |= {
        _VARIABLE: "complete_fish",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_ARGS": f"{shlex.join(line)} {incomplete}",
    }
    caught = io.StringIO()
    try:
        with redirect_stdout(caught):
            get_command(app).main(args=[], prog_name=PROGRAM, complete_var=_VARIABLE)
    except SystemExit:
        pass
    finally:
        for name in (_VARIABLE, "_TYPER_COMPLETE_FISH_ACTION", "_TYPER_COMPLETE_ARGS"):
            os.environ.pop(name, None)
    return [line for line in caught.getvalue().splitlines() if line.strip()]
