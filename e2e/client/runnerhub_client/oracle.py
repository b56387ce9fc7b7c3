"""The judgement: pure functions over records and over what the servers hold now.

acknowledged = the server said yes: it must be there. unknown = may be either. failed = certainly not done:
it must not be there. A lost write is an acknowledged one that is not there, or not all of it; a job also counts as
lost when it was never completed, and a BullMQ job when no worker saw it. A counter that gives a value twice, or
holds less than it gave, has lost increments. A partial transaction has some of its rows and not all, whatever the
client was told. A phantom is a failed write that is there.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .record import Outcome, Record

# The kinds of records whose `acked` is a promise of durability, per probe.
WRITE_KINDS = {
    "jobs": "delegate",
    "rows": "insert",
    "transactions": "commit",
    "queue": "write",
    "counter": "increment",
}
# A single Redis has said yes to these; with it, it may be gone. BullMQ asks for no more.
UNCONFIRMED_KINDS = {"unconfirmed": "write", "plain": "write", "bullmq-python": "add", "bullmq-node": "add"}
# The kinds of records that tell of a job that was worked on, by the probe that added it.
WORKER_KINDS = {"bullmq-python": "process", "bullmq-node": "process"}
# The kinds of records whose gaps are told, per probe.
GAP_KINDS = {
    **WRITE_KINDS,
    **UNCONFIRMED_KINDS,
    "reads": "read",
    "gets": "get",
    **{f"{probe}-worker": kind for probe, kind in WORKER_KINDS.items()},
}
# Probes that write to the same store: the store is away only as long as none of them gets through. The last two are of
# the way in: what is accepted there, and all that is asked of it.
STORES = {
    "postgres": ("rows", "transactions"),
    "redis": ("queue", "counter"),
    "jobs": ("jobs",),
    "requests": ("jobs", "gets"),
}
# SQLSTATE of a row that is there already: ids are used once, so the server did the write twice.
UNIQUE_VIOLATION = "23505"
SHOWN_IDS = 20


@dataclass(frozen=True, slots=True)
class Window:
    """A span of wall-clock time in seconds since 1970, both edges included."""

    since: float = -math.inf
    until: float = math.inf

    def holds(self, record: Record) -> bool:
        """Whether the record's try ended within."""
        return self.since <= record.wall <= self.until


@dataclass(frozen=True, slots=True)
class Writes:
    """What the client was told by one probe's target.

    `failed`: certainly not done; `repeated`: refused because they were there already. `errors` counts tries.
    """

    acknowledged: frozenset[str]
    unknown: frozenset[str]
    errors: int
    failed: frozenset[str] = frozenset()
    repeated: frozenset[str] = frozenset()

    @property
    def tried(self) -> frozenset[str]:
        """All of them."""
        return self.acknowledged | self.unknown | self.failed


def collect_writes(probe: str, records: Iterable[Record], window: Window = Window()) -> Writes:
    """Sort a probe's writes by what the client knows; an id that was acked at last is not unknown."""
    acknowledged: set[str] = set()
    unknown: set[str] = set()
    failed: set[str] = set()
    repeated: set[str] = set()
    errors = 0
    kind = {**WRITE_KINDS, **UNCONFIRMED_KINDS}[probe]
    for record in records:
        if record.kind != kind or not window.holds(record):
            continue
        if record.outcome is Outcome.ACKED:
            acknowledged.add(record.identifier)
        elif record.outcome is Outcome.UNKNOWN:
            unknown.add(record.identifier)
            errors += 1
        elif record.outcome is Outcome.ERROR:
            failed.add(record.identifier)
            errors += 1
        if record.details.get("class") == UNIQUE_VIOLATION:
            repeated.add(record.identifier)
    return Writes(
        acknowledged=frozenset(acknowledged),
        unknown=frozenset(unknown - acknowledged),
        errors=errors,
        failed=frozenset(failed - unknown - acknowledged),
        repeated=frozenset(repeated),
    )


def count_executions(runner_records: Iterable[Record]) -> Counter[str]:
    """How often each job was executed, by different leases."""
    leases = {
        (record.identifier, str(record.details.get("token", "")))
        for record in runner_records
        if record.kind == "execute"
    }
    return Counter(job_id for job_id, _ in leases)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement on one probe. `errors` counts tries that did not end in an acknowledgement."""

    acknowledged: int
    unknown: int
    errors: int
    lost: int
    duplicates: int = 0
    partial: int = 0
    phantoms: int = 0
    unknown_present: int = 0
    not_completed: int = 0
    lost_ids: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For printing."""
        return asdict(self)


def judge_writes(writes: Writes, present: Iterable[str]) -> Verdict:
    """The judgement on rows and queue entries: acknowledged ones must be among those present."""
    here = frozenset(present)
    lost = writes.acknowledged - here
    return Verdict(
        acknowledged=len(writes.acknowledged),
        unknown=len(writes.unknown),
        errors=writes.errors,
        lost=len(lost),
        duplicates=len(writes.repeated),
        phantoms=len(writes.failed & here),
        unknown_present=len(writes.unknown & here),
        lost_ids=sorted(lost)[:SHOWN_IDS],
    )


@dataclass(frozen=True, slots=True)
class Stored:
    """What a database holds of one transaction: its rows, how many of them differ, how many there should be."""

    rows: int
    positions: int
    size: int

    @property
    def complete(self) -> bool:
        """Whether every row is there at least once."""
        return self.positions == self.size


def judge_transactions(writes: Writes, stored: Mapping[str, Stored]) -> Verdict:
    """The judgement on transactions: all rows of an acknowledged one, all or none of the others."""
    whole = {identifier for identifier, found in stored.items() if found.complete}
    lost = writes.acknowledged - whole
    return Verdict(
        acknowledged=len(writes.acknowledged),
        unknown=len(writes.unknown),
        errors=writes.errors,
        lost=len(lost),
        duplicates=sum(found.rows > found.positions for found in stored.values()),
        partial=sum(not found.complete for found in stored.values()),
        phantoms=len(writes.failed & stored.keys()),
        unknown_present=len(writes.unknown & stored.keys()),
        lost_ids=sorted(lost)[:SHOWN_IDS],
    )


def count_processed(worker_records: Iterable[Record]) -> Counter[str]:
    """How often each BullMQ job was worked on."""
    return Counter(record.identifier for record in worker_records if record.outcome is Outcome.ACKED)


def judge_deliveries(writes: Writes, processed: Counter[str]) -> Verdict:
    """The judgement on BullMQ jobs: each acknowledged one is worked on at least once, none whose addition failed."""
    lost = writes.acknowledged - processed.keys()
    return Verdict(
        acknowledged=len(writes.acknowledged),
        unknown=len(writes.unknown),
        errors=writes.errors,
        lost=len(lost),
        duplicates=sum(1 for identifier in writes.tried if processed[identifier] > 1),
        phantoms=len(writes.failed & processed.keys()),
        unknown_present=len(writes.unknown & processed.keys()),
        lost_ids=sorted(lost)[:SHOWN_IDS],
    )


def judge_counter(records: Iterable[Record], value_now: int, window: Window = Window()) -> Verdict:
    """The judgement on a counter: each of its values is given once, and it still holds them all.

    After a loss it gives the lost values again, or has not come as far yet.
    """
    told = [record for record in records if record.kind == WRITE_KINDS["counter"] and window.holds(record)]
    values = Counter(int(record.identifier) for record in told if record.outcome is Outcome.ACKED)
    repeated = {value: times - 1 for value, times in values.items() if times > 1}
    behind = max(max(values, default=0) - value_now, 0)
    tries = Counter(record.outcome for record in told)
    return Verdict(
        acknowledged=tries[Outcome.ACKED],
        unknown=tries[Outcome.UNKNOWN],
        errors=tries[Outcome.UNKNOWN] + tries[Outcome.ERROR],
        lost=sum(repeated.values()) + behind,
        lost_ids=[str(value) for value in sorted(repeated)[:SHOWN_IDS]],
    )


def judge_jobs(writes: Writes, statuses: dict[str, str], executions: Counter[str]) -> Verdict:
    """The judgement on jobs: `statuses` maps each existing job to its status in the database."""
    missing = writes.acknowledged - statuses.keys()
    stuck = {job_id for job_id in writes.acknowledged - missing if statuses[job_id] != "completed"}
    ours = writes.acknowledged | writes.unknown
    return Verdict(
        acknowledged=len(writes.acknowledged),
        unknown=len(writes.unknown),
        errors=writes.errors,
        lost=len(missing) + len(stuck),
        duplicates=sum(1 for job_id, times in executions.items() if times > 1 and job_id in ours),
        unknown_present=len(writes.unknown & statuses.keys()),
        not_completed=len(stuck),
        lost_ids=sorted(missing | stuck)[:SHOWN_IDS],
    )


@dataclass(frozen=True, slots=True)
class Gap:
    """The longest time without an acknowledgement within a window, and what clients saw meanwhile.

    `gap_seconds` counts from the window's beginning to the first and from the last acknowledgement to the
    window's end as well: a service that never came back has a gap up to the end. `error_classes` counts what did
    not end in an acknowledgement, by SQLSTATE or by the exception's name.
    """

    gap_seconds: float
    gap_started_at: float
    acknowledged: int
    errors: int
    unknown: int
    latency_seconds: dict[str, float] = field(default_factory=dict)
    error_classes: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For printing."""
        return asdict(self)


def longest_gap(records: Iterable[Record], kinds: Collection[str], window: Window) -> Gap:
    """Measure one probe, or several as one, in a finite window."""
    if not (math.isfinite(window.since) and math.isfinite(window.until)) or window.until < window.since:
        raise ValueError("a gap needs a window with a beginning and a later end")
    acks: list[float] = []
    latencies: list[float] = []
    seen: Counter[Outcome] = Counter()
    classes: Counter[str] = Counter()
    for record in records:
        if record.kind not in kinds or not window.holds(record):
            continue
        seen[record.outcome] += 1
        if record.outcome is Outcome.ACKED:
            acks.append(record.wall)
            if record.latency is not None:
                latencies.append(record.latency)
        elif record.outcome in (Outcome.ERROR, Outcome.UNKNOWN):
            classes[str(record.details.get("class", "other"))] += 1
    edges = [window.since, *sorted(acks), window.until]
    started_at, gap = max(
        ((before, after - before) for before, after in itertools.pairwise(edges)),
        key=lambda pair: pair[1],
    )
    return Gap(
        gap_seconds=round(gap, 3),
        gap_started_at=round(started_at, 3),
        acknowledged=len(acks),
        errors=seen[Outcome.ERROR] + seen[Outcome.UNKNOWN],
        unknown=seen[Outcome.UNKNOWN],
        latency_seconds=summarise(latencies),
        error_classes=dict(classes.most_common()),
    )


def summarise(values: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and max (nearest rank); empty for no values."""
    if not values:
        return {}
    ordered = sorted(values)

    def rank(share: float) -> float:
        return round(ordered[max(math.ceil(share * len(ordered)), 1) - 1], 4)

    return {"p50": rank(0.5), "p95": rank(0.95), "p99": rank(0.99), "max": rank(1.0)}


def unfinished(writes: Writes, statuses: dict[str, str]) -> int:
    """How many acknowledged jobs have a row that is still on its way."""
    return sum(
        1 for job_id in writes.acknowledged if statuses.get(job_id) in {"pending", "queued", "running"}
    )


def summarise_runners(records: Iterable[Record], window: Window = Window()) -> dict[str, int]:
    """What the runner loops did."""
    seen: Counter[tuple[str, Outcome]] = Counter(
        (record.kind, record.outcome) for record in records if window.holds(record)
    )
    return {
        "executions": seen["execute", Outcome.ACKED],
        "completed": seen["complete", Outcome.ACKED],
        "superseded": seen["superseded", Outcome.NOTE],
        "errors": sum(count for (_, outcome), count in seen.items() if outcome is Outcome.ERROR),
    }


def summarise_websockets(records: Iterable[Record], window: Window = Window()) -> dict[str, int]:
    """What the WebSocket clients saw."""
    connects = disconnects = errors = events = 0
    for record in records:
        if not window.holds(record):
            continue
        connects += record.kind == "connect" and record.outcome is Outcome.ACKED
        disconnects += record.kind == "disconnect"
        errors += record.outcome is Outcome.ERROR
        events += int(record.details.get("events", 0))
    return {"connects": connects, "disconnects": disconnects, "errors": errors, "events": events}


def judge_websockets(records: Iterable[Record], window: Window) -> dict[str, Any]:
    """How many WebSockets were dropped within the window, and how long until each was there again.

    `reconnect_seconds`: from the moment at which the client noticed; `away_seconds`: from the last thing that it heard.
    One that is not back at the window's end counts in `never_back`.
    """
    left: dict[str, Record] = {}
    reconnects: list[float] = []
    away: list[float] = []
    dropped = errors = 0
    for record in records:
        if not window.holds(record):
            continue
        if record.kind == "disconnect":
            dropped += 1
            left[record.identifier] = record
        elif record.kind == "connect" and record.outcome is Outcome.ERROR:
            errors += 1
        elif record.kind == "connect" and (before := left.pop(record.identifier, None)) is not None:
            reconnects.append(record.monotonic - before.monotonic)
            away.append(reconnects[-1] + float(before.details.get("silent", 0.0)))
    return {
        "dropped": dropped,
        "errors": errors,
        "never_back": len(left),
        "reconnect_seconds": summarise(reconnects),
        "away_seconds": summarise(away),
    }


@dataclass(frozen=True, slots=True)
class Course:
    """What became of a job by its row; times in seconds since 1970."""

    status: str
    attempt: int
    runner: str
    accepted_at: float
    started_at: float | None
    finished_at: float | None


def summarise_burst(courses: Collection[Course]) -> dict[str, float]:
    """What became of jobs that were posted at once; seconds from the first that was accepted.

    `interrupted`: jobs that were begun more than once, because whoever had one was gone. `capacity_seconds`: until
    the last of the runners that took part had begun its first job.
    """
    origin = min((course.accepted_at for course in courses), default=0.0)
    first: dict[str, float] = {}
    for course in courses:
        if course.started_at is not None:
            first[course.runner] = min(first.get(course.runner, math.inf), course.started_at)
    ends = [course.finished_at for course in courses if course.finished_at is not None]
    completed = sum(course.status == "completed" for course in courses)
    found: dict[str, float] = {
        "jobs": len(courses),
        "completed": completed,
        "interrupted": sum(course.attempt > 1 for course in courses),
        "runners": len(first),
    }
    if first:
        found["first_start_seconds"] = round(min(first.values()) - origin, 2)
        found["capacity_seconds"] = round(max(first.values()) - origin, 2)
    if ends and completed == len(courses):
        found["all_done_seconds"] = round(max(ends) - origin, 2)
    return found
