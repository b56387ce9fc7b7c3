"""The files that HAProxy is to work by: read where they are mounted, checked in a copy, kept as another.

HAProxy reads the kept copy only, so that what Kubernetes renews between the check and the reload does no harm, and a
container that starts anew has the last good files when the mounted ones are bad.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from .settings import CONFIGURATION, Settings

Files = Mapping[str, bytes]

CHECK_SECONDS = 30.0
_LONGEST_REASON = 1000
_ALERT = re.compile(r"^\[ALERT\]\s+\(\d+\) : (config : )?")
_SUMMARY = re.compile(r"^(Error\(s\) found in configuration file|Fatal errors found in configuration)")


def read(settings: Settings) -> Files:
    """All files of the mounted folders."""
    return {name: content for folder in settings.sources for name, content in read_folder(folder).items()}


def read_folder(folder: Path) -> Files:
    """The files of one folder, none when it is not there; what Kubernetes keeps for itself begins with two dots."""
    if not folder.is_dir():
        return {}
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if not path.name.startswith("..") and path.is_file()
    }


def digest(files: Files) -> str:
    """Of the configuration alone, which the operator can compare with what it wrote."""
    return hashlib.sha256(files.get(CONFIGURATION, b"")).hexdigest()


def refusal(settings: Settings, files: Files) -> str | None:
    """Why HAProxy would not start with these files, in its own words; None: it would."""
    _write(settings.next, files)
    return check(settings, settings.next)


def check(settings: Settings, folder: Path) -> str | None:
    """The same of files that are in a folder already."""
    try:
        done = subprocess.run(
            ["haproxy", "-c", "-f", folder / CONFIGURATION],
            env=environment(settings, folder),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CHECK_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"haproxy -c did not end within {CHECK_SECONDS:.0f} s"
    if done.returncode == 0:
        return None
    # Without process id and folder, so that the same reason has the same words each time.
    alerts = [_ALERT.sub("", line) for line in done.stderr.splitlines() if _ALERT.match(line)]
    told = "; ".join(line for line in alerts if not _SUMMARY.search(line)).replace(f"{folder}/", "")
    return (told or f"haproxy -c ended with {done.returncode}")[:_LONGEST_REASON]


def keep(settings: Settings) -> None:
    """What was checked becomes what HAProxy reads."""
    shutil.rmtree(settings.former, ignore_errors=True)
    if settings.current.is_dir():
        settings.current.rename(settings.former)
    settings.next.rename(settings.current)


def restore(settings: Settings) -> None:
    """What HAProxy read before is again what a container that starts anew has."""
    shutil.rmtree(settings.current, ignore_errors=True)
    settings.former.rename(settings.current)


def environment(settings: Settings, folder: Path) -> dict[str, str]:
    """What the configuration names by variables."""
    return {**os.environ, "SERVICE_DOMAIN": settings.service_domain, "CONFIG_DIR": str(folder)}


def _write(folder: Path, files: Files) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    for name, content in files.items():
        (folder / name).write_bytes(content)
