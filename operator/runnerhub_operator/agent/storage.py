"""The shared storage check: write a file, read it back."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..errors import ProbeError
from .checks import Details

_PREFIX: Final = ".runnerhub-ha-probe-"
# Pods of a Deployment have a new name each; the file of one that runs is written all the time.
_OLD_SECONDS: Final = 86_400.0


class StorageProbe:
    """Writes and reads one small file of this node below the shared path.

    File access on a lost NFS server hangs for ever and cannot be cancelled, so each probe has a thread of its
    own, and there is no further one while that hangs. The first also removes the files of pods that are long gone.
    """

    def __init__(self, node: str, path: Path) -> None:
        self._file = path / f"{_PREFIX}{node}"
        self._swept = False
        self._thread: threading.Thread | None = None

    async def __call__(self) -> Details:
        """Probe once; ProbeError when the file cannot be written and read back."""
        if self._thread is not None and self._thread.is_alive():
            raise ProbeError("an earlier access still hangs")
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Exception | None] = loop.create_future()

        def tell(error: Exception | None) -> None:
            if not result.done():
                result.set_result(error)

        def work() -> None:
            error: Exception | None = None
            try:
                self._write_and_read()
            except OSError as caught:
                error = caught
            # The loop may have ended meanwhile: nobody waits for the answer any more.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(tell, error)
            if error is None and not self._swept:
                self._swept = True
                # A large folder takes long, which is no sign that the storage is lost.
                threading.Thread(target=self._sweep, name="storage-sweep", daemon=True).start()

        self._thread = threading.Thread(target=work, name="storage-probe", daemon=True)
        self._thread.start()
        if (error := await result) is not None:
            raise ProbeError(f"{type(error).__name__}: {error}") from error
        return {"path": str(self._file.parent)}

    def _write_and_read(self) -> None:
        content = str(time.time_ns())
        self._file.write_text(content)
        if self._file.read_text() != content:
            raise OSError(f"{self._file} does not read back what was written")

    def _sweep(self) -> None:
        # By the storage's own clock, which wrote both times.
        with suppress(OSError):
            oldest = self._file.stat().st_mtime - _OLD_SECONDS
            for file in self._file.parent.glob(f"{_PREFIX}*"):
                with suppress(OSError):
                    if file.stat().st_mtime < oldest:
                        file.unlink()
