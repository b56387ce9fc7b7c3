"""`make faults-postgres`: the database's faults, pgbench around one of them, and a full volume."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, ClassVar

from ...demo import control
from ...lab.hub import Hub
from ...lab.load import LoadClient
from .. import mend
from ..fault import Fault
from ..run import FAILURES, run_once
from ..suite import Suite, first_line
from . import catalogue, pgbench, volume
from .arena import PostgresArena

# The fault around which transactions per second are measured.
BENCH_FAULT = "postmaster-killed"


class PostgresSuite(Suite[PostgresArena]):
    """See the module."""

    TIER: ClassVar[str] = "postgres"
    SHARED: ClassVar[tuple[Fault[Any], ...]] = catalogue.SHARED
    BOUNDED: ClassVar[tuple[Fault[Any], ...]] = catalogue.BOUNDED
    BENCHES: ClassVar[tuple[str, ...]] = ("pgbench",)

    def arena(self, hub: Hub) -> PostgresArena:
        """The database of a cluster."""
        return PostgresArena(self._bed, hub, LoadClient(hub))

    def programs(self, hub: Hub) -> dict[str, str]:
        """Postgres and what stands before it."""
        member = hub.pods("postgres")[0]["metadata"]["name"]
        pooler = hub.pods("pooler")[0]["metadata"]["name"]
        return {
            "postgres": first_line(hub, member, "postgres", "postgres", "--version"),
            "patroni": first_line(hub, member, "postgres", "patroni", "--version"),
            "pgbouncer": first_line(hub, pooler, "pgbouncer-rw", "pgbouncer", "--version"),
            "haproxy": first_line(hub, pooler, "haproxy", "haproxy", "-v"),
        }

    def control(self, arena: PostgresArena) -> dict[str, Any]:
        """Asynchronous, and replication cut off before the primary dies."""
        return control(self._bed, arena.hub, arena.load)

    def bounded(self) -> AbstractContextManager[PostgresArena]:
        """A cluster whose database has small volumes."""
        return volume.bounded(self._bed)

    def remove_bounded(self) -> None:
        """Remove it with its volumes."""
        volume.remove(self._bed)

    def before_load(self, arena: PostgresArena) -> None:
        """What the way through the pooler costs."""
        with self._steps.step("pgbench directly and through the pooler"):
            try:
                with pgbench.bench(arena.hub) as bench:
                    missing = bench.missing()
                    self._report.bench = (
                        {"missing": missing}
                        if missing
                        else {"ways": pgbench.cost_of_pooler(bench, arena.before().primary.name)}
                    )
            except (*FAILURES, ValueError) as error:
                self._report.bench = {"missing": f"no result: {error}"}
            self._report.write()

    def after_faults(self, arena: PostgresArena) -> None:
        """Transactions per second around a fault."""
        if "missing" in self._report.bench:
            return
        fault = self.fault(BENCH_FAULT)
        with self._steps.step(f"pgbench before, during and after: {fault.title}"):
            try:
                with pgbench.bench(arena.hub) as bench:
                    result, figures = pgbench.during(bench, arena, lambda: run_once(arena, fault))
            except FAILURES as error:
                self._report.bench["missing"] = f"no result around a fault: {error}"
                mend.mend(self._bed)
            else:
                # Its load is another one, so it does not count among the runs of that fault, but losses do.
                self._report.bench["fault"] = figures
                self._report.bench["broken_promises"] = result.broken_promises
            self._report.write()
