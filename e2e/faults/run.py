"""One run of one fault: whole, broken, healed, whole again, judged."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Generic

from kindbed.console import TestBedError

from ..lab.kubectl import KubectlError, WaitTimeoutError, wait_for
from ..lab.load import now
from .arena import A, Before, let_pass
from .fault import Fault, Primary
from .results import RunResult
from .watchers import TOLD_SECONDS

WHOLE_BEFORE_SECONDS = 300
SUCCESSOR_SECONDS = 180
WRITING_SECONDS = 120
WHOLE_AGAIN_SECONDS = 420
# The operator looks at a settled cluster every five seconds, so its last look may have been so long before.
TOLD_WITHIN_SECONDS = 8.0

# What a fault may make of the tools; anything else is a mistake in the suite.
FAILURES = (WaitTimeoutError, KubectlError, TestBedError, subprocess.TimeoutExpired)


def prepare(arena: A, fault: Fault[A]) -> Before:
    """Wait until the cluster is whole and its clients get through; what it looks like then."""
    arena.wait_whole(WHOLE_BEFORE_SECONDS)
    arena.prepare(WHOLE_BEFORE_SECONDS)
    fault.arrange(arena)
    arena.wait_writing(WRITING_SECONDS)
    return arena.before()


def run_once(arena: A, fault: Fault[A]) -> RunResult:
    """Try a fault once. Whatever fails is told in the result, after the fault was healed and the oracle asked."""
    try:
        before = prepare(arena, fault)
    except FAILURES as error:
        return RunResult(fault.name, now(), now(), problem=f"before the fault: {_first_line(error)}")
    since = now()
    course = _Course(arena, fault, before)
    problem: str | None = None
    try:
        course.run()
    except FAILURES as error:
        problem = _first_line(error)
    result = RunResult(
        fault=fault.name,
        since=since,
        until=now(),
        redundancy_seconds=course.redundancy_seconds,
        primary=before.primary.name,
        pooler_on_node=before.primary.node in before.pooler_nodes,
        notes=course.notes,
        problem=problem,
    )
    try:
        return _judge(arena, fault, result)
    except FAILURES as error:
        problems = [text for text in (problem, f"no verdict: {_first_line(error)}") if text]
        return replace(result, problem="; ".join(problems))


class _Course(Generic[A]):
    """The course of one fault, with what was measured so far."""

    def __init__(self, arena: A, fault: Fault[A], before: Before) -> None:
        self._arena = arena
        self._fault = fault
        self._before = before
        self.redundancy_seconds: float | None = None
        self.notes: dict[str, float] = {}

    def run(self) -> None:
        """Break, wait, heal, wait. Raises one of FAILURES when a state does not come; healed it is in any case."""
        started = time.monotonic()
        with self._fault.inject(self._arena, self._before):
            self._while_broken(started)
        self.notes = self._fault.aftermath(self._arena)
        self._arena.wait_writing(WRITING_SECONDS)
        wait_for(f"{self._fault.title}: to be whole again", self._is_over, WHOLE_AGAIN_SECONDS, every=2)
        self.redundancy_seconds = round(time.monotonic() - started, 1)
        self._arena.wait_through(WRITING_SECONDS)
        self._arena.settle()

    def _while_broken(self, started: float) -> None:
        fault, arena = self._fault, self._arena
        if fault.api_answers and fault.writes_go_on:
            if fault.primary is Primary.MOVES:
                wait_for("another primary", self._successor, SUCCESSOR_SECONDS, every=1)
            arena.wait_writing(WRITING_SECONDS)
        left = started + fault.broken_seconds - time.monotonic()
        if left > 0:
            let_pass(f"{left:.0f} s with {fault.title}", left)

    def _successor(self) -> bool:
        return self._arena.leader() not in (None, self._before.primary.name)

    def _is_over(self) -> bool:
        # The cheaper question first: the machine is short of time while pods start.
        return self._arena.is_whole() and self._fault.came_true(self._arena, self._before)


def _judge(arena: A, fault: Fault[A], result: RunResult) -> RunResult:
    measured = arena.load.measure(result.since, result.until)
    verdict = arena.load.verify(result.since, result.until)
    writes = measured["stores"][arena.STORE]
    errors = measured["stores"][arena.ERRORS_OF or arena.STORE]
    new_primary = arena.leader()
    figures = arena.figures(result, measured)
    beside = {
        probe: _beside(figures, verdict["probes"].get(probe, {}))
        for probe, figures in measured["probes"].items()
        if probe not in arena.WRITERS
    }
    return replace(
        result,
        gap_seconds=writes["gap_seconds"],
        errors=errors["errors"],
        error_classes=errors["error_classes"],
        acknowledged=verdict["acknowledged"],
        lost=verdict["lost"],
        partial=verdict["partial"],
        phantoms=verdict["phantoms"],
        duplicates=verdict["duplicates"],
        at_least_once=not arena.ONCE,
        new_primary=new_primary,
        figures=figures,
        beside=beside,
        problem=result.problem
        or _lost_beside(fault, beside)
        or arena.broken_rule(figures)
        or _wrong_move(fault, result.primary, new_primary)
        or _wrong_duration(result.notes, writes["gap_seconds"]),
    )


def _beside(measured: dict[str, Any], judged: dict[str, Any]) -> dict[str, float]:
    """Figures of a probe whose acknowledgements are no promise, or that does not write."""
    found = {name: measured[name] for name in ("gap_seconds", "errors", "acknowledged")}
    return {**found, **{name: judged[name] for name in ("lost", "duplicates") if name in judged}}


def _lost_beside(fault: Fault[A], beside: Mapping[str, Mapping[str, float]]) -> str | None:
    lost = {probe: int(found["lost"]) for probe, found in beside.items() if found.get("lost")}
    if fault.loses_nothing and lost:
        told = ", ".join(f"{count} of {probe}" for probe, count in lost.items())
        return f"lost, where nothing may be: {told}"
    return None


def _wrong_move(fault: Fault[A], primary: str | None, new_primary: str | None) -> str | None:
    if fault.primary is Primary.STAYS and new_primary != primary:
        return f"the primary moved from {primary} to {new_primary}, and should have stayed"
    return None


def _wrong_duration(notes: Mapping[str, float], gap_seconds: float | None) -> str | None:
    told = notes.get(TOLD_SECONDS)
    if told is not None and gap_seconds is not None and abs(told - gap_seconds) > TOLD_WITHIN_SECONDS:
        return f"the status says that the failover took {told} s, and clients could not write for {gap_seconds} s"
    return None


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
