"""A load balancer's pod on loopback: the image's own program and a real HAProxy; orchestrators and DNS are played.

The configuration is the builder's own; only ports, folders and the name server are others.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import functools
import io
import itertools
import json
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from runnerhub_operator import names
from runnerhub_operator.probes.haproxy import configuration_digest
from runnerhub_operator.resources.loadbalancer import configuration
from tests.generate import context
from tests.share import free_port

REPOSITORY = Path(__file__).resolve().parents[3]
HOST = "hub.example.com"
# How long clients have patience.
CLIENT_SECONDS = 15


def missing() -> str:
    """What this machine lacks for these tests, "" when nothing."""
    return ", ".join(name for name in ("haproxy", "openssl") if shutil.which(name) is None)


def haproxy_version() -> tuple[int, int]:
    """Of the one on this machine, which may be older than the image's."""
    text = subprocess.run(["haproxy", "-v"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\d+)\.(\d+)", text)
    assert found is not None
    return int(found[1]), int(found[2])


async def wait_until(what: str, condition: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    """Poll for a state."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        await asyncio.sleep(0.05)


class NameServer(asyncio.DatagramProtocol):
    """Answers each question for an IPv4 address with the same addresses, or nobody while it is `silent`."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.silent = False
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self.silent:
            return
        end = data.index(b"\0", 12) + 5
        question = data[12:end]
        found = self.addresses if question[-4:-2] == b"\0\1" else []
        head = data[:2] + struct.pack(">HHHHH", 0x8180, 1, len(found), 0, 0)
        answers = b"".join(
            b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + socket.inet_aton(address) for address in found
        )
        self._transport.sendto(head + question + answers, addr)


@dataclass(slots=True)
class Orchestrator:
    """One played pod with an address of its own; each answer tells who gave it and what it was asked.

    `unhealthy`: paths that are answered with 503; `silent`: paths that are not answered.
    """

    address: str
    ports: dict[int, int]
    requests: int = 0
    delay_seconds: float = 0.0
    status: int = 200
    unhealthy: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    cluster: str = "runnerhub/hub"
    _runner: web.AppRunner | None = None
    _sites: dict[int, web.TCPSite] = field(default_factory=dict)

    async def start(self) -> None:
        """Listen on all ports."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        for port in self.ports:
            await self.listen(port)

    async def listen(self, port: int) -> None:
        """Accept connections at a port of the pod."""
        assert self._runner is not None
        self._sites[port] = web.TCPSite(self._runner, self.address, self.ports[port], reuse_address=True)
        await self._sites[port].start()

    @contextlib.asynccontextmanager
    async def refuses(self, port: int) -> AsyncIterator[None]:
        """Refuse new connections at a port of the pod; those that there are stay."""
        await self._sites.pop(port).stop()
        yield
        await self.listen(port)

    @contextlib.asynccontextmanager
    async def loses_packets(self, port: int) -> AsyncIterator[None]:
        """Answer no new connection at a port of the pod, as when its packets are lost."""
        place = (self.address, self.ports[port])
        async with self.refuses(port):
            with socket.socket() as full:
                full.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                full.bind(place)
                # One waits to be accepted, and the kernel drops the packets of all others.
                full.listen(0)
                with socket.create_connection(place):
                    yield

    async def stop(self) -> None:
        """Refuse connections from now on."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get(names.HEADER_CLUSTER, self.cluster) != self.cluster:
            return web.json_response({}, status=421)
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._talk(request)
        if request.path in self.silent:
            await asyncio.sleep(60)
        if request.path.startswith("/api"):
            self.requests += 1
            status = self.status
            await asyncio.sleep(self.delay_seconds)
        else:
            status = 503 if request.path in self.unhealthy else 200
        told = {"pod": self.address, "headers": dict(request.headers.items())}
        return web.json_response(told, status=status)

    async def _talk(self, request: web.Request) -> web.WebSocketResponse:
        talk = web.WebSocketResponse()
        await talk.prepare(request)
        async for message in talk:
            await talk.send_str(f"{self.address} {message.data}")
        return talk


class Bench:
    """The pod with three orchestrators; `spec` is the section of the load balancer."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.sources = (home / "configuration", home / "tls")
        self.runtime = home / "runtime"
        # By the port in the pod.
        self.ports = {
            port: free_port()
            for port in (
                names.PORT_LB_HTTP,
                names.PORT_LB_HTTPS,
                names.PORT_ORCHESTRATOR,
                names.PORT_WEBSOCKET,
                names.PORT_LB_STATS,
                names.PORT_LB_STATE,
                names.PORT_REDIS,
            )
        }
        self._master_port = free_port()
        behind = (names.PORT_ORCHESTRATOR, names.PORT_WEBSOCKET, names.PORT_AGENT)
        self._behind = {port: free_port() for port in behind}
        self.orchestrators = [Orchestrator(f"127.0.1.{number}", self._behind) for number in (1, 2, 3)]
        self.names = NameServer()
        self._dns_port = free_port()
        self.program: subprocess.Popen[bytes] | None = None
        self.log = home / "log"
        for folder in (*self.sources, self.runtime):
            folder.mkdir()
        (home / "resolv.conf").write_text("search runnerhub.svc.example\nnameserver 192.0.2.1\n")

    # --- Files ---

    def configuration(self, spec: dict[str, Any], orchestrators: int = 3) -> str:
        """haproxy.cfg as the operator writes it, for this machine."""
        full = {"loadBalancer": spec, "orchestrator": {"replicas": orchestrators}}
        text = configuration(context("hub", full))
        for port, here in self.ports.items():
            text = text.replace(f"bind *:{port}", f"bind 127.0.0.1:{here}")
        for port, here in self._behind.items():
            text = text.replace(f':{port}"', f':{here}"').replace(f" port {port}", f" port {here}")
        text = text.replace(f" port {names.PORT_REDIS_STATE}", f" port {self._master_port}")
        text = text.replace("/run/haproxy", str(self.runtime))
        text = text.replace("parse-resolv-conf", f"nameserver test 127.0.0.1:{self._dns_port}")
        # The image has 3.0; before it, addresses of pods had no part in the choice.
        return text if haproxy_version() >= (3, 0) else text.replace(" hash-key addr", "")

    def configure(self, text: str) -> None:
        """Put another configuration in place, at once as Kubernetes does."""
        _replace(self.sources[0] / "haproxy.cfg", text)

    def certify(self, serial: int) -> None:
        """Put a new certificate with its key in place."""
        fresh = self.home / f"certificate-{serial}"
        fresh.mkdir()
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}", "-days", "2",
             "-set_serial", str(serial), "-keyout", fresh / "tls.key", "-out", fresh / "tls.crt"],
            check=True, capture_output=True,
        )  # fmt: skip
        # Both in one moment, by a link, as Kubernetes does.
        link = self.home / "link"
        link.symlink_to(fresh)
        if self.sources[1].is_dir() and not self.sources[1].is_symlink():
            self.sources[1].rmdir()
        link.replace(self.sources[1])

    # --- Processes ---

    async def start(self, spec: dict[str, Any]) -> None:
        """Start everything, and wait until it serves from all pods."""
        for orchestrator in self.orchestrators:
            await orchestrator.start()
        await self.start_alone(spec)
        await wait_until("all pods to be found", self._finds_all)

    async def start_alone(self, spec: dict[str, Any]) -> None:
        """Start the load balancer, and DNS that has all pods, whether they are there or not."""
        self.names.addresses = [orchestrator.address for orchestrator in self.orchestrators]
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self.names, local_addr=("127.0.0.1", self._dns_port))
        self.configure(self.configuration(spec))
        self.start_program()

    @contextlib.asynccontextmanager
    async def queue_master(self) -> AsyncIterator[None]:
        """Have Redis pods that say that they are the master, at the addresses that DNS has for them."""
        app = web.Application()

        async def yes(_: web.Request) -> web.Response:
            return web.Response()

        app.router.add_get("/master", yes)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        for orchestrator in self.orchestrators:
            await web.TCPSite(runner, orchestrator.address, self._master_port, reuse_address=True).start()
        yield
        await runner.cleanup()

    async def add_orchestrator(self) -> Orchestrator:
        """Start one more pod, which DNS does not have yet."""
        fresh = Orchestrator(f"127.0.1.{len(self.orchestrators) + 1}", self._behind)
        await fresh.start()
        self.orchestrators.append(fresh)
        return fresh

    def start_program(self, **more: str) -> None:
        """Start the pod's program."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY / "images" / "haproxy"),
            "HAPROXY_SOURCES": ":".join(map(str, self.sources)),
            "HAPROXY_RUNTIME": str(self.runtime),
            "RESOLV_CONF": str(self.home / "resolv.conf"),
            "STATE_PORT": str(self.ports[names.PORT_LB_STATE]),
            "POLL_SECONDS": "0.1",
            **more,
        }
        with self.log.open("ab") as log:
            self.program = subprocess.Popen(
                [sys.executable, "-m", "runnerhub_haproxy"],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def exit_code(self, seconds: float = 40) -> int:
        """Wait for the program's end."""
        program = self.program
        assert program is not None

        async def ended() -> bool:
            return program.poll() is not None

        await wait_until("the program to end", ended, seconds)
        return int(program.returncode)

    def signal(self, number: int) -> None:
        """Send the program a signal."""
        assert self.program is not None
        self.program.send_signal(number)

    async def stop(self) -> None:
        """End everything."""
        if self.program is not None and self.program.poll() is None:
            self.program.send_signal(signal.SIGTERM)
            with contextlib.suppress(AssertionError):
                await self.exit_code(2)
        if self.program is not None:
            # HAProxy too, should the program have left it behind.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.program.pid, signal.SIGKILL)
            self.program.wait()
        for orchestrator in self.orchestrators:
            await orchestrator.stop()

    # --- As clients ---

    def url(self, port: int, path: str = "/", scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.ports[port]}{path}"

    async def state(self) -> dict[str, Any]:
        """What the program tells the operator."""
        status, body, _ = await self.get(names.PORT_LB_STATE, "/state")
        assert status == 200
        return body

    async def loaded(self, text: str) -> None:
        """Wait until HAProxy works by a configuration."""
        digest = configuration_digest(text)

        async def works() -> bool:
            return (await self.state())["loaded"] == digest

        await wait_until("the configuration to be loaded", works)

    async def get(
        self, port: int, path: str = "/", *, scheme: str = "http", headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """One request on a connection of its own: status, body, headers."""
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CLIENT_SECONDS)) as client,
            client.get(
                self.url(port, path, scheme), headers=headers, ssl=trusting_all(), allow_redirects=False
            ) as response,
        ):
            raw = await response.text()
            told = {name.lower(): value for name, value in response.headers.items()}
        with contextlib.suppress(ValueError):
            return response.status, json.loads(raw), told
        return response.status, raw, told

    async def longest_queues(self) -> dict[str, int]:
        """The most requests that ever waited at once, by backend and server; only those that had some."""
        found = {f"{row['pxname']}/{row['svname']}": int(row["qmax"] or 0) for row in await self._stats()}
        return {name: longest for name, longest in found.items() if longest}

    async def is_ready(self) -> bool:
        """What the readiness probe asks for; False too as long as nobody answers."""
        try:
            status, _, _ = await self.get(names.PORT_LB_STATS, "/readyz")
        except aiohttp.ClientError:
            return False
        return status == 200

    async def servers(self, backend: str) -> list[str]:
        """The states of a backend's servers that pods have, such as UP, UP 1/2 (going down) and DOWN."""
        rows = [row for row in await self._stats() if row["pxname"] == backend and row["svname"][:3] == "pod"]
        return [row["status"] for row in rows if "MAINT" not in row["status"]]

    async def _stats(self) -> list[dict[str, str]]:
        _, text, _ = await self.get(names.PORT_LB_STATS, "/stats;csv")
        return list(csv.DictReader(io.StringIO(text.removeprefix("# "))))

    def serial(self) -> int:
        """Serial number of the certificate that new connections get."""
        pem = ssl.get_server_certificate(("127.0.0.1", self.ports[names.PORT_LB_HTTPS]))
        shown = subprocess.run(
            ["openssl", "x509", "-noout", "-serial"], input=pem, capture_output=True, text=True, check=True
        ).stdout
        return int(shown.strip().removeprefix("serial="), 16)

    def certificate_until(self) -> str:
        """When the certificate that new connections get ends, RFC 3339."""
        pem = ssl.get_server_certificate(("127.0.0.1", self.ports[names.PORT_LB_HTTPS]))
        shown = subprocess.run(
            ["openssl", "x509", "-noout", "-enddate", "-dateopt", "iso_8601"],
            input=pem,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return shown.strip().removeprefix("notAfter=").replace(" ", "T")

    async def pods_that_answer(self, tries: int = 12) -> Counter[str]:
        """Which pods answer so many requests."""
        found: Counter[str] = Counter()
        for _ in range(tries):
            with contextlib.suppress(aiohttp.ClientError, OSError):
                status, body, _ = await self.get(names.PORT_ORCHESTRATOR, "/api/jobs/1")
                found[body["pod"] if status == 200 else str(status)] += 1
        return found

    async def _finds_all(self) -> bool:
        return set(await self.pods_that_answer(9)) == {item.address for item in self.orchestrators}


@functools.cache
def trusting_all() -> ssl.SSLContext:
    """Takes every certificate: these are nobody's."""
    found = ssl.create_default_context()
    found.check_hostname = False
    found.verify_mode = ssl.CERT_NONE
    return found


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name("..fresh")
    fresh.write_text(text)
    fresh.replace(path)


class Load:
    """Clients without a break until the end: kept connections and new ones, HTTP and TLS, reads and jobs."""

    def __init__(self, bench: Bench, *, tls: bool) -> None:
        self._bench = bench
        self._tls = tls
        self._tasks: list[asyncio.Task[None]] = []
        self._stop = False
        self.answered = 0
        self.failures: list[str] = []

    async def __aenter__(self) -> Load:
        doors = [(names.PORT_ORCHESTRATOR, "http")]
        if self._tls:
            doors.append((names.PORT_LB_HTTPS, "https"))
        for (port, scheme), keeps, method in itertools.product(doors, (True, False), ("GET", "POST")):
            url = self._bench.url(port, "/api/jobs/delegate", scheme)
            self._tasks.append(asyncio.create_task(self._ask(url, keeps, method)))
        await self.go_on(20)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def go_on(self, more: int) -> None:
        """Wait until so many more requests have been answered."""
        wanted = self.answered + more

        async def enough() -> bool:
            return self.answered >= wanted

        await wait_until(f"{more} more answers", enough)

    async def _ask(self, url: str, keeps: bool, method: str) -> None:
        number = 0
        while not self._stop:
            connector = aiohttp.TCPConnector(ssl=trusting_all())
            async with aiohttp.ClientSession(connector=connector) as client:
                for _ in range(10**9 if keeps else 1):
                    if self._stop:
                        break
                    number += 1
                    await self._one(client, url, method, number)
                    await asyncio.sleep(0.01)

    async def _one(self, client: aiohttp.ClientSession, url: str, method: str, number: int) -> None:
        body = {"json": {"jobId": number}} if method == "POST" else {}
        try:
            timeout = aiohttp.ClientTimeout(total=CLIENT_SECONDS)
            async with client.request(method, url, timeout=timeout, **body) as response:
                await response.read()
                if response.status != 200:
                    self.failures.append(f"{method} {url}: {response.status}")
                self.answered += 1
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.failures.append(f"{method} {url}: {error!r}")
