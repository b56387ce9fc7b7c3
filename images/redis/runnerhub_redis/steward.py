"""Keeps a running Sentinel at what the settings say: one master, its name, its quorum, its times.

Sentinel takes each of these from whoever has its password, and remembers it over restarts.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence

from .log import log
from .network import LOCAL, NO_ANSWER
from .resp import Connection, Reply, pairs
from .settings import PORT_SENTINEL, Settings

LOOK_SECONDS = 10.0
CALL_SECONDS = 3.0


def watch(settings: Settings) -> None:
    """Look again and again; ends this program when Sentinel no longer watches the master at all."""
    while True:
        time.sleep(LOOK_SECONDS)
        try:
            watches = correct(settings.today())
        except NO_ANSWER:
            # Sentinel starts or ends, and its probes tell when it hangs; or the settings are just being replaced.
            continue
        if not watches:
            # The next life asks the others who the master is.
            log("this Sentinel watches no master of that name; it starts anew", name=settings.master_name)
            os.kill(os.getpid(), signal.SIGTERM)
            return


def correct(settings: Settings) -> bool:
    """Set right what differs; whether the master is watched. Raises one of NO_ANSWER."""
    with Connection(
        LOCAL, PORT_SENTINEL, settings.sentinel_login, deadline_seconds=CALL_SECONDS
    ) as connection:
        masters = _masters(connection.call("SENTINEL", "MASTERS"))
        for command in corrections(masters, settings):
            log("Sentinel is set right", command=" ".join(command))
            connection.call(*command)
    return any(master["name"] == settings.master_name for master in masters)


def corrections(masters: Sequence[Mapping[str, str]], settings: Settings) -> list[tuple[str, ...]]:
    """The commands that make of what SENTINEL MASTERS tells what the settings say."""
    wanted = {
        "quorum": settings.quorum,
        "down-after-milliseconds": settings.down_after_milliseconds,
        "failover-timeout": settings.failover_timeout_milliseconds,
        "parallel-syncs": settings.parallel_syncs,
    }
    found: list[tuple[str, ...]] = []
    for master in masters:
        if master["name"] != settings.master_name:
            found.append(("SENTINEL", "REMOVE", master["name"]))
            continue
        found += [
            ("SENTINEL", "SET", master["name"], option, str(value))
            for option, value in wanted.items()
            if master.get(option) != str(value)
        ]
    return found


def _masters(reply: Reply) -> list[dict[str, str]]:
    return [pairs(item) for item in reply] if isinstance(reply, list) else []
