"""Where the test bed keeps things, and the content hashes that decide whether something must be made again."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

KIND_DIR = Path(__file__).resolve().parent.parent
REPOSITORY = KIND_DIR.parent.parent
BUILD_DIR = REPOSITORY / "build"
LOG_DIR = BUILD_DIR / "logs"
KUBECONFIG = BUILD_DIR / "kubeconfig"

HASH_LENGTH = 12


def cache_dir() -> Path:
    """Folder of everything that outlives a checkout: binaries, root file systems, locks."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = Path(root) / "runnerhub"
    path.mkdir(parents=True, exist_ok=True)
    return path


def content_hash(files: Iterable[Path], *words: str) -> str:
    """Hash of file contents, names and extra words; the same inputs give the same hash on every machine."""
    digest = hashlib.sha256()
    for word in words:
        digest.update(f"word:{word}\n".encode())
    for path in sorted(files):
        # Relative names keep the hash independent of where the checkout lies.
        name = path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else Path(path.name)
        executable = "x" if path.stat().st_mode & 0o100 else "-"
        digest.update(f"file:{name}:{executable}:{path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:HASH_LENGTH]


def files_below(folder: Path) -> list[Path]:
    """All regular files below a folder, without Python's byte code."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
