"""The size of the pools: which runners to start, which to stop, which to protect. A pure function.

Runners are single pods in numbered slots, so that each can be chosen, and no pool can grow beyond its greatest number
even when the cache is late: the name of a slot that is taken is refused by the API server. Pods that a dead node holds,
which may never go, have slots beside that number.

A runner is stopped only after it has said itself that it has no job and takes no more; what is planned here is whom to
ask. While nobody tells which runners have a job, none is asked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from .. import names
from ..actions import MarkRunner, StopRunner
from ..api import RunnerPoolSpec
from ..probes.runners import Demand
from ..snapshot import Pod

# In one step, over all pools: what the API server and the scheduler take in at once.
CREATIONS_PER_STEP: Final = 25
# Runners of a pool that no node has taken yet: the scheduler shall have judged these before more are made.
PENDING_PER_POOL: Final = 25
STOPS_PER_POOL: Final = 25
MARKS_PER_STEP: Final = 50
# A runner that is not ready for so long is replaced, and no start takes longer; and one that took no job for so long
# although there was one for each that is free: it is deaf, whatever it says of itself.
PATIENCE_SECONDS: Final = 300.0
# But for the time in which a node fetches the image and makes the volumes: a large image takes long.
CREATION_SECONDS: Final = 1800.0
_CREATING: Final = ("ContainerCreating", "PodInitializing")
# In the scheduler's words: a node that would do has no room. Who asks for a node that there is not hears others.
_NO_ROOM: Final = ("Insufficient ", "Too many pods")
# A demand that is not told for so long, as in a failover, does not begin the cool-downs anew.
GAP_SECONDS: Final = 30.0
# One that could not be asked whether it has a job is asked again then, and others meanwhile.
SILENT_SECONDS: Final = 60.0
# After orchestrators were away runners need a moment to find them again before any of them counts as dead.
KNOWN_SECONDS: Final = 60.0
# What a quota or a policy refused it may allow a little later.
REFUSED_SECONDS: Final = 30.0
# What a kubelet rejected is tried again after the first of these, then at intervals twice as long each time.
REJECTED_SECONDS: Final = 10.0
REJECTED_MOST_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Window:
    """`least` runners of a pool were not needed at any time since then."""

    since: datetime
    least: int


@dataclass(frozen=True, slots=True)
class Silence:
    """A runner could not be asked, `since` then, and last `at`."""

    since: datetime
    at: datetime


@dataclass(frozen=True, slots=True)
class Rejection:
    """Kubelets have rejected runners of a pool `since` then, and some were there last `at`; these stay `until` then,
    so that no others are made for the same nodes. `text`: which, where and why.
    """

    text: str
    since: datetime
    at: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Memory:
    """`known_since`: the demand has been known since then, but for short gaps, and last `known_at`.

    `refused`: what the API server said when it refused a runner of a pool, and when. `rejected`: by pool. `silent`: by
    uid. `idle_since`: by uid, of runners that were idle since then although they were needed. Losing all costs only
    time.
    """

    windows: Mapping[str, Window] = field(default_factory=dict)
    known_since: datetime | None = None
    known_at: datetime | None = None
    refused: Mapping[str, tuple[str, datetime]] = field(default_factory=dict)
    rejected: Mapping[str, Rejection] = field(default_factory=dict)
    silent: Mapping[str, Silence] = field(default_factory=dict)
    idle_since: Mapping[str, datetime] = field(default_factory=dict)

    def asked(self, uid: str, now: datetime, *, answered: bool) -> Memory:
        """After a runner was asked whether it has a job."""
        if answered:
            return replace(self, silent={of: found for of, found in self.silent.items() if of != uid})
        before = self.silent.get(uid)
        return replace(self, silent={**self.silent, uid: Silence(before.since if before else now, now)})


@dataclass(frozen=True, slots=True)
class PoolState:
    """What is told of a pool. `blocked`: a pod that cannot start, for whose sake the pool does not grow.

    `rejected`: what a kubelet said that rejects pods of it, now or a moment ago, "" when none does. `silent`: names of
    pods that should go and could not be asked, more than once.
    """

    name: str
    least: int
    desired: int
    ready: int
    busy: int
    queued: int
    blocked: Pod | None = None
    refused: str = ""
    rejected: str = ""
    silent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """`create`: pool and slot of each runner to start. `unserved`: jobs whose labels no pool has; `unserved_labels`:
    those that the oldest of them asks for.

    `moving`: runners are on their way, look again soon.
    """

    create: tuple[tuple[str, int], ...]
    stop: tuple[StopRunner, ...]
    mark: tuple[MarkRunner, ...]
    pools: tuple[PoolState, ...]
    waiting: int
    unserved: int
    unserved_labels: tuple[str, ...]
    moving: bool
    memory: Memory


@dataclass(slots=True)
class _View:
    """A pool and its runners, each in one of the lists, but for those that go when their job has ended; `needed` of
    those without a job, and `new` ones.
    """

    pool: RunnerPoolSpec
    pods: list[Pod]
    busy: list[Pod] = field(default_factory=list)
    idle: list[Pod] = field(default_factory=list)
    starting: list[Pod] = field(default_factory=list)
    slow: list[Pod] = field(default_factory=list)
    unscheduled: list[Pod] = field(default_factory=list)
    sick: list[Pod] = field(default_factory=list)
    on_silent_node: list[Pod] = field(default_factory=list)
    ended: list[Pod] = field(default_factory=list)
    going: list[Pod] = field(default_factory=list)
    needed: int = 0
    new: int = 0
    queued: int = 0

    @property
    def count(self) -> int:
        """Runners that there are; not those that go, have ended, or are on a node that is silent."""
        return sum(map(len, (self.busy, self.idle, self.starting, self.slow, self.unscheduled, self.sick)))

    @property
    def free(self) -> int:
        """Runners that have no job, or will soon be there."""
        return len(self.idle) + len(self.starting)

    @property
    def headroom(self) -> int:
        """How many more pods the pool may have: what has not gone yet takes room, but for what a dead node holds."""
        return max(0, self.pool.max_replicas + len(self.on_silent_node) - len(self.pods) - self.new)

    @property
    def blocked(self) -> Pod | None:
        """A pod that shows that more of them would not start either."""
        if self.unscheduled:
            return self.unscheduled[0]
        # One sick runner among many that are well tells nothing of the next.
        return self.sick[0] if self.sick and len(self.sick) >= len(self.idle) + len(self.busy) else None

    def end_rejected(self) -> None:
        """Count those that a kubelet rejected as ended, so that others are tried."""
        self.ended += [pod for pod in self.sick if pod.rejected]
        self.sick = [pod for pod in self.sick if not pod.rejected]


def plan_pools(
    pools: Sequence[RunnerPoolSpec],
    pods: Iterable[Pod],
    outdated: Collection[str],
    demand: Demand | None,
    memory: Memory,
    now: datetime,
) -> Decision:
    """Decide one step. `outdated`: uids of runners that the spec wants to be others; `demand`: None when unknown."""
    by_pool: dict[str, list[Pod]] = {}
    pods = tuple(pods)
    for pod in sorted(pods, key=lambda pod: names.runner_slot(pod.name)):
        by_pool.setdefault(pod.pool, []).append(pod)
    views = [_sorted(pool, by_pool.pop(pool.name, []), demand, now) for pool in pools]
    refused = {
        name: (text, at)
        for name, (text, at) in memory.refused.items()
        if (now - at).total_seconds() < REFUSED_SECONDS
    }
    rejected: dict[str, Rejection] = {}
    for view in views:
        before = memory.rejected.get(view.pool.name)
        rejection = _rejection(view, before, now)
        if rejection is not None:
            rejected[view.pool.name] = rejection
        if before is not None and now >= before.until:
            view.end_rejected()
    unserved, unserved_labels = _assign(views, demand) if demand is not None else (0, ())
    memory = _after(memory, demand, {pod.uid for pod in pods}, now)
    known_since = memory.known_since
    skipped = {uid for uid, found in memory.silent.items() if _seconds(found.at, now) < SILENT_SECONDS}
    if demand is not None:
        memory = replace(memory, idle_since=_idle_since(views, memory.idle_since, now))
    deaf = {
        uid: since for uid, since in memory.idle_since.items() if _seconds(since, now) >= PATIENCE_SECONDS
    }
    windows: dict[str, Window] = dict(memory.windows) if demand is None else {}
    room = _room(views)
    stop: list[StopRunner] = []
    for view in views:
        _fill_up(view)
        stop += [_stop(pod, "it has ended") for pod in view.ended]
        if demand is not None and known_since is not None:
            window = _window(view, memory.windows.get(view.pool.name), now)
            if window is not None:
                windows[view.pool.name] = window
            proven = (now - known_since).total_seconds() >= KNOWN_SECONDS
            found, replaces = _stops(
                view, window, room[view.pool.name], outdated, skipped, deaf, now, proven=proven
            )
            stop += found
            if replaces:
                view.new += 1
    for abandoned in by_pool.values():
        stop += _abandoned(abandoned, demand, skipped, now)
    create = _creations(views, refused)
    going = {item.uid for item in stop}
    return Decision(
        create=create,
        stop=tuple(stop),
        mark=_marks([pod for pod in pods if pod.uid not in going], demand),
        pools=tuple(_state(view, demand, refused, rejected, memory.silent) for view in views),
        waiting=sum(jobs for _, jobs in demand.waiting) if demand is not None else 0,
        unserved=unserved,
        unserved_labels=unserved_labels,
        moving=bool(create or stop or any(view.starting for view in views)),
        memory=replace(memory, windows=windows, refused=refused, rejected=rejected),
    )


def _after(memory: Memory, demand: Demand | None, there: Collection[str], now: datetime) -> Memory:
    """What still holds of it. Who was not asked again, although there was time, need not go any more."""
    silent = {
        uid: found
        for uid, found in memory.silent.items()
        if uid in there and _seconds(found.at, now) < 2 * SILENT_SECONDS
    }
    if demand is not None:
        return replace(memory, known_since=memory.known_since or now, known_at=now, silent=silent)
    if memory.known_at is not None and _seconds(memory.known_at, now) < GAP_SECONDS:
        return replace(memory, silent=silent)
    return Memory(silent=silent)


def _seconds(since: datetime, now: datetime) -> float:
    return (now - since).total_seconds()


def _sorted(pool: RunnerPoolSpec, pods: list[Pod], demand: Demand | None, now: datetime) -> _View:
    view = _View(pool, pods)
    for pod in pods:
        busy = demand is not None and pod.name in demand.busy
        if pod.terminating:
            # The kubelet of a dead node never lets it go.
            if not busy:
                (view.on_silent_node if pod.node_silent else view.going).append(pod)
        elif pod.ended:
            (view.sick if pod.rejected else view.ended).append(pod)
        elif busy:
            view.busy.append(pod)
        elif pod.ready:
            view.idle.append(pod)
        elif pod.node_silent:
            view.on_silent_node.append(pod)
        elif not pod.node and pod.waiting_reason == "Unschedulable":
            view.unscheduled.append(pod)
        elif pod.cannot_start or pod.waiting_reason == "CrashLoopBackOff" or _is_late(pod, now):
            view.sick.append(pod)
        elif _is_older(pod, PATIENCE_SECONDS, now):
            # A node may need long to fetch an image, and jobs do not wait for it.
            view.slow.append(pod)
        else:
            view.starting.append(pod)
    return view


def _rejection(view: _View, before: Rejection | None, now: datetime) -> Rejection | None:
    """What holds of those that a kubelet rejected; when it was time to try others, until the time after that."""
    found = [pod for pod in view.sick if pod.rejected]
    if not found:
        # Those that are tried now may not have been judged yet.
        return before if before is not None and _seconds(before.at, now) < GAP_SECONDS else None
    text = f"node {found[0].node} rejected pod {found[0].name}: {found[0].rejected}"[:500]
    if before is None:
        return Rejection(text, now, now, now + timedelta(seconds=REJECTED_SECONDS))
    if now < before.until:
        return replace(before, text=text, at=now)
    wait = min(REJECTED_MOST_SECONDS, _seconds(before.since, now))
    return Rejection(text, before.since, now, now + timedelta(seconds=wait))


def _is_late(pod: Pod, now: datetime) -> bool:
    return _is_older(pod, CREATION_SECONDS if pod.waiting_reason in _CREATING else PATIENCE_SECONDS, now)


def _is_older(pod: Pod, seconds: float, now: datetime) -> bool:
    try:
        since = datetime.fromisoformat(pod.since)
    except ValueError:
        return False
    return since.tzinfo is not None and _seconds(since, now) >= seconds


def _folded(labels: Iterable[str]) -> frozenset[str]:
    """GitHub's labels are the same in upper and lower case."""
    return frozenset(label.casefold() for label in labels)


def _assign(views: list[_View], demand: Demand) -> tuple[int, tuple[str, ...]]:
    """Give the jobs that wait to runners that are free, then to new ones; the number of jobs that no pool can take, and
    the labels of the oldest of them.

    Pools that cannot grow come last: the jobs that others can take do not wait for them.
    """
    groups: dict[tuple[int, ...], int] = {}
    oldest: tuple[str, ...] = ()
    offered = [_folded(view.pool.labels) for view in views]
    for asked, jobs in demand.waiting:
        labels = _folded(asked)
        able = tuple(number for number, of_pool in enumerate(offered) if labels <= of_pool)
        groups[able] = groups.get(able, 0) + jobs
        if not able:
            oldest = oldest or tuple(sorted(asked))
        for number in able:
            views[number].queued += jobs
    unserved = groups.pop((), 0)
    left = dict(sorted(groups.items(), key=lambda item: (len(item[0]), item[0])))
    for able, jobs in left.items():
        waiting = jobs
        for view in sorted((views[number] for number in able), key=lambda view: view.needed - view.free):
            taken = min(waiting, view.free - view.needed)
            view.needed += taken
            waiting -= taken
        left[able] = waiting
    _grow(views, left)
    for able, jobs in left.items():
        waiting = jobs
        for view in (views[number] for number in able):
            pending = len(view.unscheduled) + len(view.sick) + view.free - view.needed
            taken = max(0, min(waiting, pending))
            view.needed += taken
            waiting -= taken
    return unserved, oldest


def _grow(views: list[_View], left: dict[tuple[int, ...], int]) -> None:
    """One new runner after the other, each where the fewest are new, for each group of jobs in turn."""
    open_groups = [able for able, jobs in left.items() if jobs]
    while open_groups:
        for able in list(open_groups):
            fit = [views[n] for n in able if views[n].blocked is None and views[n].headroom > 0]
            if not fit or not left[able]:
                open_groups.remove(able)
                continue
            min(fit, key=lambda view: view.new).new += 1
            left[able] -= 1


def _fill_up(view: _View) -> None:
    """New runners up to the least number, unless they could not start either."""
    if view.blocked is None:
        view.new += min(view.headroom, max(0, view.pool.min_replicas - view.count - view.new))


def _idle_since(views: list[_View], before: Mapping[str, datetime], now: datetime) -> Mapping[str, datetime]:
    """Of the runners that are idle although a job waits for each of them: since when that is so."""
    needed = [pod.uid for view in views if view.needed >= len(view.idle) for pod in view.idle]
    return {uid: before.get(uid, now) for uid in needed}


def _surplus(view: _View) -> int:
    return view.count - max(view.pool.min_replicas, len(view.busy) + view.needed)


def _window(view: _View, before: Window | None, now: datetime) -> Window | None:
    surplus = _surplus(view)
    if surplus <= 0 or view.new:
        return None
    return Window(now, surplus) if before is None else Window(before.since, min(before.least, surplus))


def _room(views: list[_View]) -> Mapping[str, int]:
    """Idle runners of each pool that go before their cool-down, because others wait for the room that they take."""
    found = {view.pool.name: 0 for view in views}
    for hungry in views:
        crowded = sum(any(words in pod.message for words in _NO_ROOM) for pod in hungry.unscheduled)
        beside = [view for view in views if _share_nodes(view.pool, hungry.pool)]
        # Those that go already will have made room.
        lack = min(hungry.needed - hungry.free, crowded) - sum(len(view.going) for view in beside)
        for view in beside:
            spare = _surplus(view) - found[view.pool.name]
            if view is not hungry and min(spare, lack) > 0:
                found[view.pool.name] += min(spare, lack)
                lack -= min(spare, lack)
    return found


def _share_nodes(one: RunnerPoolSpec, other: RunnerPoolSpec) -> bool:
    """Whether a node can be one for both."""
    wanted = other.node_selector
    same = all(wanted.get(label, value) == value for label, value in one.node_selector.items())
    return same and (one.region is None or other.region is None or one.region == other.region)


def _stops(
    view: _View,
    window: Window | None,
    room: int,
    outdated: Collection[str],
    skipped: Collection[str],
    deaf: Mapping[str, datetime],
    now: datetime,
    *,
    proven: bool,
) -> tuple[list[StopRunner], bool]:
    """Runners to stop: surplus ones after the cool-down, those beyond the greatest number, outdated and dead ones; and
    whether a new one is to come before an outdated one goes.

    `room`: how many surplus ones do not wait for the cool-down; `skipped`: uids of those that are not asked now,
    because they did not answer; `deaf`: of those that take no job, with the time since when.
    """
    cooled = 0
    if window is not None and (now - window.since).total_seconds() >= view.pool.cool_down_seconds:
        cooled = window.least
    surplus = max(cooled, room, view.count - view.pool.max_replicas, 0)
    # The last slots first, and always the same ones, until they have said that they have no job.
    idle = sorted(
        (pod for pod in view.idle if pod.uid not in skipped),
        key=lambda pod: (pod.uid in outdated, names.runner_slot(pod.name)),
        reverse=True,
    )
    sick = [pod for pod in view.sick if pod.uid not in skipped]
    candidates = [
        *(_stop(pod, "it is not needed", ask=False) for pod in view.unscheduled),
        *(_stop(pod, "it is not needed", force=True) for pod in sick),
        *(_stop(pod, "it is not needed") for pod in idle),
    ]
    found = candidates[:surplus]
    chosen = {item.uid for item in found}
    for pod in (*view.unscheduled, *sick, *view.slow, *view.starting):
        if pod.uid in outdated and pod.uid not in chosen and pod.uid not in skipped:
            found.append(_stop(pod, "the spec has changed", ask=bool(pod.node), force=True))
    chosen = {item.uid for item in found}
    old = [pod for pod in idle if pod.uid in outdated and pod.uid not in chosen]
    replaces = False
    if old and not found and not view.starting and not view.new:
        # Another one comes first where the pool has room for it.
        if view.count - 1 >= view.pool.min_replicas or not view.headroom or view.blocked is not None:
            found.append(_stop(old[0], "the spec has changed"))
        else:
            replaces = True
    # A job that waits may be one that nobody can take. Whether the one that comes in another's place hears is seen
    # before the next one goes.
    proving = bool(view.going) or any(pod.uid not in deaf for pod in view.idle)
    dead = [
        *(
            _stop(pod, "it was not ready for too long", force=True)
            for pod in sick
            if _is_late(pod, now) and not pod.cannot_start and not pod.rejected
        ),
        *(
            _stop(pod, "it took no job for too long although one waited", force=True)
            for pod in sorted([] if proving else idle, key=lambda pod: deaf[pod.uid])
        ),
    ]
    dead = [step for step in dead if step.uid not in chosen]
    # Whatever ailed the one may ail that which takes its place.
    if proven and dead and not view.starting and not view.new and not replaces:
        found.append(dead[0])
    return found[:STOPS_PER_POOL], replaces


def _abandoned(
    pods: list[Pod], demand: Demand | None, skipped: Collection[str], now: datetime
) -> list[StopRunner]:
    """Runners of a pool that the spec no longer has."""
    found = []
    for pod in pods:
        if pod.terminating or pod.uid in skipped:
            continue
        if demand is not None and pod.name in demand.busy and not pod.ended:
            continue
        if pod.ended or (not pod.node and not pod.ready):
            found.append(_stop(pod, "its pool is gone", ask=False))
        elif demand is not None:
            found.append(_stop(pod, "its pool is gone", force=not pod.ready and _is_late(pod, now)))
    return found[:STOPS_PER_POOL]


def _stop(pod: Pod, reason: str, *, ask: bool = True, force: bool = False) -> StopRunner:
    # Who has ended says nothing, and the address may be another's by now.
    return StopRunner(pod.name, pod.uid, pod.pool, pod.ip, reason, ask=ask and not pod.ended, force=force)


def _creations(
    views: list[_View], refused: Mapping[str, tuple[str, datetime]]
) -> tuple[tuple[str, int], ...]:
    """The next slots that are free, one of each pool in turn, those with the fewest runners first."""
    slots = []
    for view in sorted(views, key=lambda view: view.count):
        taken = {names.runner_slot(pod.name) for pod in view.pods}
        pending = sum(not pod.node for pod in view.pods if not pod.terminating)
        wanted = 0 if view.pool.name in refused else min(view.new, max(0, PENDING_PER_POOL - pending))
        numbers = range(view.pool.max_replicas + len(view.on_silent_node))
        open_slots = (slot for slot in numbers if slot not in taken)
        slots.append([(view.pool.name, slot) for slot, _ in zip(open_slots, range(wanted), strict=False)])
    found: list[tuple[str, int]] = []
    for turn in range(max(map(len, slots), default=0)):
        found += [of_pool[turn] for of_pool in slots if turn < len(of_pool)]
    return tuple(found[:CREATIONS_PER_STEP])


def _marks(pods: Iterable[Pod], demand: Demand | None) -> tuple[MarkRunner, ...]:
    if demand is None:
        return ()
    found = [
        MarkRunner(pod.name, pod.uid, pod.name in demand.busy)
        for pod in pods
        if not pod.terminating and not pod.ended and pod.marked_busy != (pod.name in demand.busy)
    ]
    # Who has a job now comes before who had one.
    return tuple(sorted(found, key=lambda mark: not mark.busy)[:MARKS_PER_STEP])


def _state(
    view: _View,
    demand: Demand | None,
    refused: Mapping[str, tuple[str, datetime]],
    rejected: Mapping[str, Rejection],
    silent: Mapping[str, Silence],
) -> PoolState:
    pool = view.pool
    wanted = len(view.busy) + view.needed + view.new if demand is not None else view.count + view.new
    return PoolState(
        name=pool.name,
        least=pool.min_replicas,
        desired=min(pool.max_replicas, max(pool.min_replicas, wanted)),
        ready=sum(pod.ready for pod in view.pods),
        busy=sum(pod.name in demand.busy for pod in view.pods) if demand is not None else 0,
        queued=view.queued,
        blocked=view.blocked,
        refused=refused[pool.name][0] if pool.name in refused else "",
        rejected=rejected[pool.name].text if pool.name in rejected else "",
        silent=tuple(
            pod.name for pod in view.pods if (quiet := silent.get(pod.uid)) and quiet.since < quiet.at
        ),
    )
