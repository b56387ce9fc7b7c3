"""Runs the election of `lease.py` against the API server."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..errors import ConflictError, KubeError, LostLeadershipError, NotFoundError, UnavailableError
from .lease import (
    LEASE_API_VERSION,
    LEASE_KIND,
    Action,
    ElectionState,
    ElectionTiming,
    LeaseRecord,
    Manifest,
    Verb,
    after_write,
    before_write,
    boot_clock,
    decide,
    lapse,
    lease_manifest,
    micro_time,
    observe,
)

if TYPE_CHECKING:
    from .client import KubeClient

log = logging.getLogger(__name__)

# Conflicts are answered at once by looking again; more than this in one step means somebody else is writing
# too.
MAX_WRITES_PER_STEP: Final = 3
# Retry periods are shortened by up to this share, never lengthened: electors that started together drift
# apart and the bounds on a hand-over hold.
JITTER: Final = 0.25


class LeaseApi(Protocol):
    """The three requests that an election needs; they raise the errors of `errors.KubeError`."""

    async def read_lease(self, namespace: str, name: str) -> Manifest:
        """Read a Lease; NotFoundError when there is none."""
        ...

    async def create(self, manifest: Manifest) -> Manifest:
        """Create a Lease; ConflictError when it exists."""
        ...

    async def replace(self, manifest: Manifest) -> Manifest:
        """Replace a Lease; ConflictError when its resourceVersion is not the current one."""
        ...


class ClientLeaseApi:
    """A KubeClient as LeaseApi. Give it one without a guard: the election itself is what the guard asks."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self.create = client.create
        self.replace = client.replace

    async def read_lease(self, namespace: str, name: str) -> Manifest:
        """Read a Lease; NotFoundError when there is none."""
        # The sidecar uses this module without the Kubernetes library, which costs 50 MiB of memory.
        from .client import ObjectRef

        return await self._client.get(ObjectRef(LEASE_API_VERSION, LEASE_KIND, namespace, name))


class LeaseElector:
    """Takes part in the election over one Lease.

    `on_started(fencing_token)` and `on_stopped(reason)` are called in the event loop, always in turns, and
    must return at once; so is `on_observed(record)` after each look at the Lease and each renewal (None:
    there is no Lease). `is_leader`, `remaining_seconds` and `ensure_leader` look at the clock each time: a
    process that was frozen past its term knows so before anything else runs, although `on_stopped` is called
    a little later. `candidate` says whether this process wants to lead now; a leader that does not any more
    releases the Lease. `metadata` (labels, owner references) is used when the Lease is created. `identity`
    must be this process's own: a Lease with the same identity that this process did not write counts as
    somebody else's.
    """

    def __init__(
        self,
        api: LeaseApi,
        namespace: str,
        name: str,
        identity: str,
        timing: ElectionTiming | None = None,
        *,
        on_started: Callable[[int], None] = lambda _token: None,
        on_stopped: Callable[[str], None] = lambda _reason: None,
        on_observed: Callable[[LeaseRecord | None], None] = lambda _record: None,
        candidate: Callable[[], bool] = lambda: True,
        metadata: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = boot_clock,
        wall_clock: Callable[[], str] = micro_time,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._timing = timing or ElectionTiming()
        self._on_started = on_started
        self._on_stopped = on_stopped
        self._on_observed = on_observed
        self._candidate = candidate
        self._metadata = metadata or {}
        self._clock = clock
        self._wall_clock = wall_clock
        self._state = ElectionState(identity, self._timing)
        self._announced = False
        self._fresh = False
        self._reported = False
        self._releasing = False
        self._wake = asyncio.Event()
        self._started = asyncio.Event()
        self._ended = asyncio.Event()
        self._running = False

    @property
    def identity(self) -> str:
        """The name under which this process holds the Lease."""
        return self._state.identity

    @property
    def is_leader(self) -> bool:
        """Whether this process leads at this instant."""
        return self._state.leads(self._clock())

    @property
    def remaining_seconds(self) -> float:
        """How long this process leads from now on if no further renewal succeeds; 0 when it does not lead."""
        term = self._state.term
        return 0.0 if term is None else max(0.0, term.valid_until - self._clock())

    @property
    def fencing_token(self) -> int | None:
        """Number of the current term, higher than that of each earlier term; None when not leading."""
        term = self._state.term
        return term.claim.token if term is not None and self.is_leader else None

    @property
    def observed(self) -> LeaseRecord | None:
        """What the Lease said when it was last read or written."""
        return self._state.record

    @property
    def observed_age_seconds(self) -> float | None:
        """How long ago the Lease was first seen as it is; None before it was read."""
        return self._clock() - self._state.changed_at if self._state.looked else None

    def ensure_leader(self) -> None:
        """Raise LostLeadershipError unless this process leads at this instant; cheap, for use before each
        write.
        """
        if not self.is_leader:
            raise LostLeadershipError(f"{self.identity} does not hold Lease {self._namespace}/{self._name}")

    async def wait_until_leading(self) -> int:
        """Wait until this process leads; the fencing token of the term."""
        while True:
            await self._started.wait()
            if (token := self.fencing_token) is not None:
                return token
            await asyncio.sleep(self._timing.retry_period_seconds / 10)

    def poke(self) -> None:
        """Look again at once instead of after the retry period, for instance when `candidate` has changed."""
        self._wake.set()

    async def run(self) -> None:
        """Take part until `release` is called. When cancelled, the term ends here but the Lease is not
        released.
        """
        self._running = True
        try:
            while not self._releasing:
                delay = await self._step()
                await self._pause(delay)
            await self._give_back()
        finally:
            self._end_term("the election ends")
            self._running = False
            self._ended.set()

    async def release(self) -> None:
        """Stop leading, give the Lease back so that the next one takes over at once, and end `run`.

        Returns when that is done or has failed; it takes no longer than the renew deadline.
        """
        self._releasing = True
        self._end_term("leadership is given back")
        self._wake.set()
        if self._running:
            await self._ended.wait()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        if not self._releasing:
            self._wake.clear()

    async def _step(self) -> float:
        """Look and write as needed; the seconds until the next step."""
        timing = self._timing
        try:
            for _ in range(MAX_WRITES_PER_STEP):
                self._lapse()
                candidate = self._candidate()
                if not candidate:
                    self._end_term("this process cannot lead now")
                if not (self._fresh and self.is_leader):
                    await self._look()
                action = decide(self._state, self._clock(), self._wall_clock(), candidate=candidate)
                if action.verb in (Verb.WAIT, Verb.LOOK):
                    return self._until(action)
                if await self._write(action) and action.verb is not Verb.PREPARE:
                    self._reported = False
                    return self._jittered(timing.retry_period_seconds)
        except KubeError as error:
            self._fresh = False
            self._report(error)
        self._lapse()
        # A leader that has little time left tries at least once more within it.
        left = self.remaining_seconds
        retry = self._jittered(timing.retry_period_seconds)
        return min(retry, max(left / 2, 0.1)) if left else retry

    def _until(self, action: Action) -> float:
        self._reported = False
        retry = self._jittered(self._timing.retry_period_seconds)
        if action.until is None:
            return retry
        # Waking exactly when the Lease runs out saves up to a retry period of time without a leader.
        return min(retry, max(0.01, action.until - self._clock()))

    def _jittered(self, seconds: float) -> float:
        return seconds * (1 - JITTER * random.random())  # noqa: S311 - spreads load, protects nothing

    async def _look(self) -> None:
        try:
            lease = await self._request(self._api.read_lease(self._namespace, self._name))
        except NotFoundError:
            lease = None
        self._state = observe(self._state, lease, self._clock())
        self._fresh = True
        self._announce("the Lease has another holder")
        self._on_observed(self._state.record)

    async def _write(self, action: Action) -> bool:
        """Do it; False when somebody else was faster, so look again."""
        manifest = lease_manifest(
            self._state, action, self._namespace, self._name, self._metadata, self._wall_clock()
        )
        self._state = before_write(self._state, action)
        started = self._clock()
        create = self._state.lease is None
        try:
            lease = await self._request(self._api.create(manifest) if create else self._api.replace(manifest))
        except (ConflictError, NotFoundError):
            self._fresh = False
            return False
        self._state = after_write(self._state, action, lease, started, self._clock())
        if self._releasing:
            self._state = replace(self._state, term=None)
        self._announce("a renewal took longer than the renew deadline")
        self._on_observed(self._state.record)
        return True

    async def _request(self, call: Awaitable[Manifest]) -> Manifest:
        """One request with a deadline, which for a leader is never later than the end of its term."""
        seconds = max(self._timing.retry_period_seconds, self._timing.renew_deadline_seconds / 3)
        if self.is_leader:
            seconds = min(seconds, self.remaining_seconds)
        try:
            async with asyncio.timeout(seconds):
                return await call
        except TimeoutError as error:
            raise UnavailableError(
                f"no answer about Lease {self._namespace}/{self._name} in {seconds:.1f} s"
            ) from error

    def _lapse(self) -> None:
        self._state = lapse(self._state, self._clock())
        self._announce(f"no renewal succeeded within {self._timing.renew_deadline_seconds:g} s")

    def _end_term(self, reason: str) -> None:
        self._state = replace(self._state, term=None)
        self._announce(reason)

    def _announce(self, reason: str) -> None:
        """Tell the callbacks what changed."""
        term = self._state.term
        if term is not None and not self._announced:
            self._announced = True
            self._started.set()
            log.info(
                "leading",
                extra={"lease": self._name, "holder": self.identity, "fencing_token": term.claim.token},
            )
            self._on_started(term.claim.token)
        elif term is None and self._announced:
            self._announced = False
            self._started.clear()
            log.warning(
                "not leading any more: %s", reason, extra={"lease": self._name, "holder": self.identity}
            )
            self._on_stopped(reason)

    def _report(self, error: KubeError) -> None:
        if not self._reported:
            log.warning(
                "the election got no good answer about the Lease: %s", error, extra={"lease": self._name}
            )
        self._reported = True

    async def _give_back(self) -> None:
        """Release the Lease if it carries a claim of this process, also one whose answer was lost."""
        try:
            async with asyncio.timeout(self._timing.renew_deadline_seconds):
                for _ in range(MAX_WRITES_PER_STEP):
                    await self._look()
                    action = decide(self._state, self._clock(), self._wall_clock(), candidate=False)
                    if action.verb is not Verb.RELEASE or await self._write(action):
                        return
        except (KubeError, TimeoutError) as error:
            log.warning(
                "could not release the Lease, it runs out by itself: %s", error, extra={"lease": self._name}
            )
