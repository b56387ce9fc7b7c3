"""The load balancer's pod with a real HAProxy: what clients meet while settings, certificates and pods change."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from runnerhub_operator import names
from tests.integration.loadbalancer.bench import CLIENT_SECONDS, HOST, Bench, Load, trusting_all, wait_until

TLS = {"tls": {"secretName": "hub-tls"}}
MANY = [f"10.{number}.0.0/16" for number in range(48)] + ["2001:db8::/32", "::1/128"]
EDGES: dict[str, list[Any]] = {
    "tls": [None, TLS["tls"]],
    "balance": ["roundrobin", "leastconn"],
    "trustedProxies": [None, [], MANY],
    "slowStartSeconds": [0, 600],
    "maxConnections": [100, 50000],
    "maxConnectionsPerOrchestrator": [None, 1, 50000],
}
TIMEOUTS = (
    {"connectSeconds": 1, "clientSeconds": 1, "serverSeconds": 1, "queueSeconds": 1, "tunnelSeconds": 10},
    {"connectSeconds": 60, "clientSeconds": 3600, "serverSeconds": 3600, "queueSeconds": 600,
     "tunnelSeconds": 604800},
)  # fmt: skip


async def test_haproxy_takes_every_combination_without_a_word(bench: Bench) -> None:
    bench.certify(1)
    (bench.runtime / "server-state").write_text("1\n")
    said = {}
    for number, values in enumerate(itertools.product(*EDGES.values())):
        spec = {**dict(zip(EDGES, values, strict=True)), "timeouts": TIMEOUTS[number % 2]}
        bench.configure(bench.configuration(spec, orchestrators=(1, 50)[number % 2]))
        if complaints := _complaints(bench):
            said[str(spec)] = complaints
    assert said == {}


def _complaints(bench: Bench) -> list[str]:
    """What HAProxy has against the configuration, but for limits of this machine."""
    done = subprocess.run(
        ["haproxy", "-c", "-f", bench.sources[0] / "haproxy.cfg"],
        env={**os.environ, "SERVICE_DOMAIN": "x.svc", "CONFIG_DIR": str(bench.sources[1])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if "WARNING" in line or "ALERT" in line]
    return [line for line in lines if "maxconn" not in line and "ulimit" not in line]


async def test_tls_ends_here_and_port_80_redirects_to_it(bench: Bench) -> None:
    bench.certify(7)
    await bench.start(TLS)
    host = {"Host": HOST}
    status, _, told = await bench.get(names.PORT_LB_HTTP, "/api/jobs/1?a=b", headers=host)
    assert (status, told["location"]) == (308, f"https://{HOST}/api/jobs/1?a=b")
    for path in ("/health", "/health/database"):
        status, _, _ = await bench.get(names.PORT_LB_HTTP, path, headers=host)
        assert status == 200, path
    status, body, _ = await bench.get(names.PORT_LB_HTTPS, "/api/jobs/1", scheme="https", headers=host)
    assert status == 200
    assert body["headers"]["X-Forwarded-Proto"] == "https"
    assert body["headers"]["X-Forwarded-Host"] == HOST
    status, body, _ = await bench.get(names.PORT_ORCHESTRATOR, "/api/jobs/1", headers=host)
    assert (status, body["headers"]["X-Forwarded-Proto"]) == (200, "http")
    # Where the Ingress leads to: for WebSockets too.
    assert await _home(bench, "198.51.100.1", names.PORT_ORCHESTRATOR)
    # What a proxy in front got by TLS is not sent round in a circle.
    status, _, _ = await bench.get(names.PORT_LB_HTTP, "/", headers={**host, "X-Forwarded-Proto": "https"})
    assert status == 200
    assert bench.serial() == 7


async def test_no_request_and_no_connection_is_lost_while_settings_and_certificate_change(
    bench: Bench,
) -> None:
    bench.certify(1)
    await bench.start(TLS)
    async with aiohttp.ClientSession() as client:
        plain = await client.ws_connect(bench.url(names.PORT_WEBSOCKET, "/", "ws"))
        secure = await client.ws_connect(bench.url(names.PORT_LB_HTTPS, "/", "wss"), ssl=trusting_all())
        homes = [await _say(socket, "before") for socket in (plain, secure)]
        async with Load(bench, tls=True) as load:
            for turn in range(3):
                # A new worker must not depend on an answer.
                bench.names.silent = turn == 1
                text = bench.configuration({**TLS, "maxConnections": 1000 + turn}, orchestrators=3 + 5 * turn)
                bench.configure(text)
                await bench.loaded(text)
                await load.go_on(100)
                bench.certify(10 + turn)

                async def renewed(serial: int = 10 + turn) -> bool:
                    return await asyncio.to_thread(bench.serial) == serial

                await wait_until("the new certificate", renewed)
                await load.go_on(100)
        assert load.failures == []
        assert [await _say(socket, "after") for socket in (plain, secure)] == homes
        assert (await bench.state())["refused"] is None

        async def tells_the_end() -> bool:
            return (await bench.state())["certificate_until"] == bench.certificate_until()

        await wait_until("the end of the certificate in use", tells_the_end)
        await plain.close()
        await secure.close()


async def test_websockets_stick_to_their_client_also_over_a_reload(bench: Bench) -> None:
    await bench.start({})
    clients = [f"198.51.100.{number}" for number in range(30)]
    before = {client: await _home(bench, client) for client in clients}
    assert len(set(before.values())) == 3
    assert {client: await _home(bench, client) for client in clients} == before
    polls = {}
    for client in clients:
        headers = {"X-Forwarded-For": client}
        _, body, _ = await bench.get(names.PORT_WEBSOCKET, "/socket.io/?x", headers=headers)
        polls[client] = body["pod"]
    assert polls == before
    text = bench.configuration({"maxConnections": 500})
    bench.configure(text)
    await bench.loaded(text)
    assert {client: await _home(bench, client) for client in clients} == before


async def test_a_pod_that_refuses_connections_costs_no_request(bench: Bench) -> None:
    await bench.start({"slowStartSeconds": 0})
    async with Load(bench, tls=False) as load:
        await bench.orchestrators[1].stop()
        await load.go_on(200)
        await bench.orchestrators[1].start()
        await load.go_on(50)
    assert load.failures == []

    async def all_back() -> bool:
        return len(await bench.pods_that_answer()) == 3

    await wait_until("the pod to be used again", all_back)


async def test_a_pod_of_another_cluster_at_a_former_address_gets_nothing_while_dns_is_silent(
    bench: Bench,
) -> None:
    await bench.start({"slowStartSeconds": 0})
    bench.names.silent = True
    gone = bench.orchestrators[1]
    await gone.stop()

    async def without_it() -> bool:
        return set(await bench.pods_that_answer()) == {
            bench.orchestrators[0].address,
            bench.orchestrators[2].address,
        }

    await wait_until("the pod to be out", without_it)
    gone.cluster = "elsewhere/hub"
    await gone.start()
    # Two good checks of each kind, were they good.
    await asyncio.sleep(3)
    assert await without_it()
    homes = {await _home(bench, f"198.51.100.{number}") for number in range(20)}
    assert gone.address not in homes
    gone.cluster = bench.orchestrators[0].cluster

    async def all_back() -> bool:
        return len(await bench.pods_that_answer()) == 3

    await wait_until("the same pod to be used when it is one of ours", all_back)


async def test_a_pod_that_alone_has_lost_the_database_gets_no_request(bench: Bench) -> None:
    await bench.start({"slowStartSeconds": 0})
    alone = bench.orchestrators[1]
    alone.unhealthy, alone.status = {"/health/database"}, 503

    async def out() -> bool:
        return sorted(await bench.servers("orchestrators")) == ["DOWN", "UP", "UP"]

    await wait_until("the pod to be out", out)
    alone.requests = 0
    async with Load(bench, tls=False) as load:
        await load.go_on(100)
    assert (load.failures, alone.requests) == ([], 0)
    alone.unhealthy, alone.status = set(), 200
    await wait_until("the pod to be used again", lambda: _all_serve(bench), 10)


async def test_requests_are_passed_on_to_all_pods_while_all_have_lost_the_database(bench: Bench) -> None:
    await bench.start({})
    async with Load(bench, tls=False) as load:
        for item in bench.orchestrators:
            item.unhealthy = {"/health/database"}
        await load.go_on(300)

        async def nobody_is_healthy() -> bool:
            return await bench.servers("orchestrators") == ["DOWN"] * 3

        await wait_until("HAProxy to see it", nobody_is_healthy)
        await load.go_on(100)
        assert await _all_serve(bench)
        for item in bench.orchestrators:
            item.unhealthy = set()
        await wait_until("HAProxy to see that it is over", lambda: _all_up(bench, "orchestrators"), 10)
        await load.go_on(100)
    assert load.failures == []


async def test_it_is_ready_without_orchestrators_when_it_leads_to_the_queue(bench: Bench) -> None:
    async with bench.queue_master():
        await bench.start_alone({})
        # An orchestrator may wait for this way to the queue before it listens.
        await wait_until("it to be ready", bench.is_ready)
        assert (await bench.get(names.PORT_ORCHESTRATOR, "/api/jobs/1"))[0] == 503

    async def not_ready() -> bool:
        return not await bench.is_ready()

    await wait_until("it to see that it reaches nobody", not_ready)
    await bench.orchestrators[0].start()
    await wait_until("it to be ready by one orchestrator", bench.is_ready)


@pytest.mark.parametrize("way", ["refused", "lost"])
async def test_a_connection_that_fails_neither_refuses_a_websocket_nor_cuts_others(
    bench: Bench, way: str
) -> None:
    await bench.start({})
    async with _websockets(bench) as held:
        client, socket = next(iter(held.items()))
        address = await _say(socket, "before")
        pod = next(item for item in bench.orchestrators if item.address == address)
        broken = pod.refuses if way == "refused" else pod.loses_packets
        async with broken(names.PORT_WEBSOCKET), asyncio.timeout(10):
            assert await _home(bench, client) != address
        assert await _say(socket, "after") == address
        assert await _home(bench, client) == address


async def test_a_check_that_fails_cuts_no_websocket(bench: Bench) -> None:
    await bench.start({})
    async with _websockets(bench) as held, contextlib.AsyncExitStack() as broken:
        for pod in bench.orchestrators:
            await broken.enter_async_context(pod.refuses(names.PORT_ORCHESTRATOR))

        async def failed() -> bool:
            return "UP" not in await bench.servers("websockets")

        await wait_until("a check of each pod to fail", failed)
        await broken.aclose()
        await wait_until("a good check of each pod", lambda: _all_up(bench, "websockets"))
        for socket in held.values():
            await _say(socket, "after")


async def test_a_pod_that_vanishes_refuses_no_websocket_and_those_that_it_has_end(bench: Bench) -> None:
    await bench.start({})
    pod = bench.orchestrators[0]
    async with _websockets(bench) as held:
        theirs = [client for client, socket in held.items() if await _say(socket, "before") == pod.address]
        async with pod.loses_packets(names.PORT_WEBSOCKET), pod.loses_packets(names.PORT_ORCHESTRATOR):
            tries = []
            for number in range(60):
                tries.append(asyncio.create_task(_home_in_the_end(bench, theirs[number % len(theirs)])))
                await asyncio.sleep(0.1)
            assert pod.address not in set(await asyncio.gather(*tries))
            for client in theirs:
                message = await held.pop(client).receive(timeout=10)
                assert message.type is not aiohttp.WSMsgType.TEXT
        for socket in held.values():
            await _say(socket, "after")


async def test_websockets_follow_the_pods_that_dns_has(bench: Bench) -> None:
    await bench.start({})
    clients = [f"198.51.100.{number}" for number in range(30)]
    gone = bench.orchestrators[0]
    fresh = await bench.add_orchestrator()

    async def homes() -> dict[str, str]:
        return {client: await _home(bench, client) for client in clients}

    before = await homes()
    bench.names.addresses = [item.address for item in bench.orchestrators if item is not gone]

    async def moved() -> bool:
        found = set((await homes()).values())
        return gone.address not in found and fresh.address in found

    await wait_until("WebSockets to follow", moved)
    after = await homes()
    stayed = [
        client for client, home in before.items() if home != gone.address and after[client] != fresh.address
    ]
    assert {client: after[client] for client in stayed} == {client: before[client] for client in stayed}


async def test_an_agent_that_stands_still_is_not_waited_for(bench: Bench) -> None:
    await bench.start({})
    bench.orchestrators[0].silent = {"/health"}
    answers = [await bench.get(names.PORT_ORCHESTRATOR, "/health") for _ in range(6)]
    assert {status for status, _, _ in answers} == {200}
    assert bench.orchestrators[0].address not in {told["pod"] for _, told, _ in answers}


STANDS_STILL = {"/", "/health", "/health/database", "/leader", "/api/jobs/1", "/api/jobs/delegate"}


async def test_an_orchestrator_that_stands_still_costs_no_client_its_answer(bench: Bench) -> None:
    await bench.start({"slowStartSeconds": 0})
    bench.orchestrators[0].silent = STANDS_STILL
    url = bench.url(names.PORT_ORCHESTRATOR, "/api/jobs/delegate")

    async def post(client: aiohttp.ClientSession, number: int) -> int:
        async with client.post(url, json={"jobId": number}) as response:
            return response.status

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CLIENT_SECONDS)) as client:
        found = await asyncio.gather(
            *(post(client, number) for number in range(6)),
            *(_status(bench, "/api/jobs/1") for _ in range(6)),
        )
    assert found == [200] * 12


async def test_what_takes_its_time_elsewhere_is_asked_once(bench: Bench) -> None:
    await bench.start({})
    for item in bench.orchestrators:
        item.requests, item.delay_seconds = 0, 3.5
    for path in ("/api/jobs/1/report", "/api/jobs/metrics"):
        assert await _status(bench, path) == 200
    assert sum(item.requests for item in bench.orchestrators) == 2


@pytest.mark.parametrize(("method", "path"), [("POST", "/api/jobs/delegate"), ("PUT", "/api/artifacts/1")])
async def test_a_body_may_take_as_long_as_clients_may(bench: Bench, method: str, path: str) -> None:
    await bench.start({})

    async def body() -> AsyncIterator[bytes]:
        yield b'{"jobId": '
        await asyncio.sleep(2.5)
        yield b"1}"

    url = bench.url(names.PORT_ORCHESTRATOR, path)
    async with aiohttp.ClientSession() as client, client.request(method, url, data=body()) as response:
        assert response.status == 200


async def test_what_exceeds_the_limit_of_the_orchestrators_waits_and_no_longer_than_asked_for(
    bench: Bench,
) -> None:
    await bench.start(
        {"maxConnectionsPerOrchestrator": 1, "slowStartSeconds": 0, "timeouts": {"queueSeconds": 4}}
    )

    async def answers_of(seconds: float) -> list[int]:
        for item in bench.orchestrators:
            item.delay_seconds = seconds
        return sorted(await asyncio.gather(*(_status(bench, "/api/reports") for _ in range(6))))

    async with _websockets(bench):
        assert await answers_of(1) == [200] * 6
        assert await bench.longest_queues() != {}
        assert await answers_of(7) == [200] * 3 + [503] * 3


async def _status(bench: Bench, path: str) -> int:
    status, _, _ = await bench.get(names.PORT_ORCHESTRATOR, path)
    return status


@pytest.mark.parametrize("balance", ["roundrobin", "leastconn"])
async def test_nothing_waits_in_a_queue_while_pods_die_and_come_back_slowly(
    bench: Bench, balance: str
) -> None:
    await bench.start({"slowStartSeconds": 600, "balance": balance})
    async with aiohttp.ClientSession() as client:
        url = bench.url(names.PORT_WEBSOCKET, "/", "ws")
        held = [
            await client.ws_connect(url, headers={"X-Forwarded-For": f"198.51.100.{number}"})
            for number in range(6)
        ]
        async with Load(bench, tls=False) as load:
            for dying in bench.orchestrators[:2]:
                await dying.stop()
            await load.go_on(100)
            await bench.orchestrators[0].start()
            # As slow pods have many requests at once.
            bench.orchestrators[0].delay_seconds = bench.orchestrators[2].delay_seconds = 0.3
            bursts = [bench.get(names.PORT_ORCHESTRATOR, "/api/jobs/1") for _ in range(60)]
            assert {status for status, _, _ in await asyncio.gather(*bursts)} == {200}
            await load.go_on(50)
        assert load.failures == []
        assert await bench.longest_queues() == {}
        for socket in held:
            await socket.close()


async def test_tw_in_the_log_is_the_time_of_earlier_tries_where_nothing_has_queued(bench: Bench) -> None:
    await bench.start({})
    for item in bench.orchestrators:
        # As an orchestrator whose database fails over: it tries for some time, then tells that it could not.
        item.requests, item.delay_seconds, item.status = 0, 1.5, 503
    url = bench.url(names.PORT_ORCHESTRATOR, "/api/jobs/delegate")
    async with aiohttp.ClientSession() as client:
        request = asyncio.create_task(client.post(url, json={"jobId": 1}))

        async def held() -> bool:
            return any(item.requests for item in bench.orchestrators)

        await wait_until("a pod to hold the request", held)
        for item in bench.orchestrators:
            item.delay_seconds, item.status = 0.0, 200
        async with await request as response:
            assert response.status == 200

    async def logged() -> bool:
        return "/api/jobs/delegate" in bench.log.read_text()

    await wait_until("the log", logged)
    waits = re.findall(r" orchestrators/\S+ \d+/(\d+)/.* (\d+/\d+) \"POST ", bench.log.read_text())
    assert [(int(seconds) >= 1400, queues) for seconds, queues in waits] == [(True, "0/0")]
    assert await bench.longest_queues() == {}


async def test_a_bad_configuration_is_refused_and_told_and_the_next_good_one_taken(bench: Bench) -> None:
    await bench.start({})
    good = (await bench.state())["loaded"]
    async with Load(bench, tls=False) as load:
        bench.configure(bench.configuration({}).replace("balance roundrobin", "balance magic", 1))

        async def told() -> bool:
            return (await bench.state())["refused"] is not None

        await wait_until("the refusal", told)
        state = await bench.state()
        assert state["loaded"] == good
        assert state["refused"].startswith("parsing [haproxy.cfg:")
        assert "only supports" in state["refused"]
        await load.go_on(50)
        text = bench.configuration({"balance": "leastconn"})
        bench.configure(text)
        await bench.loaded(text)
        await load.go_on(50)
    assert load.failures == []
    assert (await bench.state())["refused"] is None


async def test_a_reload_that_fails_three_times_is_not_tried_again_until_the_settings_change(
    bench: Bench,
) -> None:
    await bench.start({})
    bench.signal(signal.SIGTERM)
    await bench.exit_code()
    bench.start_program(TRY_AGAIN_SECONDS="0.1", RELOAD_SECONDS="6")

    async def serves() -> bool:
        return set(await bench.pods_that_answer(1)) - {"503"} != set()

    await wait_until("HAProxy to serve", serves)
    good = (await bench.state())["loaded"]
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        # The check does not see it: it opens no port.
        text = bench.configuration({}) + f"\nfrontend late\n    bind 127.0.0.1:{taken.getsockname()[1]}\n"
        bench.configure(text)

        async def given_up() -> bool:
            return "3 times" in ((await bench.state())["refused"] or "")

        await wait_until("the end of the tries", given_up, 180)
        assert (await bench.state())["loaded"] == good
        assert (bench.runtime / "current" / "haproxy.cfg").read_text() == bench.configuration({})
        # More than it would take to try again.
        await asyncio.sleep(8)
        assert bench.log.read_text().count("goes on with the former ones") == 3
        assert await serves()
    other = bench.configuration({"maxConnections": 500})
    bench.configure(other)
    await bench.loaded(other)
    assert (await bench.state())["refused"] is None
    assert await serves()


async def test_a_container_that_starts_anew_has_the_last_good_files(bench: Bench) -> None:
    await bench.start({})
    good = (await bench.state())["loaded"]
    bench.signal(signal.SIGTERM)
    assert await bench.exit_code() == 0
    bench.configure("nonsense\n")
    bench.start_program()

    async def serves() -> bool:
        return "503" not in (found := await bench.pods_that_answer(3)) and sum(found.values()) == 3

    await wait_until("HAProxy to serve", serves)
    state = await bench.state()
    assert state["loaded"] == good
    assert "nonsense" in state["refused"]


async def test_a_pod_without_its_certificate_says_so_and_ends(bench: Bench) -> None:
    bench.configure(bench.configuration(TLS))
    bench.start_program()
    assert await bench.exit_code() == 1
    assert "tls.crt" in bench.log.read_text()


async def test_a_stop_lets_requests_end(bench: Bench) -> None:
    await bench.start({})
    for orchestrator in bench.orchestrators:
        orchestrator.delay_seconds = 1.5
    request = asyncio.create_task(bench.get(names.PORT_ORCHESTRATOR, "/api/jobs/1"))

    async def arrived() -> bool:
        return any(item.requests for item in bench.orchestrators)

    for orchestrator in bench.orchestrators:
        orchestrator.requests = 0
    await wait_until("the request to arrive", arrived)
    bench.signal(signal.SIGUSR1)
    status, _, _ = await request
    assert status == 200
    assert await bench.exit_code() == 0


async def test_a_stop_does_not_wait_for_websockets_for_ever(bench: Bench) -> None:
    await bench.start({})
    bench.signal(signal.SIGTERM)
    await bench.exit_code()
    bench.start_program(HARD_STOP_SECONDS="1")

    async def serves() -> bool:
        return sum((await bench.pods_that_answer(1)).values()) == 1

    await wait_until("HAProxy to serve", serves)
    url = bench.url(names.PORT_WEBSOCKET, "/", "ws")
    async with aiohttp.ClientSession() as client, client.ws_connect(url) as socket:
        await _say(socket, "hello")
        bench.signal(signal.SIGUSR1)
        assert await bench.exit_code() == 0


async def test_forwarded_headers_of_strangers_are_not_believed(bench: Bench) -> None:
    await bench.start({"trustedProxies": ["192.0.2.0/24"]})
    headers = {
        "X-Forwarded-For": "198.51.100.1",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.example.com",
        "Forwarded": "for=198.51.100.1",
        "Host": HOST,
    }
    _, body, _ = await bench.get(names.PORT_ORCHESTRATOR, "/api/jobs/1", headers=headers)
    assert body["headers"]["X-Forwarded-For"] == "127.0.0.1"
    assert body["headers"]["X-Forwarded-Proto"] == "http"
    assert body["headers"]["X-Forwarded-Host"] == HOST
    assert "Forwarded" not in body["headers"]
    text = bench.configuration({"trustedProxies": ["192.0.2.0/24", "127.0.0.0/8"]})
    bench.configure(text)
    await bench.loaded(text)
    _, body, _ = await bench.get(names.PORT_ORCHESTRATOR, "/api/jobs/1", headers=headers)
    assert body["headers"]["X-Forwarded-Proto"] == "https"
    assert body["headers"]["X-Forwarded-Host"] == "evil.example.com"
    assert body["headers"]["Forwarded"] == "for=198.51.100.1"


async def test_probes_are_answered_when_clients_have_taken_all_connections(bench: Bench) -> None:
    await bench.start({"maxConnections": 100})
    opened = [await asyncio.open_connection("127.0.0.1", bench.ports[names.PORT_LB_HTTP]) for _ in range(120)]
    for _, writer in opened:
        writer.write(b"GET /api/jobs/1 HTTP/1.1\r\nHost: x\r\n")
    status, _, _ = await bench.get(names.PORT_LB_STATS, "/healthz")
    assert status == 200
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await bench.get(names.PORT_LB_HTTP, "/api/jobs/1")
    for _, writer in opened:
        writer.close()


async def _say(socket: aiohttp.ClientWebSocketResponse, text: str) -> str:
    """Which pod answers."""
    await socket.send_str(text)
    answer = await socket.receive_str(timeout=5)
    pod, echo = answer.split()
    assert echo == text
    return pod


async def _home(bench: Bench, client: str, port: int = names.PORT_WEBSOCKET) -> str:
    headers = {"X-Forwarded-For": client}
    url = bench.url(port, "/", "ws")
    async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=headers) as socket:
        return await _say(socket, "hello")


async def _home_in_the_end(bench: Bench, client: str) -> str:
    """As a client finds it that comes again: what is under way to a pod at the moment it is given up is ended."""
    try:
        return await _home(bench, client)
    except aiohttp.WSServerHandshakeError:
        return await _home(bench, client)


@contextlib.asynccontextmanager
async def _websockets(bench: Bench) -> AsyncIterator[dict[str, aiohttp.ClientWebSocketResponse]]:
    """WebSockets of twelve clients by their addresses, some to each pod, when all pods have been checked."""
    await wait_until("the checks", lambda: _all_up(bench, "websockets"))
    url = bench.url(names.PORT_WEBSOCKET, "/", "ws")
    async with aiohttp.ClientSession() as session:
        yield {
            client: await session.ws_connect(url, headers={"X-Forwarded-For": client})
            for client in (f"198.51.100.{number}" for number in range(12))
        }


async def _all_up(bench: Bench, backend: str) -> bool:
    return await bench.servers(backend) == ["UP"] * len(bench.orchestrators)


async def _all_serve(bench: Bench) -> bool:
    return set(await bench.pods_that_answer()) == {item.address for item in bench.orchestrators}
