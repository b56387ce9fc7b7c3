"""`python3 -m runnerhub_pooler`: the small program beside PgBouncer that pauses and resumes it."""

from __future__ import annotations

import signal
import sys
import threading

from . import database
from .console import Console
from .gate import Gate
from .haproxy import Proxy
from .log import log
from .server import serve
from .settings import load
from .successor import Scout


def main() -> int:
    """Run until told to stop; clients that are stopped then go on."""
    try:
        settings = load()
    except (OSError, KeyError, ValueError) as error:
        log("the pod is set up wrongly", error=repr(error))
        return 2
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    proxy = Proxy(settings.proxy_port)
    gate = Gate(Console(settings), Scout(settings, proxy))
    watcher = threading.Thread(target=gate.watch, daemon=True)
    watcher.start()
    serve(settings, gate, lambda: database.checkpoint(settings, proxy.servers()))
    # A thread that died would leave clients waiting: the container ends, and its next process lets them go.
    while not stop.wait(1.0):
        if not watcher.is_alive():
            log("the watch of the pause ended by itself")
            return 1
    gate.resume("this program was told to stop")
    return 0


if __name__ == "__main__":
    sys.exit(main())
