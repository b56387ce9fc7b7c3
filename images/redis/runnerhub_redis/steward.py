"""Keeps a running Sentinel at what the settings say: one master, its name, its quorum, its times.

Sentinel takes each of these from whoever has its password, and remembers it over restarts.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence

from .handover import INFO_PERIOD, INFO_PERIOD_NOW
from .log import log
from .network import LOCAL, NO_ANSWER
from .resp import Connection, Reply, pairs
from .settings import PORT_SENTINEL, Settings

LOOK_SECONDS = 10.0
CALL_SECONDS = 3.0
_DOWN_AFTER, _REBOOT_DOWN_AFTER = "down-after-milliseconds", "master-reboot-down-after-period"


def watch(settings: Settings) -> None:
    """Look again and again; ends this program when Sentinel no longer watches the master at all."""
    hurried = False
    while True:
        time.sleep(LOOK_SECONDS)
        try:
            watches = correct(settings.today())
            hurried = pace(settings, hurried=hurried)
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
        _DOWN_AFTER: settings.down_after_milliseconds,
        "failover-timeout": settings.failover_timeout_milliseconds,
        "parallel-syncs": settings.parallel_syncs,
    }
    found: list[tuple[str, ...]] = []
    for master in masters:
        if master["name"] != settings.master_name:
            found.append(("SENTINEL", "REMOVE", master["name"]))
            continue
        differs = {option: str(value) for option, value in wanted.items() if master.get(option) != str(value)}
        if _DOWN_AFTER in differs:
            # Sentinel does not tell this one. It goes first: whoever finds the other right takes it for right, too.
            differs = {_REBOOT_DOWN_AFTER: differs[_DOWN_AFTER], **differs}
        found += [("SENTINEL", "SET", master["name"], option, value) for option, value in differs.items()]
    return found


def pace(settings: Settings, *, hurried: bool) -> bool:
    """Whether Sentinel hurries; it is given its pace, unless it hurries and did not at the look before.

    A hand-over makes it hurry for a moment, and may end before it takes that back. Sentinel forgets its pace when it
    starts. Raises one of NO_ANSWER.
    """
    with Connection(
        LOCAL, PORT_SENTINEL, settings.sentinel_login, deadline_seconds=CALL_SECONDS
    ) as connection:
        period = pairs(connection.call("SENTINEL", "DEBUG"))["INFO-PERIOD"]
        hurries = period == str(INFO_PERIOD_NOW)
        if period != str(INFO_PERIOD) and (hurried or not hurries):
            log("Sentinel is given its pace", info_period=INFO_PERIOD, before=period)
            connection.call("SENTINEL", "DEBUG", "INFO-PERIOD", str(INFO_PERIOD))
    return hurries


def _masters(reply: Reply) -> list[dict[str, str]]:
    return [pairs(item) for item in reply] if isinstance(reply, list) else []
