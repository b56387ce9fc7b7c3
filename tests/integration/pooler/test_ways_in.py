"""What a pooler pod tells kubelet of its ways in. The kernel makes connections to a process that hangs, too."""

from __future__ import annotations

import signal
import subprocess
import time
import urllib.error
import urllib.request

import pytest

from images.pooler.runnerhub_pooler import haproxy, readiness
from tests.integration.pooler.bench import Bench, Writers, is_listening, wait_until

# Of kubelet, for an answer.
PROBE_SECONDS = 3.0


def ready(bench: Bench) -> tuple[int, str, float]:
    """The answer to the probe, and the seconds that it took."""
    url = f"http://127.0.0.1:{bench.agent_port}/readyz"
    started = time.monotonic()
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode(), time.monotonic() - started
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), time.monotonic() - started


def is_ready(bench: Bench) -> bool:
    """Whether one of a few answers says so, which a machine that is busy for a moment may delay."""
    return any(ready(bench)[0] == 200 for _ in range(4))


def hung(bench: Bench, which: str) -> tuple[subprocess.Popen[bytes], str]:
    """A process of the pod, and what is told of it."""
    if which == "haproxy":
        return bench.haproxy, "HAProxy does not answer"
    port = bench.pooler_port if which == "pgbouncer-rw" else bench.read_only_port
    return bench.poolers[port], f"PgBouncer at port {port} does not answer"


def test_all_ways_in_are_asked_in_less_time_than_kubelet_has() -> None:
    assert 2 * readiness.ANSWER_SECONDS + haproxy.ANSWER_SECONDS < PROBE_SECONDS


@pytest.mark.parametrize("which", ["pgbouncer-rw", "pgbouncer-ro", "haproxy"])
def test_a_pod_with_a_way_in_that_hangs_is_not_ready(bench: Bench, which: str) -> None:
    process, told = hung(bench, which)
    assert is_ready(bench)
    process.send_signal(signal.SIGSTOP)
    answers = [ready(bench) for _ in range(3)]
    process.send_signal(signal.SIGCONT)
    assert {status for status, _, _ in answers} == {503}
    assert any(told in why for _, why, _ in answers)
    # A busy machine takes its time beside what the pod waits for.
    assert min(seconds for _, _, seconds in answers) < 2 * PROBE_SECONDS
    wait_until("the pod to be ready again", lambda: ready(bench)[0] == 200)


def test_a_pgbouncer_that_takes_no_more_clients_in_is_not_ready(bench: Bench) -> None:
    bench.poolers[bench.read_only_port].terminate()
    wait_until("it to stop", lambda: not is_listening(bench.read_only_port))
    assert ready(bench)[0] == 503


def test_neither_a_pause_nor_a_missing_database_takes_the_pod_out(bench: Bench) -> None:
    assert bench.pause() == 200
    assert is_ready(bench)
    wait_until("the end of the pause", lambda: bench.call("/resume") == 200)
    bench.primary.control("-m", "fast", "stop")
    assert is_ready(bench)


def test_the_question_harms_no_client(bench: Bench) -> None:
    with Writers(bench) as writers:
        for _ in range(50):
            assert is_ready(bench)
        writers.wait_for(20)
    assert writers.errors == []
