"""A proxy between an operator and the API server that refuses, hangs, lags, loses and lies on demand.

It listens on loopback with plain HTTP, runs in a thread of its own and counts every request. All methods are called
from the test's thread; each fault holds while its `with` block runs.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import ssl
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import aiohttp
import yaml
from aiohttp import web

from tests.share import free_port

T = TypeVar("T")

READS: Final = ("get", "list", "watch")
LEASES: Final = "leases"

_CALL_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.02
# An event is one line; the largest objects have some 100 kB.
_LINE_BYTES: Final = 4 * 1024 * 1024
_PASSED_ON: Final = ("Authorization", "Content-Type", "Accept", "User-Agent")
_PATH: Final = re.compile(
    r"/(?:api|apis/[^/]+)/[^/]+"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/[^/]))?"
    r"/(?P<resource>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>.+))?"
)
_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class LoopThread:
    """An event loop in a thread of its own, for tests that wait in theirs."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_SECONDS)

    def close(self) -> None:
        """Cancel what still runs and end."""
        self.do(self._cancel())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_SECONDS)
        self._loop.close()

    async def _cancel(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


@dataclass(slots=True)
class Call:
    """One request that arrived at `at` (time.monotonic); `status` is what was answered, 0: nothing (yet).

    `verb` and `resource` as in an audit log, such as `patch` of `runnerhubclusters/status`; `reached` tells whether
    the API server got it.
    """

    at: float
    verb: str
    resource: str
    namespace: str
    name: str
    query: dict[str, str]
    reached: bool = False
    status: int = 0

    @classmethod
    def of(cls, method: str, path: str, query: dict[str, str]) -> Call:
        """Read a request."""
        found = _PATH.fullmatch(path.rstrip("/"))
        parts = found.groupdict(default="") if found else {"resource": path}
        resource = "/".join(part for part in (parts["resource"], parts.get("sub", "")) if part)
        verb = _VERBS.get(method) or ("get" if parts.get("name") or not found else "list")
        if query.get("watch") in ("1", "true"):
            verb = "watch"
        return cls(time.monotonic(), verb, resource, parts.get("namespace", ""), parts.get("name", ""), query)

    @property
    def writes(self) -> bool:
        """Whether it changes something."""
        return self.verb not in READS

    def __str__(self) -> str:
        return f"{self.verb} {self.resource} {self.namespace}/{self.name} -> {self.status}"


Matches = Callable[[Call], bool]


def everything(_: Call) -> bool:
    """Matches each call."""
    return True


def reads(call: Call) -> bool:
    """Matches what changes nothing."""
    return not call.writes


def writes(call: Call) -> bool:
    """Matches what changes something."""
    return call.writes


def work(call: Call) -> bool:
    """Matches writes beyond the operator's own Lease."""
    return call.writes and not call.resource.startswith(LEASES)


@dataclass(slots=True, eq=False)
class _Watch:
    """An open watch; `ended` by ERROR with this code as soon as it is set."""

    call: Call
    downstream: web.StreamResponse
    transport: asyncio.Transport
    waiting: list[tuple[float, bytes]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False
    ended: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Refusal:
    status: int
    retry_after: int | None
    matches: Matches


@dataclass(slots=True, eq=False)
class _AtWrite:
    left: int
    act: Callable[[Call], None]
    after: bool
    matches: Matches


class _LostError(Exception):
    """The connection is cut without an answer."""


class ChaosProxy:
    """Passes everything on until told otherwise; use it as a context manager.

    `kubeconfig` is one as ApiServer writes them: where the real server is, and whom to trust.
    """

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        self._upstream: str = cluster["server"]
        self._authority: str = cluster["certificate-authority"]
        self._token: str = config["users"][0]["user"]["token"]
        self._loop = LoopThread("chaos")
        self._session: aiohttp.ClientSession
        self._server: web.Server
        self._runner: web.ServerRunner
        self._site: web.TCPSite | None = None
        # Its own for as long as it runs, also while it refuses.
        self._port = free_port()
        self._watches: set[_Watch] = set()
        # Faults.
        self._speaks = asyncio.Event()
        self._deaf: set[asyncio.BaseTransport] = set()
        self._mute: list[Matches] = []
        self._lags: list[tuple[float, Matches]] = []
        self._refusals: list[_Refusal] = []
        self._hooks: list[_AtWrite] = []
        self._losses: list[Matches] = []
        self._oldest_version = 0
        self._expired_tokens: Callable[[Call], bool] = lambda _: False
        self._page_size = 0
        self.calls: list[Call] = []

    def __enter__(self) -> Self:
        self._loop.do(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.do(self._stop())
        self._loop.close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def kubeconfig(self, user: Path, target: Path) -> Path:
        """Write a kubeconfig with the credentials of another one that leads here."""
        config = yaml.safe_load(user.read_text())
        config["clusters"][0]["cluster"] = {"server": self.url}
        target.touch(0o600)
        target.write_text(yaml.safe_dump(config))
        return target

    # --- What was asked ---

    def mark(self) -> int:
        """Now, for `since`."""
        return len(self.calls)

    def since(self, mark: int, matches: Matches = everything) -> list[Call]:
        """Calls that arrived after a mark."""
        return [call for call in self.calls[mark:] if matches(call)]

    def summary(self, mark: int, matches: Matches = everything) -> Counter[str]:
        """Calls after a mark by verb, resource and status."""
        return Counter(f"{call.verb} {call.resource} {call.status}" for call in self.since(mark, matches))

    def open_watches(self) -> Counter[str]:
        """Watches that are open now, by resource."""
        return Counter(watch.call.resource for watch in list(self._watches))

    # --- Faults ---

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Nobody listens, and all connections are reset: the server is down."""
        self._loop.do(self._close())
        try:
            yield
        finally:
            self._loop.do(self._listen())

    @contextmanager
    def silent(self, *, half_open: bool = False) -> Iterator[None]:
        """A black hole: connections are accepted and nothing is ever answered.

        Afterwards what was waiting is reset; `half_open`: open watches stay silent for ever instead.
        """
        self._loop.do(self._be_silent())
        try:
            yield
        finally:
            self._loop.do(self._speak(half_open))

    def cut_watches(self, *, abruptly: bool = True) -> int:
        """End all open watches, by a reset or as a server does that closes them; gives their number."""
        return self._loop.do(self._cut_watches(abruptly))

    def fail_watches(self, code: int) -> int:
        """End all open watches by an event of type ERROR with this code; gives their number."""
        return self._loop.do(self._fail_watches(code))

    @contextmanager
    def answering(
        self, status: int, *, retry_after: int | None = None, matches: Matches = everything
    ) -> Iterator[None]:
        """Answer calls by an error instead of passing them on. Open watches stay."""
        refusal = _Refusal(status, retry_after, matches)
        self._refusals.append(refusal)
        try:
            yield
        finally:
            self._refusals.remove(refusal)

    @contextmanager
    def lagging(self, seconds: float, matches: Matches = everything) -> Iterator[None]:
        """Tell the events of the watches that match later; those of one watch stay in order."""
        lag = seconds, matches
        self._lags.append(lag)
        try:
            yield
        finally:
            self._lags.remove(lag)

    @contextmanager
    def muted(self, matches: Matches = everything) -> Iterator[None]:
        """Tell no event of the watches that match; they follow afterwards, unless `expire` took them away."""
        self._mute.append(matches)
        try:
            yield
        finally:
            self._mute.remove(matches)

    def expire(self) -> Counter[str]:
        """410 Gone: open watches end with it and lose the events that wait; so do those from older versions.

        Gives the watches that were open, by resource.
        """
        return self._loop.do(self._expire())

    @contextmanager
    def short_pages(self, size: int, expired: int = 0) -> Iterator[None]:
        """Lists in pages have small ones; so many of the next requests for a further one are answered by 410."""
        left = itertools.count(1)
        self._page_size = size
        self._expired_tokens = lambda _: next(left) <= expired
        try:
            yield
        finally:
            self._page_size = 0
            self._expired_tokens = lambda _: False

    @contextmanager
    def losing_answers(self, matches: Matches = writes) -> Iterator[None]:
        """Calls take effect, but their connection is cut before the answer."""
        self._losses.append(matches)
        try:
            yield
        finally:
            self._losses.remove(matches)

    def at_write(
        self, number: int, act: Callable[[Call], None], *, after: bool = False, matches: Matches = work
    ) -> None:
        """Call `act` once, in the proxy's thread, at the write of this number from now on, counted from 1.

        `after`: when it has taken effect and before its answer is passed on.
        """
        self._hooks.append(_AtWrite(number, act, after, matches))

    # --- In the loop ---

    async def _start(self) -> None:
        self._session = aiohttp.ClientSession(
            self._upstream,
            connector=aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=self._authority), limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=_LINE_BYTES,
        )
        self._speaks.set()
        self._server = web.Server(self._handle, handler_cancellation=True)
        self._runner = web.ServerRunner(self._server, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await self._listen()

    async def _stop(self) -> None:
        await self._close()
        await self._runner.cleanup()
        await self._session.close()

    async def _listen(self) -> None:
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await self._site.start()

    async def _close(self) -> None:
        if self._site is not None:
            await self._site.stop()
            self._site = None
        for connection in self._server.connections:
            if connection.transport is not None:
                connection.transport.abort()

    async def _be_silent(self) -> None:
        self._speaks.clear()

    async def _speak(self, half_open: bool) -> None:
        self._deaf |= {watch.transport for watch in self._watches if half_open}
        for connection in self._server.connections:
            if connection.transport is not None and connection.transport not in self._deaf:
                connection.transport.abort()
        self._speaks.set()

    async def _cut_watches(self, abruptly: bool) -> int:
        for watch in list(self._watches):
            if abruptly:
                watch.transport.abort()
            else:
                watch.over = True
                watch.news.set()
        return len(self._watches)

    async def _fail_watches(self, code: int) -> int:
        for watch in self._watches:
            watch.ended = code
            watch.news.set()
        return len(self._watches)

    async def _expire(self) -> Counter[str]:
        headers = {"Authorization": f"Bearer {self._token}"}
        async with self._session.get(
            "/api/v1/namespaces", params={"limit": "1"}, headers=headers
        ) as response:
            self._oldest_version = int((await response.json())["metadata"]["resourceVersion"])
        for watch in self._watches:
            watch.waiting.clear()
        await self._fail_watches(410)
        return self.open_watches()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        call = Call.of(request.method, request.path, dict(request.query))
        self.calls.append(call)
        transport = request.transport
        assert isinstance(transport, asyncio.Transport)
        try:
            await self._speaks.wait()
            if (refused := self._refuse(call)) is not None:
                return refused
            self._hook(call, after=False)
            if call.verb == "watch":
                return await self._watch(call, request, transport)
            return await self._pass(call, request)
        except (_LostError, aiohttp.ClientError, ConnectionError):
            transport.abort()
            return web.Response(status=502)

    def _refuse(self, call: Call) -> web.Response | None:
        refusal = next((item for item in self._refusals if item.matches(call)), None)
        if refusal is not None:
            headers = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
            call.status = refusal.status
            return web.json_response(_status(refusal.status), status=refusal.status, headers=headers)
        if "continue" in call.query and self._expired_tokens(call):
            call.status = 410
            return web.json_response(_status(410), status=410)
        return None

    def _hook(self, call: Call, *, after: bool) -> None:
        for hook in [item for item in self._hooks if item.after == after and item.matches(call)]:
            hook.left -= 1
            if hook.left == 0:
                self._hooks.remove(hook)
                hook.act(call)

    @asynccontextmanager
    async def _asked(self, call: Call, request: web.BaseRequest) -> AsyncIterator[aiohttp.ClientResponse]:
        """The request as the real server gets it."""
        query = dict(call.query)
        if self._page_size and "limit" in query:
            query["limit"] = str(self._page_size)
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        body = await request.read() if request.can_read_body else None
        call.reached = True
        async with self._session.request(
            request.method, request.path, params=query, headers=headers, data=body
        ) as response:
            yield response

    async def _pass(self, call: Call, request: web.BaseRequest) -> web.Response:
        async with self._asked(call, request) as response:
            body = await response.read()
            self._hook(call, after=True)
            if any(matches(call) for matches in self._losses):
                raise _LostError
            # It may have begun meanwhile: what was asked before is not answered either.
            await self._speaks.wait()
            call.status = response.status
            headers = {
                name: response.headers[name]
                for name in ("Content-Type", "Retry-After")
                if name in response.headers
            }
            return web.Response(status=response.status, body=body, headers=headers)

    async def _watch(
        self, call: Call, request: web.BaseRequest, transport: asyncio.Transport
    ) -> web.StreamResponse:
        downstream = web.StreamResponse(headers={"Content-Type": "application/json"})
        if 0 < int(call.query.get("resourceVersion") or 0) < self._oldest_version:
            call.status = 410
            await downstream.prepare(request)
            await downstream.write(_error_event(410))
            return downstream
        async with self._asked(call, request) as response:
            call.status = response.status
            if response.status >= 400:
                return web.Response(status=response.status, body=await response.read())
            await downstream.prepare(request)
            watch = _Watch(call, downstream, transport)
            self._watches.add(watch)
            reading = asyncio.create_task(_read(watch, response))
            try:
                await self._tell(watch)
            finally:
                self._watches.discard(watch)
                reading.cancel()
                with suppress(asyncio.CancelledError, aiohttp.ClientError):
                    await reading
        return downstream

    async def _tell(self, watch: _Watch) -> None:
        """Pass events on until the watch ends."""
        while True:
            watch.news.clear()
            if watch.ended and self._speaks.is_set():
                watch.call.status = watch.ended
                await watch.downstream.write(_error_event(watch.ended))
                return
            while watch.waiting and not self._holds(watch, watch.waiting[0][0]):
                await watch.downstream.write(watch.waiting.pop(0)[1])
            if watch.over and not watch.waiting and not self._mutes(watch):
                return
            if watch.waiting or watch.over or watch.ended:
                await asyncio.sleep(_LOOK_SECONDS)
            else:
                await watch.news.wait()

    def _mutes(self, watch: _Watch) -> bool:
        return (
            not self._speaks.is_set()
            or watch.transport in self._deaf
            or any(matches(watch.call) for matches in self._mute)
        )

    def _holds(self, watch: _Watch, came: float) -> bool:
        """Whether an event that came at this time is still kept back."""
        age = time.monotonic() - came
        return self._mutes(watch) or any(
            age < seconds and matches(watch.call) for seconds, matches in self._lags
        )


async def _read(watch: _Watch, response: aiohttp.ClientResponse) -> None:
    try:
        async for line in response.content:
            if not watch.over:
                watch.waiting.append((time.monotonic(), line))
                watch.news.set()
    finally:
        watch.over = True
        watch.news.set()


def _status(code: int) -> dict[str, Any]:
    reasons = {410: "Expired", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f"chaos: {reasons.get(code, 'error')}",
        "reason": reasons.get(code, "Unknown"),
        "code": code,
    }


def _error_event(code: int) -> bytes:
    return json.dumps({"type": "ERROR", "object": _status(code)}).encode() + b"\n"
