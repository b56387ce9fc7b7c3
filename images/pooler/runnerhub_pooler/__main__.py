"""`python3 -m runnerhub_pooler`: the small program beside PgBouncer that pauses and resumes it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Sequence

from . import drain
from .configuration import Configuration
from .console import Console
from .credentials import Credentials, Renewal, in_effect
from .database import Database
from .gate import Gate
from .haproxy import REPLICAS, Proxy
from .log import log
from .readers import Readers
from .readiness import closed_way
from .server import serve
from .settings import load
from .successor import Scout


def main() -> int:
    """Run until told to stop; clients that are stopped then go on."""
    try:
        settings = load()
        credentials = Credentials(in_effect(settings))
    except (OSError, KeyError, ValueError) as error:
        log("the pod is set up wrongly", error=f"{type(error).__name__}: {error}")
        return 2
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    proxy = Proxy(settings.proxy_port)
    database = Database(settings, credentials)
    scout = Scout(database, proxy)
    gate = Gate(Console(settings.pooler_port, credentials.admins), scout)
    readers = Readers(lambda: Console(settings.read_only_port, credentials.admins), proxy)
    reloads = threading.Lock()

    def reload(port: int, passwords: Callable[[], Sequence[str]], *, log_in: bool) -> None:
        # Logging in has PgBouncer go by other settings for a moment, which nobody else may end.
        with reloads:
            Console(port, passwords).reload(log_in=log_in)

    renewal = Renewal(
        settings,
        credentials,
        lambda user, password: database.lets_in(proxy.servers(), user, password),
        lambda port, passwords: reload(port, lambda: passwords, log_in=True),
        lambda: gate.is_closed,
    )
    configuration = Configuration(
        {
            port: (mounted, users)
            for (_, port, users), mounted in zip(settings.routes, settings.configurations, strict=False)
        },
        lambda: database.room((*proxy.servers(), *proxy.servers(REPLICAS))),
        lambda port: reload(port, credentials.admins, log_in=False),
        lambda: gate.is_closed,
    )
    threads = [
        threading.Thread(name=name, target=work, daemon=True)
        for name, work in (
            ("pause", gate.watch),
            ("primary", scout.watch),
            ("passwords", renewal.watch),
            ("configuration", configuration.watch),
            ("replicas that stop", readers.watch),
        )
    ]
    threads += [
        threading.Thread(
            name=f"drain of {route}",
            target=drain.watch,
            args=(
                Console(port, credentials.admins),
                users.with_name(drain.REQUEST),
                route,
                lambda: gate.is_closed,
            ),
            daemon=True,
        )
        for route, port, users in settings.routes
    ]
    for thread in threads:
        thread.start()
    serve(
        settings.port,
        credentials,
        gate,
        readers.leave,
        lambda: database.checkpoint(proxy.servers()),
        lambda: closed_way(settings, proxy),
        configuration.needs,
    )
    # A thread that died would leave clients waiting: the container ends, and its next process lets them go.
    while not stop.wait(1.0):
        for thread in threads:
            if not thread.is_alive():
                log("a watch ended by itself", of=thread.name)
                return 1
    gate.resume("this program was told to stop")
    return 0


if __name__ == "__main__":
    sys.exit(main())
