"""A Lease store with optimistic concurrency, an event loop with virtual time, and machines that freeze."""

from __future__ import annotations

import asyncio
import copy
import random
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from runnerhub_operator.errors import ConflictError, NotFoundError, UnavailableError
from runnerhub_operator.kube.election import LeaseElector
from runnerhub_operator.kube.lease import ElectionTiming

NAMESPACE, LEASE = "test", "hub-leader"


class LeaseStore:
    """One Lease as the API server keeps it: uid, version, conflicts, no write where nothing differs."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self._version = 0

    def read(self) -> dict[str, Any]:
        if self.lease is None:
            raise NotFoundError("no such Lease", 404)
        return copy.deepcopy(self.lease)

    def create(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        if self.lease is not None:
            raise ConflictError("exists", 409)
        return self._store(manifest, uid=f"uid-{self._version}")

    def replace(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        if self.lease is None:
            raise NotFoundError("no such Lease", 404)
        current = self.lease["metadata"]
        if manifest["metadata"]["resourceVersion"] != current["resourceVersion"]:
            raise ConflictError("changed", 409)
        if manifest["spec"] == self.lease["spec"]:
            return copy.deepcopy(self.lease)
        return self._store(manifest, uid=current["uid"])

    def delete(self) -> None:
        self.lease = None

    def edit(self, spec: Mapping[str, Any]) -> None:
        """What `kubectl edit` would do."""
        assert self.lease is not None
        self._store({**self.lease, "spec": dict(spec)}, uid=self.lease["metadata"]["uid"])

    def _store(self, manifest: Mapping[str, Any], uid: str) -> dict[str, Any]:
        self._version += 1
        lease = copy.deepcopy(dict(manifest))
        lease["metadata"] = {**lease["metadata"], "uid": uid, "resourceVersion": str(self._version)}
        self.lease = lease
        return copy.deepcopy(lease)


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout:
            self.now += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time jumps to the next timer as soon as nothing else is to be done."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run_virtual(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a scenario in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scenario)


@dataclass
class Network:
    """What happens to requests: each way takes a random time; inside `outages` nothing arrives."""

    dice: random.Random
    slowest_seconds: float = 0.02
    lost_share: float = 0.0
    outages: list[tuple[float, float]] = field(default_factory=list)

    def _down(self) -> bool:
        now = asyncio.get_running_loop().time()
        return any(start <= now < end for start, end in self.outages)

    async def way(self) -> None:
        """One direction of a request; a lost one is noticed by the deadline of the sender only."""
        await asyncio.sleep(self.dice.random() * self.slowest_seconds)
        if self._down() or self.dice.random() < self.lost_share:
            await asyncio.sleep(3600)
            raise UnavailableError("lost")


class SimulatedApi:
    """The Lease requests over a network; a request that left is carried out although its sender gave up."""

    def __init__(self, store: LeaseStore, network: Network) -> None:
        self._store = store
        self._network = network
        self._under_way: set[asyncio.Task[dict[str, Any]]] = set()

    async def read_lease(self, namespace: str, name: str) -> dict[str, Any]:
        assert (namespace, name) == (NAMESPACE, LEASE)
        return await self._send(self._store.read)

    async def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        return await self._send(lambda: self._store.create(manifest))

    async def replace(self, manifest: dict[str, Any]) -> dict[str, Any]:
        return await self._send(lambda: self._store.replace(manifest))

    async def _send(self, effect: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        task = asyncio.ensure_future(self._carry_out(effect))
        self._under_way.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[dict[str, Any]]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()

    async def _carry_out(self, effect: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        await self._network.way()
        answer = effect()
        await self._network.way()
        return answer


class Freezable:
    """Runs a coroutine that makes no step while its machine is frozen; cancellations wait for the thaw."""

    def __init__(self, machine: Machine, coroutine: Coroutine[Any, Any, None]) -> None:
        self._machine = machine
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, None, None]:
        pending: BaseException | None = None
        while True:
            try:
                waited_for = self._coroutine.send(None) if pending is None else self._coroutine.throw(pending)
            except StopIteration:
                return
            pending = None
            try:
                yield waited_for
            except BaseException as error:  # whatever arrives belongs to the frozen coroutine
                pending = error
            while (frozen := self._machine.frozen_seconds()) > 0:
                try:
                    yield from asyncio.sleep(frozen).__await__()
                except asyncio.CancelledError as error:
                    pending = error


@dataclass
class Machine:
    """A machine whose clock has its own zero and rate, whose wall clock stands, and which may freeze."""

    name: str
    offset: float = 0.0
    rate: float = 1.0
    freezes: list[tuple[float, float]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    events: list[tuple[float, str]] = field(default_factory=list)
    candidate: bool = True
    elector: LeaseElector | None = None
    task: asyncio.Task[None] | None = None

    def clock(self) -> float:
        return self.offset + self.rate * asyncio.get_running_loop().time()

    def frozen_seconds(self) -> float:
        now = asyncio.get_running_loop().time()
        return max((end - now for start, end in self.freezes if start <= now < end), default=0.0)

    def start(self, api: SimulatedApi, timing: ElectionTiming | None = None) -> LeaseElector:
        """Start (again) an elector on this machine; one process at a time."""
        self.kill()
        elector = LeaseElector(
            api,
            NAMESPACE,
            LEASE,
            self.name,
            timing,
            on_started=self._on_started,
            on_stopped=lambda reason: self._note(f"stopped: {reason}"),
            candidate=lambda: self.candidate,
            clock=self.clock,
            wall_clock=lambda: "2001-01-01T00:00:00.000000Z",
        )
        self.elector = elector

        async def run() -> None:
            await Freezable(self, elector.run())

        self.task = asyncio.ensure_future(run())
        return elector

    def kill(self) -> None:
        """End the process without any farewell."""
        if self.task is not None:
            self.task.cancel()
        self.elector = None

    @property
    def leads(self) -> bool:
        return self.elector is not None and self.elector.is_leader

    def _on_started(self, token: int) -> None:
        self.tokens.append(token)
        self._note(f"started {token}")

    def _note(self, text: str) -> None:
        self.events.append((asyncio.get_running_loop().time(), text))


async def until(condition: Callable[[], bool], seconds: float, step: float = 0.01) -> float:
    """Wait in virtual time; the seconds that it took."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    while not condition():
        assert loop.time() - start < seconds, f"not within {seconds} s"
        await asyncio.sleep(step)
    return loop.time() - start


async def stop(machines: list[Machine], *others: Awaitable[Any]) -> None:
    """End all electors of a scenario."""
    tasks = [machine.task for machine in machines if machine.task is not None]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, *others, return_exceptions=True)
