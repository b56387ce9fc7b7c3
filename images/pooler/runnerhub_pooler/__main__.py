"""`python3 -m runnerhub_pooler`: the small program beside PgBouncer that pauses and resumes it."""

from __future__ import annotations

import signal
import sys
import threading

from . import drain
from .configuration import Configuration
from .console import Console
from .credentials import Credentials, Renewal, coming, in_effect
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
        credentials = Credentials(in_effect(settings), coming(settings))
    except (OSError, KeyError, ValueError) as error:
        log("the pod is set up wrongly", error=f"{type(error).__name__}: {error}")
        return 2
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    proxy = Proxy(settings.proxy_port)
    database = Database(settings, credentials)
    scout = Scout(database, proxy)
    locks = {port: threading.Lock() for _, port, _ in settings.routes}
    consoles = {port: Console(port, credentials.admins, lock) for port, lock in locks.items()}
    requests = {port: users.with_name(drain.REQUEST) for _, port, users in settings.routes}
    gate = Gate(consoles[settings.pooler_port], scout)
    readers = Readers(consoles[settings.read_only_port], proxy)

    def reload(port: int, *, log_in: bool) -> None:
        consoles[port].reload(log_in=log_in, is_held_back=lambda: gate.is_closed)

    renewal = Renewal(
        settings,
        credentials,
        lambda user, password: database.lets_in(proxy.servers(), user, password),
        lambda port: reload(port, log_in=True),
        lambda: gate.is_closed,
    )
    configuration = Configuration(
        {
            port: (mounted, users)
            for (_, port, users), mounted in zip(settings.routes, settings.configurations, strict=False)
        },
        lambda: database.room((*proxy.servers(), *proxy.servers(REPLICAS))),
        lambda port: reload(port, log_in=False),
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
            args=(consoles[port], requests[port], route, lambda: gate.is_closed),
            daemon=True,
        )
        for route, port, _ in settings.routes
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
        requests[settings.pooler_port].exists,
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
