"""A master that hangs is ended before the Sentinels elect, so that it acknowledges nothing when it wakes."""

from __future__ import annotations

import signal
import socket
import threading
import time

import pytest

from images.redis.runnerhub_redis import hang
from images.redis.runnerhub_redis.resp import encode
from tests.integration.redis.conftest import ADDRESSES, Pods
from tests.unit.redis.test_redis_pod_configuration import write_settings


def watch_of(pods: Pods, ordinal: int = 0, *, milliseconds: int = 2500) -> hang.Watch:
    """The watch of a pod that is told this down-after."""
    settings = pods.settings(ordinal)
    write_settings(settings.paths.configuration, downAfterMilliseconds=milliseconds)
    kill = pods.processes["redis", ordinal].kill
    return hang.Watch(settings, lambda: ADDRESSES, kill, local=ADDRESSES[ordinal])


def start_all(pods: Pods) -> None:
    """All pods, and a first write that all of them have."""
    pods.start_all()
    client = pods.redis(0)
    client.set("early", "x")
    assert client.wait(2, 20000) == 2


def stop(pods: Pods, ordinal: int = 0) -> None:
    pods.processes["redis", ordinal].send_signal(signal.SIGSTOP)


def end(pods: Pods, *who: tuple[str, int]) -> None:
    for process in map(pods.processes.__getitem__, who):
        process.kill()
        process.wait()


def test_what_its_clients_sent_it_meanwhile_is_never_acknowledged(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hang, "LOOK_SECONDS", 0.1)
    start_all(pods)
    process, watch = pods.processes["redis", 0], watch_of(pods)
    assert watch.look() is None
    with socket.create_connection((ADDRESSES[0], pods.port), timeout=20) as client:
        stop(pods)
        client.sendall(encode(("SET", "late", "x")))
        threading.Thread(target=watch.run, args=(lambda: process.poll() is None,), daemon=True).start()
        assert process.wait(20) == -signal.SIGKILL
        process.send_signal(signal.SIGCONT)
        try:
            answer = client.recv(100)
        except ConnectionResetError:
            answer = b""
    assert answer == b""


def test_it_is_noticed_before_the_sentinels_take_it_for_dead(pods: Pods) -> None:
    start_all(pods)
    watch = watch_of(pods)
    assert watch.look() is None
    stop(pods)
    started = time.monotonic()
    assert watch.look() == "pods [1, 2] hold its history"
    assert time.monotonic() - started >= 2.0


def test_a_master_that_was_frozen_together_with_the_watch_goes_on(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hang, "PATIENCE", 0.1)
    start_all(pods)
    watch = watch_of(pods, milliseconds=10000)
    assert watch.look() is None
    stop(pods)
    wake = threading.Timer(1.5, pods.processes["redis", 0].send_signal, (signal.SIGCONT,))
    wake.start()
    assert watch.look() is None
    wake.join()


@pytest.mark.parametrize(
    "gone", [[("redis", 1), ("redis", 2)], [("sentinel", 1), ("sentinel", 2)]], ids=["replicas", "sentinels"]
)
def test_a_master_whose_place_nobody_can_take_is_left_alone(pods: Pods, gone: list[tuple[str, int]]) -> None:
    start_all(pods)
    watch = watch_of(pods)
    assert watch.look() is None
    end(pods, *gone)
    stop(pods)
    assert watch.look() is None


def test_a_replica_that_hangs_is_left_alone(pods: Pods) -> None:
    start_all(pods)
    watch = watch_of(pods, 1)
    assert watch.look() is None
    stop(pods, 1)
    assert watch.look() is None
