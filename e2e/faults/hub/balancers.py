"""Deliberate changes of the load balancer under load."""

from __future__ import annotations

from contextlib import contextmanager

from ...lab.kubectl import KubectlError, wait_for
from .. import planned
from ..arena import Before
from ..fault import Break
from .arena import HubArena

_MEMORY_REQUESTS = ("66Mi", "70Mi")
# Kubernetes renews the files in pods about once a minute.
RELOADS = 2
RELOADED_SECONDS = 180
TOLD_SECONDS = 30
_SERVER_SECONDS = (61, 62)
_STATE = (
    "import urllib.request as r, json; "
    "print(json.load(r.urlopen('http://127.0.0.1:8405/state', timeout=5))['loaded'])"
)


@contextmanager
def rolling_update(arena: HubArena, _before: Before) -> Break:
    """Change the pod template of the load balancer."""
    planned.renew_pods(arena.hub, "loadBalancer", _MEMORY_REQUESTS)
    yield


def all_renewed(arena: HubArena, before: Before) -> bool:
    """Whether no pod of the load balancer is one of before."""
    uids = set(arena.poolers().values())
    return len(uids) == len(before.poolers) and not uids & set(before.poolers.values())


@contextmanager
def reload(arena: HubArena, _before: Before) -> Break:
    """Change a setting of HAProxy several times; each time every pod must have loaded it, and stay."""
    for _ in range(RELOADS):
        before = wait_for("every HAProxy to tell its settings", lambda: _loaded(arena), TOLD_SECONDS)
        now = planned.section(arena.hub, "loadBalancer").get("timeouts", {}).get("serverSeconds")
        timeouts = {"timeouts": {"serverSeconds": planned.other(_SERVER_SECONDS, now)}}
        planned.patch(arena.hub, "loadBalancer", timeouts)

        def reloaded(before: dict[str, str] = before) -> bool:
            loaded = _loaded(arena)
            return loaded.keys() == before.keys() and all(loaded[pod] != before[pod] for pod in before)

        wait_for("every HAProxy to work by the new settings", reloaded, RELOADED_SECONDS, every=2)
    yield


def same_pods(arena: HubArena, before: Before) -> bool:
    """Whether a reload renewed no pod."""
    return arena.poolers() == before.poolers


def _loaded(arena: HubArena) -> dict[str, str]:
    """By the name of each pod, the digest of what its HAProxy works by."""
    found = {}
    for pod in arena.poolers():
        try:
            found[pod] = arena.hub.kubectl(
                "exec", pod, "-c", "haproxy", "--", "python3", "-c", _STATE, timeout=20
            )
        except KubectlError:
            return {}
    return found
