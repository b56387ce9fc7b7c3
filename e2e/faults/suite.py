"""The whole suite: a cluster under load, each fault several times, the audit, the control, a full volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kindbed import paths, versions
from kindbed.console import output_of

from ..demo import control
from ..lab import bed as test_bed
from ..lab.bed import Bed
from ..lab.hub import Hub
from ..lab.load import LoadClient, now
from ..lab.steps import Steps
from . import catalogue, mend, pgbench, volume
from .arena import LOAD_ARGUMENTS, LOAD_PROBES, Arena
from .fault import Fault
from .report import Report
from .results import RunResult
from .run import FAILURES, run_once

NAMESPACE = "runnerhub-faults"
READY_DEADLINE_SECONDS = 420
# All that was written in hours is asked for again, one by one.
AUDIT_SECONDS = 900
# The fault around which transactions per second are measured.
BENCH_FAULT = "postmaster-killed"
# Then the next class is tried: further runs would only wait for the same state in vain.
MOST_PROBLEMS_IN_A_ROW = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done: the faults, how often each, and whether pgbench and the control run as well.

    `earlier`: the report of a suite that was cut off, whose runs count.
    """

    faults: tuple[Fault, ...]
    runs: int
    bench: bool = True
    control: bool = True
    earlier: Mapping[str, Any] | None = None

    def among(self, group: Sequence[Fault]) -> list[Fault]:
        """The chosen faults that belong to a group."""
        names = {fault.name for fault in group}
        return [fault for fault in self.faults if fault.name in names]


def fresh_arena(bed: Bed) -> Arena:
    """A new cluster in the suite's namespace, complete, with its load; it stays up afterwards."""
    bed.delete_namespace(NAMESPACE)
    hub = test_bed.apply_example("hub", bed.create_namespace(NAMESPACE), "minimal")
    arena = Arena(bed, hub, LoadClient(hub))
    arena.wait_whole(READY_DEADLINE_SECONDS)
    return arena


def start_load(load: LoadClient) -> None:
    """Start the suite's writers and readers anew."""
    load.start(test_bed.CLIENT_IMAGE, *LOAD_ARGUMENTS, probes=LOAD_PROBES)


class Suite:
    """One pass through a plan. The report is on disk after each run, and everything is healed on any exit."""

    def __init__(self, bed: Bed, plan: Plan) -> None:
        self._bed = bed
        self._plan = plan
        self._steps = Steps()
        self._report = Report({})

    def run(self) -> Report:
        """Carry the plan out."""
        try:
            with self._steps.step("heal what an earlier run may have left"):
                mend.mend(self._bed)
                mend.pin_dns(self._bed)
                volume.remove(self._bed)
            with self._steps.step("a new cluster"):
                arena = fresh_arena(self._bed)
            self._report.versions = versions_of(arena.hub)
            if self._plan.earlier is not None and not self._report.resume(self._plan.earlier, catalogue.ALL):
                print("    other versions than in the earlier report: everything is tried anew", flush=True)
            self._on_shared(arena)
            for fault in self._plan.among(catalogue.BOUNDED):
                if len(self._report.runs.get(fault.name, ())) < self._plan.runs:
                    self._on_bounded(fault)
        finally:
            with self._steps.step("heal everything"):
                mend.mend(self._bed)
        return self._report

    def _on_shared(self, arena: Arena) -> None:
        bench = self._plan.bench and not self._report.pgbench
        if bench:
            self._bench_ways(arena)
        start_load(arena.load)
        since = now()
        for fault in self._plan.among(catalogue.SHARED):
            self._repeat(arena, fault)
        if bench:
            self._bench_fault(arena)
        if self._report.runs:
            self._audit(arena, since)
        if self._plan.control and not (self._report.control or {}).get("lost"):
            self._control(arena)
        arena.load.stop()

    def _on_bounded(self, fault: Fault) -> None:
        try:
            with volume.bounded(self._bed) as arena:
                self._repeat(arena, fault)
        except FAILURES as error:
            if fault.name in self._report.runs:
                raise  # it was tried; what failed is the removal, and the next suite must not find the rest
            self._report.skip(fault, f"no cluster on bounded volumes: {error}")
            self._report.write()

    def _repeat(self, arena: Arena, fault: Fault) -> None:
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

    def _take(self, fault: Fault, result: RunResult) -> None:
        self._report.add(fault, result)
        self._report.write()
        print(
            f"    gap {result.gap_seconds} s, {result.errors} errors, {result.lost} of {result.acknowledged} lost, "
            f"whole after {result.redundancy_seconds} s, {result.primary} -> {result.new_primary}",
            flush=True,
        )
        if result.problem:
            print(f"    PROBLEM: {result.problem}", flush=True)

    def _bench_ways(self, arena: Arena) -> None:
        with self._steps.step("pgbench directly and through the pooler"):
            try:
                with pgbench.bench(arena.hub) as bench:
                    missing = bench.missing()
                    self._report.pgbench = (
                        {"missing": missing}
                        if missing
                        else {"ways": pgbench.cost_of_pooler(bench, arena.before().primary.name)}
                    )
            except (*FAILURES, ValueError) as error:
                self._report.pgbench = {"missing": f"no result: {error}"}
            self._report.write()

    def _bench_fault(self, arena: Arena) -> None:
        if "missing" in self._report.pgbench:
            return
        fault = catalogue.by_name(BENCH_FAULT)
        with self._steps.step(f"pgbench before, during and after: {fault.title}"):
            try:
                with pgbench.bench(arena.hub) as bench:
                    result, figures = pgbench.during(bench, arena, lambda: run_once(arena, fault))
            except FAILURES as error:
                self._report.pgbench["missing"] = f"no result around a fault: {error}"
                mend.mend(self._bed)
            else:
                # Its load is another one, so it does not count among the runs of that fault, but losses do.
                self._report.pgbench["fault"] = figures
                self._report.pgbench["broken_promises"] = result.broken_promises
            self._report.write()

    def _audit(self, arena: Arena, since: str) -> None:
        with self._steps.step("ask the oracle for everything again"):
            try:
                arena.wait_whole(READY_DEADLINE_SECONDS)
                verdict = arena.load.verify(since, now(), wait_seconds=AUDIT_SECONDS)
                found = {name: verdict[name] for name in ("acknowledged", "lost", "partial", "phantoms")}
            except FAILURES as error:
                found = {"acknowledged": 0, "lost": 0, "partial": 0, "phantoms": 0, "problem": str(error)}
            self._report.audit = found
            self._report.write()

    def _control(self, arena: Arena) -> None:
        with self._steps.step("control: asynchronous, replication cut off; something must be lost"):
            try:
                found: dict[str, Any] = control(self._bed, arena.hub, arena.load)
            except FAILURES as error:
                found = {"fault": "control", "acknowledged": 0, "lost": 0, "problem": str(error)}
            self._report.control = found
            self._report.write()


def versions_of(hub: Hub) -> dict[str, str]:
    """What was tested: the commit, Kubernetes and the programs in the database's pods."""
    describe = ["git", "-C", paths.REPOSITORY, "describe", "--always", "--dirty"]
    member = hub.pods("postgres")[0]["metadata"]["name"]
    pooler = hub.pods("pooler")[0]["metadata"]["name"]

    def told_by(pod: str, container: str, *command: str) -> str:
        lines = hub.kubectl("exec", pod, "-c", container, "--", *command).strip().splitlines()
        return lines[0] if lines else "unknown"

    return {
        "commit": output_of(describe).strip(),
        "kubernetes": versions.KUBERNETES,
        "postgres": told_by(member, "postgres", "postgres", "--version"),
        "patroni": told_by(member, "postgres", "patroni", "--version"),
        "pgbouncer": told_by(pooler, "pgbouncer-rw", "pgbouncer", "--version"),
        "haproxy": told_by(pooler, "haproxy", "haproxy", "-v"),
    }
