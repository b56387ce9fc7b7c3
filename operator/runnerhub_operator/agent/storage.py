"""The shared storage check: write a file, read it back."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from pathlib import Path

from ..errors import ProbeError
from .checks import Details


class StorageProbe:
    """Writes and reads one small file of this node below the shared path.

    File access on a lost NFS server hangs for ever and cannot be cancelled, so each probe has a thread of its
    own, and there is no further one while that hangs.
    """

    def __init__(self, node: str, path: Path) -> None:
        self._file = path / f".runnerhub-ha-probe-{node}"
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
