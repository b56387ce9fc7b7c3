"""The plugin as one file has only the libraries of its group in pyproject.toml; see `make cli`."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

from tests.generate import ROOT

_IMPORT_EVERYTHING = """\
import importlib, pkgutil, sys
import runnerhub_cli
before = set(sys.modules)
for module in pkgutil.walk_packages(runnerhub_cli.__path__, "runnerhub_cli."):
    if module.name != "runnerhub_cli.__main__":
        importlib.import_module(module.name)
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))
"""


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def _with_what_they_need(requirements: list[str]) -> set[str]:
    """Names of distributions, with those that pip installs for them here."""
    found: set[str] = set()
    waiting = [_name(item) for item in requirements]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            more = requires(name) or ()
        except PackageNotFoundError:
            # For another kind of Python or machine.
            continue
        found.add(name)
        waiting += [_name(item) for item in more if "extra ==" not in item]
    return found


def test_the_one_file_has_all_that_the_plugin_imports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    inside = _with_what_they_need(project["dependency-groups"]["cli"])
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_EVERYTHING],
        env={"PYTHONPATH": str(ROOT / "operator")},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    owners = packages_distributions()
    imported = {_name(owner) for module in done.stdout.split() for owner in owners.get(module, ())}
    assert {"typer", "pydantic"} <= imported, "or the test would prove nothing"
    assert imported <= inside
