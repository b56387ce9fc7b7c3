"""A whole suite: a cluster under load, each fault several times, the audit, the control."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Generic

from kindbed import paths, versions
from kindbed.console import output_of

from ..lab import bed as test_bed
from ..lab.bed import Bed
from ..lab.hub import Hub
from ..lab.load import now
from ..lab.steps import Steps
from . import mend
from .arena import A
from .fault import Fault
from .report import BROKEN_FOR_GOOD, Report
from .results import RunResult
from .run import FAILURES, run_once

NAMESPACE = "runnerhub-faults"
READY_DEADLINE_SECONDS = 420
# What the figures depend on; documents and tests may change between two suites that belong together.
TRIED = (
    "operator",
    "images",
    "charts",
    "crds",
    "examples",
    "requirements.lock",
    "e2e/client",
    "e2e/faults",
    "e2e/lab",
)
# All that was written in hours is asked for again, one by one.
AUDIT_SECONDS = 900
# Then the next class is tried: further runs would only wait for the same state in vain.
MOST_PROBLEMS_IN_A_ROW = 3


@dataclass(frozen=True, slots=True)
class Plan(Generic[A]):
    """What is to be done: the faults, how often each, and whether the control and the benchmark run as well.

    `earlier`: the report of a suite that was cut off, whose runs count.
    """

    faults: tuple[Fault[A], ...]
    runs: int
    bench: bool = True
    control: bool = True
    earlier: Mapping[str, Any] | None = None

    def among(self, group: Sequence[Fault[A]]) -> list[Fault[A]]:
        """The chosen faults that belong to a group."""
        names = {fault.name for fault in group}
        return [fault for fault in self.faults if fault.name in names]


class Suite(ABC, Generic[A]):
    """One pass through a plan. The report is on disk after each run, and everything is healed on any exit.

    `TIER` names the report, `SHARED` has the faults that one cluster takes after the other, `BOUNDED` those that need
    a cluster on volumes that can be full, `BENCHES` what can be asked for beside faults.
    """

    TIER: ClassVar[str]
    SHARED: ClassVar[tuple[Fault[Any], ...]]
    BOUNDED: ClassVar[tuple[Fault[Any], ...]] = ()
    BENCHES: ClassVar[tuple[str, ...]] = ()
    REPORT: ClassVar[type[Report]] = Report

    def __init__(self, bed: Bed, plan: Plan[A]) -> None:
        self._bed = bed
        self._plan = plan
        self._steps = Steps()
        self._report = self.REPORT(self.TIER, {})

    @classmethod
    def faults(cls) -> tuple[Fault[A], ...]:
        """All classes of faults, in the order in which they are tried."""
        return (*cls.SHARED, *cls.BOUNDED)

    @classmethod
    def fault(cls, name: str) -> Fault[A]:
        """A class of fault; raises KeyError with a sentence."""
        for fault in cls.faults():
            if fault.name == name:
                return fault
        names = ", ".join(fault.name for fault in cls.faults())
        raise KeyError(f"there is no fault {name}; there are {names}")

    @abstractmethod
    def arena(self, hub: Hub) -> A:
        """The tier of a cluster."""

    @abstractmethod
    def programs(self, hub: Hub) -> dict[str, str]:
        """The versions of the tier's programs."""

    @abstractmethod
    def control(self, arena: A) -> dict[str, Any]:
        """What was lost where something must be lost: `fault`, `acknowledged`, `lost`. Raises one of FAILURES."""

    def before_load(self, _arena: A) -> None:
        """What is measured without load."""
        return

    def after_faults(self, _arena: A) -> None:
        """What is measured under load, after the faults."""
        return

    def bounded(self) -> AbstractContextManager[A]:
        """A cluster on volumes that can be full, and its load."""
        raise NotImplementedError

    def remove_bounded(self) -> None:
        """Remove what an earlier suite may have left of that."""
        return

    def run(self) -> Report:
        """Carry the plan out."""
        try:
            with self._steps.step("heal what an earlier run may have left"):
                mend.mend(self._bed)
                mend.pin_dns(self._bed)
                self.remove_bounded()
            with self._steps.step("a new cluster"):
                arena = self._fresh_arena()
            self._report.versions = self._versions(arena.hub)
            earlier = self._plan.earlier
            if earlier is not None and not self._report.resume(earlier, self.faults()):
                print("    other versions than in the earlier report: everything is tried anew", flush=True)
            self._on_shared(arena)
            for fault in self._plan.among(self.BOUNDED):
                if len(self._report.runs.get(fault.name, ())) < self._plan.runs:
                    self._on_bounded(fault)
        finally:
            with self._steps.step("heal everything"):
                mend.mend(self._bed)
        return self._report

    def _fresh_arena(self) -> A:
        """A new cluster in the suite's namespace, complete; it stays up afterwards."""
        self._bed.delete_namespace(NAMESPACE)
        hub = test_bed.apply_example("hub", self._bed.create_namespace(NAMESPACE), "minimal")
        arena = self.arena(hub)
        arena.wait_whole(READY_DEADLINE_SECONDS)
        return arena

    def _versions(self, hub: Hub) -> dict[str, str]:
        git = ("git", "-C", str(paths.REPOSITORY))
        return {
            "commit": output_of([*git, "describe", "--always", "--dirty"]).strip(),
            "product": tried(git),
            "kubernetes": versions.KUBERNETES,
            **self.programs(hub),
        }

    def _on_shared(self, arena: A) -> None:
        # A report that is gone on with may have its figures.
        bench = self._plan.bench and not self._report.bench
        if bench:
            self.before_load(arena)
        arena.start_load()
        since = now()
        for fault in self._plan.among(self.SHARED):
            self._repeat(arena, fault)
        if bench:
            self.after_faults(arena)
        if self._report.runs:
            self._audit(arena, since)
        if self._plan.control and not (self._report.control or {}).get("lost"):
            self._control(arena)
        arena.load.stop()

    def _on_bounded(self, fault: Fault[A]) -> None:
        try:
            with self.bounded() as arena:
                self._repeat(arena, fault)
        except FAILURES as error:
            if fault.name in self._report.runs:
                raise  # it was tried; what failed is the removal, and the next suite must not find the rest
            self._report.skip(fault, f"no cluster on bounded volumes: {error}")
            self._report.write()

    def _repeat(self, arena: A, fault: Fault[A]) -> None:
        problems = 0
        done = len(self._report.runs.get(fault.name, ()))
        for number in range(done + 1, self._plan.runs + 1):
            with self._steps.step(f"{fault.title}, run {number} of {self._plan.runs}"):
                result = run_once(arena, fault)
                self._take(fault, result)
            problems = problems + 1 if result.problem else 0
            if result.problem:
                mend.mend(self._bed)
            if problems == MOST_PROBLEMS_IN_A_ROW:
                return

    def _take(self, fault: Fault[A], result: RunResult) -> None:
        self._report.add(fault, result)
        self._report.write()
        print(
            f"    gap {result.gap_seconds} s, {result.errors} errors, {result.lost} of {result.acknowledged} lost, "
            f"whole after {result.redundancy_seconds} s, {result.primary} -> {result.new_primary}",
            flush=True,
        )
        if result.problem:
            print(f"    PROBLEM: {result.problem}", flush=True)

    def _audit(self, arena: A, since: str) -> None:
        with self._steps.step("ask the oracle for everything again"):
            try:
                arena.wait_whole(READY_DEADLINE_SECONDS)
                verdict = arena.load.verify(since, now(), wait_seconds=AUDIT_SECONDS)
                found = {name: verdict[name] for name in ("acknowledged", *BROKEN_FOR_GOOD)}
            except FAILURES as error:
                found = {"acknowledged": 0, **dict.fromkeys(BROKEN_FOR_GOOD, 0), "problem": str(error)}
            self._report.audit = found
            self._report.write()

    def _control(self, arena: A) -> None:
        with self._steps.step("control: something must be lost"):
            try:
                found = self.control(arena)
            except FAILURES as error:
                found = {"fault": "control", "acknowledged": 0, "lost": 0, "problem": str(error)}
            self._report.control = found
            self._report.write()


def tried(git: Sequence[str]) -> str:
    """What the figures are of: one name for the committed content of all that is installed, breaks it or measures it.

    `git` is the command up to its options. What is not committed makes another name, which no two suites share.
    """
    changed = output_of([*git, "status", "--porcelain", "--", *TRIED])
    if changed.strip():
        return f"not committed at {now()}"
    trees = output_of([*git, "rev-parse", *(f"HEAD:{path}" for path in TRIED)])
    return hashlib.sha256(trees.encode()).hexdigest()[:12]


def first_line(hub: Hub, pod: str, container: str, *command: str) -> str:
    """The first line that a command in a container prints."""
    lines = hub.kubectl("exec", pod, "-c", container, "--", *command).strip().splitlines()
    return lines[0] if lines else "unknown"
