"""Several operator processes and one Lease: who leads, who writes, and how a hand-over goes."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

import pytest

from apiserver import ApiServer
from e2e.lab.kubectl import Kubectl, wait_for
from e2e.stage.api import MERGE_PATCH, Api
from kindbed.paths import REPOSITORY
from runnerhub_operator import names
from tests.integration.chaos import Call, ChaosProxy, LoopThread, work
from tests.integration.conftest import SYSTEM, Operator, Start, wait_until_time_passed
from tests.integration.test_reconcile import created, manifest

# Long enough that a busy machine costs no leader its Lease.
LEASE_SECONDS: Final = 20
RETRY_SECONDS: Final = 1
TIMES: Final = {"LEASE_DURATION": LEASE_SECONDS, "RENEW_DEADLINE": 15, "RETRY_PERIOD": RETRY_SECONDS}
# Who was given the Lease takes it sooner than who waits for its end.
GRACEFUL_SECONDS: Final = LEASE_SECONDS - 2 * RETRY_SECONDS - 1
CRASH_SECONDS: Final = LEASE_SECONDS + 10
# Starting to watch and making the first plan.
FIRST_WRITE_SECONDS: Final = 60.0
EDIT_EVERY_SECONDS: Final = 0.25

# Read by every Python at its start: shifts what the wall clock says, and no other clock.
WRONG_CLOCK: Final = """
import datetime, os, time

_shift = float(os.environ["TEST_CLOCK_SHIFT_SECONDS"])
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _shift
time.time_ns = lambda: _time_ns() + int(_shift * 10**9)


class _Datetime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(seconds=_shift)

    @classmethod
    def utcnow(cls):
        return super().utcnow() + datetime.timedelta(seconds=_shift)


datetime.datetime = _Datetime
"""


@dataclass(frozen=True, slots=True)
class Member:
    """An operator and the proxy through which it alone reaches the API server."""

    operator: Operator
    proxy: ChaosProxy

    def leads(self) -> bool:
        """Whether it says so."""
        try:
            return self.operator.leads()
        except OSError:
            return False

    def took_lease_at(self, since: float) -> float | None:
        """When it first wrote the Lease after a time with success."""
        return next(
            (
                call.at
                for call in self.proxy.calls
                if call.at > since and is_lease(call) and call.status < 300
            ),
            None,
        )

    def left_lease_at(self) -> float:
        """When it last wrote the Lease with success; others count from when they see that, a moment later."""
        return max(call.at for call in self.proxy.calls if is_lease(call) and call.status < 300)

    def first_write_at(self, since: float) -> float | None:
        """When its first write of an object reached the API server after a time."""
        return next(
            (call.at for call in self.proxy.calls if call.at > since and work(call) and call.reached), None
        )


def is_lease(call: Call) -> bool:
    """Matches writes of the operator's own Lease."""
    return call.writes and call.status > 0 and call.resource == "leases" and call.namespace == SYSTEM


class Enlist(Protocol):
    """Starts an operator behind a proxy of its own."""

    def __call__(self, name: str, **environment: str) -> Member:
        """The member, which may not lead yet."""


@pytest.fixture
def enlist(server: ApiServer, start_operator: Start, tmp_path: Path) -> Iterator[Enlist]:
    with ExitStack() as proxies:

        def start(name: str, **environment: str) -> Member:
            proxy = proxies.enter_context(ChaosProxy(server.kubeconfig))
            kubeconfig = proxy.kubeconfig(tmp_path / "kubeconfig", tmp_path / f"kubeconfig-{name}")
            times = {f"RUNNERHUB_{key}_SECONDS": str(value) for key, value in TIMES.items()}
            return Member(start_operator(name, KUBECONFIG=str(kubeconfig), **times, **environment), proxy)

        yield start


def leader_of(members: list[Member]) -> Member:
    """The only one that leads."""

    def found() -> Member | None:
        leading = [member for member in members if member.leads()]
        return leading[0] if len(leading) == 1 else None

    return wait_for("one active operator", found, 90, every=0.2)


@contextmanager
def always_something_to_do(server: ApiServer, namespace: Kubectl) -> Iterator[None]:
    """Somebody edits the cluster all the time, so that whoever leads has something to write."""
    path = f"/apis/{names.API_GROUP}/{names.API_VERSION}/namespaces/{namespace.namespace}/{names.PLURAL}/hub"

    async def edit() -> None:
        async with Api(server.kubeconfig) as api:
            for replicas in itertools.cycle((2, 3)):
                patch = {"spec": {"orchestrator": {"replicas": replicas}}}
                await api.call("PATCH", path, patch, content=MERGE_PATCH)
                await asyncio.sleep(EDIT_EVERY_SECONDS)

    async def start() -> asyncio.Task[None]:
        return asyncio.create_task(edit())

    loop = LoopThread("edits")
    task = loop.do(start())
    try:
        yield
        assert not task.done()
    finally:
        loop.close()


def reigns(members: list[Member]) -> list[str]:
    """Who wrote objects, in order of time; a name comes again when somebody else wrote in between."""
    written = sorted(
        (call.at, member.operator.name)
        for member in members
        for call in member.proxy.calls
        if work(call) and call.reached
    )
    return [name for name, _ in itertools.groupby(name for _, name in written)]


def handed_over(members: list[Member], since: float, seconds: float) -> tuple[Member, float]:
    """Who took the Lease after `since`, and how many seconds after; it writes soon afterwards."""

    def taken() -> tuple[Member, float] | None:
        return next(
            ((member, at) for member in members if (at := member.took_lease_at(since)) is not None), None
        )

    successor, at = wait_for("somebody to take the Lease", taken, seconds + 5, every=0.1)
    assert at - since <= seconds
    wait_for("it to write", lambda: successor.first_write_at(since) is not None, FIRST_WRITE_SECONDS, 0.1)
    assert successor.leads()
    return successor, at - since


def test_three_operators_hand_over_after_a_stop_and_after_a_crash(
    server: ApiServer, enlist: Enlist, namespace: Kubectl
) -> None:
    crew = [enlist(f"operator-{name}") for name in "abc"]
    first = leader_of(crew)
    created(namespace)
    with always_something_to_do(server, namespace):
        wait_for("the leader to write", lambda: first.first_write_at(0) is not None, FIRST_WRITE_SECONDS)
        stopped = time.monotonic()
        first.operator.process.send_signal(signal.SIGTERM)
        others = [member for member in crew if member is not first]
        second, _ = handed_over(others, stopped, GRACEFUL_SECONDS)
        assert first.operator.process.wait(30) == 0

        killed: list[float] = []

        def kill(_: Call) -> None:
            second.operator.process.kill()
            killed.append(time.monotonic())

        # A write has taken effect, and nobody will ever read its answer.
        second.proxy.at_write(2, kill, after=True)
        wait_for("it to be killed", lambda: killed, 60, every=0.05)
        last = [member for member in others if member is not second]
        third, _ = handed_over(last, killed[0], CRASH_SECONDS)
    assert reigns(crew) == [member.operator.name for member in (first, second, third)]
    for member in crew:
        assert "Traceback" not in member.operator.log.read_text()


def test_a_frozen_operator_that_wakes_up_ends_without_writing(
    admin: Kubectl, server: ApiServer, enlist: Enlist, namespace: Kubectl
) -> None:
    crew = [enlist(f"operator-{name}") for name in "ab"]
    first = leader_of(crew)
    second = next(member for member in crew if member is not first)
    frozen: list[float] = []

    def freeze(_: Call) -> None:
        first.operator.process.send_signal(signal.SIGSTOP)
        frozen.append(time.monotonic())

    # In the middle of a visit: a write is under way, and many more are to follow.
    first.proxy.at_write(10, freeze)
    namespace.apply(manifest())
    wait_for("it to be frozen", lambda: frozen, 60, every=0.05)
    handed_over([second], frozen[0], CRASH_SECONDS)
    created(namespace)
    with always_something_to_do(server, namespace):
        before_waking = first.proxy.mark()
        first.operator.process.send_signal(signal.SIGCONT)
        assert first.operator.process.wait(30) == 1
        after_waking = first.proxy.since(before_waking, lambda call: call.writes)
        assert [str(call) for call in after_waking] == []
        wait_until_time_passed(1)
    assert second.leads()
    assert reigns(crew) == [first.operator.name, second.operator.name]
    lease = admin.in_namespace(SYSTEM).get("lease", names.OPERATOR_LEASE)
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == second.operator.name


def test_wrong_clocks_neither_make_two_leaders_nor_hasten_a_hand_over(
    admin: Kubectl, server: ApiServer, enlist: Enlist, namespace: Kubectl, tmp_path: Path
) -> None:
    hook = tmp_path / "clock"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(WRONG_CLOCK)

    def wrong(name: str, hours: int) -> Member:
        path = f"{hook}:{REPOSITORY / 'operator'}"
        return enlist(name, PYTHONPATH=path, TEST_CLOCK_SHIFT_SECONDS=str(hours * 3600))

    def says(hours: int) -> bool:
        """Whether the Lease was renewed by that clock."""
        lease = admin.in_namespace(SYSTEM).get("lease", names.OPERATOR_LEASE) or {}
        renewed = datetime.fromisoformat(lease["spec"]["renewTime"])
        return abs(renewed - datetime.now(UTC) - timedelta(hours=hours)) < timedelta(minutes=5)

    behind = wrong("operator-behind", -1)
    assert leader_of([behind]) is behind
    # To the one ahead the Lease looks two hours old.
    ahead = wrong("operator-ahead", 1)
    created(namespace)
    with always_something_to_do(server, namespace):
        wait_for("it to have looked", lambda: len(ahead.proxy.calls) > LEASE_SECONDS / RETRY_SECONDS + 2, 90)
        assert says(-1)
        killed = time.monotonic()
        behind.operator.stop(signal.SIGKILL)
        _, seconds = handed_over([ahead], killed, CRASH_SECONDS)
        assert killed + seconds - behind.left_lease_at() >= LEASE_SECONDS
        assert says(1)
        # To the one behind the Lease is valid for two hours to come.
        again = wrong("operator-behind-2", -1)
        wait_for("it to have looked", lambda: len(again.proxy.calls) > LEASE_SECONDS / RETRY_SECONDS + 2, 90)
        killed = time.monotonic()
        ahead.operator.stop(signal.SIGKILL)
        _, seconds = handed_over([again], killed, CRASH_SECONDS)
        assert killed + seconds - ahead.left_lease_at() >= LEASE_SECONDS
    crew = [behind, ahead, again]
    assert reigns(crew) == [member.operator.name for member in crew]
