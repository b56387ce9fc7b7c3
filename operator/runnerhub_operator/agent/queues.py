"""BullMQ queues whose workers have gone deaf: jobs wait, workers are connected, and nobody takes one.

A worker whose blocking connection died silently looks alive, and does nothing until it is started anew. Either that
connection is still there, under the worker's name, and reads no more. Or it leads to a master that is gone, and the
new one knows the worker only by its other connection, on which it goes on looking for stalled jobs. Only looking at the
queue over some time tells it from one that is busy or has nothing to do. The queues of the application are only read: a
job of ours in them would be run by its workers.

Source of the keys and names: https://docs.bullmq.io, BullMQ's queue-keys, getWorkers and moveStalledJobsToWait.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from ..errors import ProbeError
from ..kube.lease import boot_clock
from .checks import Details
from .database import first_line
from .queue_probe import RedisProbe

log = logging.getLogger(__name__)

PREFIX: Final = "bull"
DEAF_SECONDS: Final = 30.0
# A worker looks for stalled jobs twice a minute, and every other time it may find that somebody just did.
SILENT_SECONDS: Final = 75.0
# The product's own orchestrators look for stalled jobs too, and take these for runners that ask: without one they wait.
TAKEN_ON_DEMAND: Final = ("github-jobs", "job-")
# More would cost the master more than it tells.
MAX_QUEUES: Final = 50
# Their names are found only by going through all keys, of which there may be millions: in parts, then not again soon.
NAMES_SECONDS: Final = 60.0
KEYS_PER_STEP: Final = 1000
STEPS_PER_LOOK: Final = 100
_META: Final = ":meta"


@dataclass(frozen=True, slots=True)
class QueueView:
    """One look at a queue. `first` is the job whose turn is next; `held`: it is paused, or its rate is limited.

    `workers`: connections by which workers wait for jobs; `check`: when a worker last looked for stalled jobs, by its
    own clock, "" when that was not lately.
    """

    waiting: int
    active: int
    workers: int
    first: str = ""
    held: bool = False
    check: str = ""

    @property
    def stands(self) -> bool:
        """Whether jobs wait and nobody has one."""
        return self.waiting > 0 and self.active == 0 and not self.held


@dataclass(frozen=True, slots=True)
class Standstill:
    """A queue in which the same job has been next for some time, on any monotonic clock.

    `since`: a worker gave a sign of life then and has gone on doing so, last at `heard`. `check`: the last one seen.
    """

    view: QueueView
    since: float | None = None
    heard: float | None = None
    check: str = ""

    def after(self, view: QueueView, now: float) -> Standstill:
        """Take in one more look."""
        check = view.check or self.check
        if not view.stands:
            return Standstill(view, check=check)
        since, heard = self.since, self.heard
        # Workers that have gone are not those that come.
        left = self.view.workers > 0 and view.workers == 0
        if left or view.first != self.view.first or (heard is not None and now - heard > SILENT_SECONDS):
            since = heard = None
        if view.workers > 0 or view.check not in ("", self.check):
            since, heard = now if since is None else since, now
        return Standstill(view, since, heard, check)

    @property
    def is_deaf(self) -> bool:
        """Whether workers have been there for longer than one needs to wake up."""
        return self.since is not None and self.heard is not None and self.heard - self.since >= DEAF_SECONDS


class QueuesProbe:
    """Looks at each BullMQ queue of the master."""

    def __init__(self, queue: RedisProbe, *, clock: Callable[[], float] = boot_clock) -> None:
        self._queue = queue
        self._clock = clock
        self._known: dict[str, Standstill] = {}
        self._told: set[str] = set()
        self._names: set[str] = set()
        self._names_due = 0.0
        self._cursor = 0
        self._found: set[str] = set()

    async def __call__(self) -> Details:
        """Look once; ProbeError when the master does not answer."""
        client = self._queue.connect(await self._queue.master())
        try:
            found = await self._look(client)
        except (RedisError, OSError) as error:
            raise ProbeError(f"queues: {first_line(error)}") from error
        finally:
            await client.aclose()
        now = self._clock()
        self._known = {
            # What was told before the first look is no sign of life.
            name: self._known.get(name, Standstill(view, check=view.check)).after(view, now)
            for name, view in found.items()
        }
        self._tell()
        return {"deaf": sorted(self.deaf)}

    @property
    def deaf(self) -> set[str]:
        """Queues whose workers take nothing although jobs wait."""
        return {name for name, state in self._known.items() if state.is_deaf}

    @property
    def views(self) -> Mapping[str, QueueView]:
        """The last look at each queue."""
        return {name: state.view for name, state in self._known.items()}

    def render(self) -> dict[str, Any]:
        """For the JSON answers."""
        deaf = self.deaf
        return {
            name: {
                "status": "deaf" if name in deaf else "up",
                "waiting": view.waiting,
                "active": view.active,
                "workers": view.workers,
            }
            for name, view in self.views.items()
        }

    def _tell(self) -> None:
        deaf = self.deaf
        for name in deaf - self._told:
            view = self._known[name].view
            log.warning(
                "the workers of queue %s take no job: restart them",
                name,
                extra={"queue": name, "waiting": view.waiting, "workers": view.workers},
            )
        for name in self._told - deaf:
            log.info("jobs of queue %s are taken again", name, extra={"queue": name})
        self._told = deaf

    async def _look(self, client: Redis) -> dict[str, QueueView]:
        names = await self._find_names(client)
        clients: Any = await client.client_list() if names else []
        connected = [str(item.get("name", "")) for item in clients]
        views = {name: await self._view(client, name, workers_of(name, connected)) for name in names}
        return {name: view for name, view in views.items() if view is not None}

    async def _find_names(self, client: Redis) -> list[str]:
        """The names of the queues, as far as they are known; goes on looking for them when it is time."""
        for _ in range(STEPS_PER_LOOK):
            if self._clock() < self._names_due:
                break
            self._cursor, keys = await client.scan(
                self._cursor, match=f"{PREFIX}:*{_META}", count=KEYS_PER_STEP
            )
            for key in keys:
                self._found.add(_text(key)[len(PREFIX) + 1 : -len(_META)])
            if self._cursor == 0:
                self._names, self._found = self._found, set()
                self._names_due = self._clock() + NAMES_SECONDS
        return sorted(self._names | self._found)[:MAX_QUEUES]

    async def _view(self, client: Redis, name: str, workers: int) -> QueueView | None:
        """One queue; None when its keys are not what BullMQ makes, as somebody else's that only look so."""
        key = f"{PREFIX}:{name}"
        async with client.pipeline(transaction=True) as pipe:
            pipe.llen(f"{key}:wait")
            pipe.zcard(f"{key}:prioritized")
            pipe.llen(f"{key}:active")
            pipe.lindex(f"{key}:wait", -1)
            pipe.zrange(f"{key}:prioritized", 0, 0)
            pipe.hexists(f"{key}{_META}", "paused")
            pipe.exists(f"{key}:limiter")
            pipe.get(f"{key}:stalled-check")
            answers = await pipe.execute(raise_on_error=False)
        if any(isinstance(answer, RedisError) for answer in answers):
            return None
        waiting, prioritized, active, job, important, paused, limited, check = answers
        first = _text(job) or next(map(_text, important), "")
        queue, prefix = TAKEN_ON_DEMAND
        return QueueView(
            waiting=waiting + prioritized,
            active=active,
            workers=workers,
            first=first,
            held=bool(paused or limited),
            check="" if name == queue and first.startswith(prefix) else _text(check),
        )


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")


def workers_of(queue: str, connected: list[str]) -> int:
    """Connections whose name tells that they are of the queue's workers; Node and Python name them unlike."""
    encoded = base64.b64encode(queue.encode()).decode()
    own = {f"{PREFIX}:{encoded}", f"{PREFIX}:{queue}"}
    return sum(name in own or any(name.startswith(f"{prefix}:w:") for prefix in own) for name in connected)
