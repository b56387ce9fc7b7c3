"""Replicas that readers left are used again: soon, whatever happens meanwhile, and before the next one is left."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from images.pooler.runnerhub_pooler.console import ConsoleError
from images.pooler.runnerhub_pooler.haproxy import ProxyError, Server
from images.pooler.runnerhub_pooler.readers import AVOIDED_SECONDS, STOPPED_SECONDS, Readers

FIRST, SECOND = "hub-postgres-1", "hub-postgres-2"


class Pod:
    """HAProxy, PgBouncer and the time, as a test wants them."""

    def __init__(self) -> None:
        self.now = 100.0
        self.replicas = {name: Server(name, "10.0.0.1", 5432, 8008, is_up=True) for name in (FIRST, SECOND)}
        self.error: ProxyError | None = None
        self.console_error: ConsoleError | None = None
        self.reconnects = self.reloads = 0
        self.readers = Readers(self, self, lambda: self.now)  # type: ignore[arg-type]
        self.readers.tick()

    def servers(self, _backend: str) -> tuple[Server, ...]:
        return tuple(self.replicas.values())

    def set_state(self, member: str, state: str) -> None:
        if self.error is not None:
            raise self.error
        self.replicas[member] = replace(self.replicas[member], is_drained=state == "drain")

    def reconnect(self, _patience_seconds: float) -> bool:
        self.reconnects += 1
        if self.console_error is not None:
            raise self.console_error
        return True

    def reload(self, *, log_in: bool) -> None:
        assert not log_in
        if self.console_error is not None:
            raise self.console_error
        self.reloads += 1

    def look(self, *, after: float, **is_up: bool) -> None:
        """One look, some seconds later."""
        self.now += after
        for name, up in is_up.items():
            member = name.replace("_", "-")
            self.replicas[member] = replace(self.replicas[member], is_up=up)
        self.readers.tick()

    @property
    def drained(self) -> set[str]:
        return {server.name for server in self.replicas.values() if server.is_drained}

    @property
    def is_watched(self) -> bool:
        """Whether it goes on looking."""
        return self.readers._avoids.is_set()


@pytest.fixture
def pod() -> Pod:
    return Pod()


def test_a_replica_is_used_again_when_it_has_gone_down_or_does_not_stop(pod: Pod) -> None:
    pod.readers.leave(FIRST)
    pod.look(after=1)
    assert pod.drained == {FIRST}
    pod.look(after=1, hub_postgres_1=False)
    assert (pod.drained, pod.is_watched) == (set(), False)
    pod.look(after=5, hub_postgres_1=True)
    pod.readers.leave(FIRST)
    pod.look(after=AVOIDED_SECONDS)
    assert (pod.drained, pod.is_watched) == (set(), False)


def test_one_that_is_left_during_a_look_is_looked_at_again(pod: Pod) -> None:
    """Whoever leaves one must not have its wish to be woken swept away by a look that has seen nothing yet."""

    class Cleared(threading.Event):
        def clear(self) -> None:
            leaving.start()
            leaving.join(0.2)
            super().clear()

    leaving = threading.Thread(target=pod.readers.leave, args=(FIRST,))
    pod.readers._avoids = Cleared()
    pod.readers.tick()
    leaving.join()
    assert (pod.drained, pod.is_watched) == ({FIRST}, True)


def test_a_replica_that_haproxy_has_forgotten_is_not_looked_at_for_ever(pod: Pod) -> None:
    pod.error = ProxyError("HAProxy does not answer")
    with pytest.raises(ProxyError):
        pod.readers.leave(FIRST)
    pod.look(after=1)
    assert pod.is_watched, "it may have been told all the same"
    pod.look(after=AVOIDED_SECONDS)
    assert not pod.is_watched


def test_a_replica_that_haproxy_does_not_let_back_is_tried_again(pod: Pod) -> None:
    pod.readers.leave(FIRST)
    pod.error = ProxyError("HAProxy does not answer")
    with pytest.raises(ProxyError):
        pod.look(after=AVOIDED_SECONDS)
    assert pod.is_watched
    pod.error = None
    pod.look(after=1)
    assert (pod.drained, pod.is_watched) == (set(), False)


@pytest.mark.parametrize(
    ("seconds", "drained"), [(STOPPED_SECONDS, {SECOND}), (STOPPED_SECONDS - 1, {FIRST, SECOND})]
)
def test_readers_go_back_to_a_replica_that_has_restarted_when_the_next_one_stops(
    pod: Pod, seconds: float, drained: set[str]
) -> None:
    """A quick restart is over before it was seen. One that was left just now has yet to stop."""
    pod.readers.leave(FIRST)
    pod.now += seconds
    pod.readers.leave(SECOND)
    assert pod.drained == drained
    assert pod.reconnects == 2


def test_a_replica_that_is_left_twice_is_not_used_in_between(pod: Pod, monkeypatch: Any) -> None:
    pod.readers.leave(FIRST)
    pod.now += STOPPED_SECONDS
    told: list[str] = []
    monkeypatch.setattr(pod, "set_state", lambda member, state: told.append(f"{member} {state}"))
    pod.readers.leave(FIRST)
    assert told == [f"{FIRST} drain"]


def test_a_pool_that_may_be_small_is_made_large_again(pod: Pod) -> None:
    assert pod.reloads == 1, "as a process before this one may have left it"
    pod.look(after=1)
    assert pod.reloads == 1
    pod.console_error = ConsoleError("no answer")
    with pytest.raises(ConsoleError):
        pod.readers.leave(FIRST)
    with pytest.raises(ConsoleError):
        pod.look(after=AVOIDED_SECONDS)
    assert (pod.drained, pod.is_watched) == (set(), True)
    pod.console_error = None
    pod.look(after=1)
    assert (pod.reloads, pod.is_watched) == (2, True)
    pod.look(after=1)
    assert (pod.reloads, pod.is_watched) == (2, False)
