"""A master that hangs is ended before the Sentinels elect, so that it acknowledges nothing when it wakes."""

from __future__ import annotations

import signal
import socket
import threading
import time

import pytest

from images.redis.runnerhub_redis import hang, standing
from images.redis.runnerhub_redis.resp import encode
from tests.integration.redis.conftest import ADDRESSES, NAME, SENTINELS_TILT_MILLISECONDS, Pods, wait_until
from tests.unit.redis.test_redis_pod_configuration import write_settings

DOWN_AFTER_SECONDS = 5.0


@pytest.fixture
def pods(pods: Pods) -> Pods:
    """All pods, which are in step; the Sentinels take nobody for dead after less than the watch is told."""
    pods.start_all()
    pods.take_for_dead_after(int(DOWN_AFTER_SECONDS * 1000))
    return pods


def watch_of(pods: Pods, ordinal: int = 0) -> hang.Watch:
    """The watch of a pod, which has seen that Redis answers."""
    settings = pods.settings(ordinal)
    write_settings(settings.paths.configuration, downAfterMilliseconds=int(DOWN_AFTER_SECONDS * 1000))
    kill = pods.processes["redis", ordinal].kill
    watch = hang.Watch(settings, lambda: ADDRESSES, kill, local=ADDRESSES[ordinal])
    assert watch.look() is None
    return watch


def stop(pods: Pods, ordinal: int = 0) -> None:
    pods.processes["redis", ordinal].send_signal(signal.SIGSTOP)


def look_long(watch: hang.Watch) -> str | None:
    """What it finds, which must have taken it some time."""
    started = time.monotonic()
    found = watch.look()
    assert time.monotonic() - started >= hang.PATIENCE * DOWN_AFTER_SECONDS
    return found


def test_it_is_ended_before_the_sentinels_elect(pods: Pods) -> None:
    watch, process = watch_of(pods), pods.processes["redis", 0]
    written = int(pods.redis(0).info("replication")["master_repl_offset"])
    stop(pods)
    threading.Thread(target=watch.run, args=(lambda: process.poll() is None,), daemon=True).start()
    assert process.wait(DOWN_AFTER_SECONDS * 5) == -signal.SIGKILL
    epochs = [pods.sentinel(ordinal).sentinel_master(NAME)["config-epoch"] for ordinal in ADDRESSES]
    assert epochs == [0, 0, 0], "nobody was elected before"
    wait_until(lambda: standing.read(pods.settings().paths) is not None)
    noted = standing.read(pods.settings().paths)
    assert noted is not None
    assert noted.was_master
    assert int(noted.info["master_repl_offset"]) >= written


def test_a_script_that_does_not_end_is_a_hang_too(pods: Pods) -> None:
    pods.redis(0).config_set("busy-reply-threshold", "500")
    watch = watch_of(pods)
    with socket.create_connection((ADDRESSES[0], pods.port)) as client:
        client.sendall(encode(("EVAL", "redis.call('set', 'x', 1) while true do end", "0")))
        time.sleep(1)
        assert look_long(watch)


def test_a_master_that_was_frozen_together_with_the_watch_goes_on(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hang, "PATIENCE", 0.1)
    monkeypatch.setattr(hang, "ONCE_MORE", 2.0)
    watch = watch_of(pods)
    stop(pods)
    wake = threading.Timer(1.5, pods.processes["redis", 0].send_signal, (signal.SIGCONT,))
    wake.start()
    assert look_long(watch) is None
    wake.join()


@pytest.mark.parametrize("kind", ["redis", "sentinel"])
def test_a_master_whose_place_nobody_can_take_is_left_alone(pods: Pods, kind: str) -> None:
    watch = watch_of(pods)
    for ordinal in (1, 2):
        pods.processes[kind, ordinal].kill()
        pods.processes[kind, ordinal].wait()
    stop(pods)
    assert look_long(watch) is None


def test_nobody_is_ended_while_the_sentinels_do_nothing(pods: Pods) -> None:
    """In TILT they answer, and start a failover when told to, which then rests for half a minute."""
    watch = watch_of(pods)
    sentinels = [pods.processes["sentinel", ordinal] for ordinal in (1, 2)]
    for ordinal in (1, 2):
        pods.distrust_clock_after(ordinal, SENTINELS_TILT_MILLISECONDS)
    for process in sentinels:
        process.send_signal(signal.SIGSTOP)
    time.sleep(3)
    for process in sentinels:
        process.send_signal(signal.SIGCONT)
    wait_until(lambda: all(pods.sentinel(number).info("sentinel")["sentinel_tilt"] for number in (1, 2)))
    stop(pods)
    assert look_long(watch) is None


def test_a_replica_that_hangs_is_left_alone(pods: Pods) -> None:
    watch = watch_of(pods, 1)
    stop(pods, 1)
    assert look_long(watch) is None


def test_the_watch_goes_on_after_it_could_not_look(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hang, "LOOK_SECONDS", 0.05)
    watch = watch_of(pods)
    looks = iter([RuntimeError("can't start new thread"), OSError("input/output error")])

    def look() -> None:
        if (error := next(looks, None)) is not None:
            raise error
        seen.set()

    seen = threading.Event()
    monkeypatch.setattr(watch, "look", look)
    threading.Thread(target=watch.run, args=(lambda: not seen.is_set(),), daemon=True).start()
    assert seen.wait(20)
