"""What the agent probes, its settings, and its small Kubernetes client."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from obstore.exceptions import BaseError

from runnerhub_operator.agent.bucket import words
from runnerhub_operator.agent.candidacy import Outcome, ask
from runnerhub_operator.agent.database import Visibility
from runnerhub_operator.agent.kube import AgentKube
from runnerhub_operator.agent.leadership import lease_metadata
from runnerhub_operator.agent.nodes import NodesProbe
from runnerhub_operator.agent.queue_probe import agreed_master
from runnerhub_operator.agent.settings import read_settings
from runnerhub_operator.agent.storage import StorageProbe
from runnerhub_operator.errors import (
    ConflictError,
    InvalidSpecError,
    NotFoundError,
    ProbeError,
    RefusedError,
    UnavailableError,
)
from tests.unit.agent.fixtures import ENVIRONMENT, settings

NO_IDENTITY = (
    "no credentials: neither is there a credentialsSecretName, nor gives the cloud "
    "the pods' ServiceAccount an identity"
)
MASTER, OTHER = ("10.0.0.1", 6379), ("10.0.0.2", 6379)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([MASTER, MASTER, MASTER], (MASTER, 3)),
        ([MASTER, MASTER, OTHER], (MASTER, 2)),
        ([MASTER, MASTER, None], (MASTER, 2)),
        ([MASTER, None, None], (None, 1)),
        ([MASTER, OTHER, None], (None, 1)),
        ([None, None, None], (None, 0)),
    ],
)
def test_a_majority_of_all_sentinels_must_name_the_master(
    answers: list[tuple[str, int] | None], expected: tuple[tuple[str, int] | None, int]
) -> None:
    assert agreed_master(answers, 3) == expected


def test_lag_is_the_age_of_the_oldest_write_that_is_not_visible() -> None:
    visibility = Visibility()
    assert visibility.lag_seconds(None, 5) == 0
    for number, at in ((1, 10.0), (2, 20.0), (3, 30.0)):
        visibility.wrote(number, at)
    assert visibility.lag_seconds(3, 31) == 0
    assert visibility.lag_seconds(2, 31) == 1
    assert visibility.lag_seconds(1, 31) == 11
    assert visibility.lag_seconds(None, 31) == 21


async def test_storage_is_written_and_read_back(tmp_path: Path) -> None:
    probe = StorageProbe("node-a", tmp_path)
    assert await probe() == {"path": str(tmp_path)}
    with pytest.raises(ProbeError, match="FileNotFoundError"):
        await StorageProbe("node-a", tmp_path / "gone")()


async def test_the_files_of_pods_that_are_long_gone_are_removed(tmp_path: Path) -> None:
    gone, other, foreign = (
        tmp_path / name for name in (".runnerhub-ha-probe-gone", ".runnerhub-ha-probe-other", "old.log")
    )
    for file in (gone, other, foreign):
        file.write_text("1")
    day = time.time() - 86_500
    for file in (gone, foreign):
        os.utime(file, (day, day))
    probe = StorageProbe("node-a", tmp_path)
    await probe()
    async with asyncio.timeout(20):
        while gone.exists():  # noqa: ASYNC110 - nothing tells the end of a thread that nobody waits for
            await asyncio.sleep(0.01)
    assert other.exists()
    assert foreign.exists()
    assert (tmp_path / ".runnerhub-ha-probe-node-a").exists()


async def test_a_hanging_storage_gets_no_second_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    probe = StorageProbe("node-a", tmp_path)
    monkeypatch.setattr(probe, "_write_and_read", release.wait)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(probe(), 0.05)
    with pytest.raises(ProbeError, match="still hangs"):
        await probe()
    release.set()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            "Server returned non-2xx status code: 403 Forbidden: <Error><Code>InvalidAccessKeyId</Code>"
            "<AWSAccessKeyId>AKIAEXAMPLE</AWSAccessKeyId></Error>",
            "the store does not know the access key (InvalidAccessKeyId)",
        ),
        (
            "Server returned non-2xx status code: 503 Service Unavailable: <Error><Code>SlowDown</Code></Error>",
            "the store refuses (SlowDown)",
        ),
        ("Server returned non-2xx status code: 502 Bad Gateway: <html>", "the store answers 502 Bad Gateway"),
        ("something that nobody has seen AKIAEXAMPLE", "BaseError"),
        *(
            (error, NO_IDENTITY)
            for error in (
                "Error performing PUT http://169.254.169.254/latest/api/token in 3s - HTTP error: kind: Connect",
                "Error performing POST REDACTED in 8ms - status code: 403: <Error><Code>AccessDenied</Code></Error>",
                "Failed to read token file '/var/run/secrets/eks.amazonaws.com/serviceaccount/token'",
            )
        ),
    ],
)
def test_a_buckets_error_is_told_without_what_store_and_library_say(error: str, told: str) -> None:
    assert words(BaseError(error)) == told


def test_only_an_agent_with_a_bucket_has_its_library_in_memory() -> None:
    program = "import runnerhub_operator.agent.service, sys; sys.exit('obstore' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


async def test_nodes_are_counted_by_their_addresses(nowhere: str) -> None:
    async def health(_: web.Request) -> web.Response:
        return web.Response()

    application = web.Application()
    application.router.add_get("/health", health)
    async with TestServer(application, host="127.0.0.1") as server, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{server.port}/health"
        probe = NodesProbe(["127.0.0.1", "127.0.0.2", nowhere], url, session)
        assert await probe() == {"nodes": 2, "nodesHealthy": 1}
        assert await ask(session, url) == (Outcome.OK, "HTTP 200")
        assert (await ask(session, url + "/x"))[0] is Outcome.FAILING
    async with aiohttp.ClientSession() as session:
        assert (await ask(session, url))[0] is Outcome.REFUSED


def test_settings_come_from_the_documents_variables(tmp_path: Path) -> None:
    read = read_settings(
        {
            **ENVIRONMENT,
            "LEADER_ELECTION_TIMEOUT": "30000",
            "LEADER_ELECTION_RENEW_DEADLINE": "20000",
            "LEADER_ELECTION_RENEWAL": "5000",
            "HEALTH_CHECK_INTERVAL": "30000",
            "HEALTH_CHECK_TIMEOUT": "4000",
            "HEALTH_CHECK_RETRIES": "5",
            "SHARED_STORAGE_PATH": "/mnt/shared",
        }
    )
    assert (read.timing.lease_duration_seconds, read.timing.renew_deadline_seconds) == (30, 20)
    assert (read.checks.interval_seconds, read.checks.timeout_seconds, read.checks.retries) == (30, 4, 5)
    assert read.redis is not None
    assert read.redis.sentinels == (("hub-redis-0", 26379), ("hub-redis-1", 26380), ("hub-redis-2", 26379))
    assert read.storage_path == Path("/mnt/shared")
    assert "sesame" not in repr(read), "secrets stay out of logs"


@pytest.mark.parametrize(
    "change",
    [
        {"HA_NODE_ID": ""},
        {"LEADER_ELECTION_TIMEOUT": "ten"},
        {"LEADER_ELECTION_TIMEOUT": "5000"},
        {"HEALTH_CHECK_RETRIES": "0"},
        {"REDIS_SENTINEL_HOSTS": "hub-redis-0:x"},
    ],
)
def test_wrong_settings_are_refused_by_name(change: dict[str, str]) -> None:
    with pytest.raises(InvalidSpecError, match=next(iter(change)).split("_")[0]):
        read_settings({**ENVIRONMENT, **change})


def test_a_lease_that_the_agent_creates_goes_with_the_cluster(tmp_path: Path) -> None:
    metadata = lease_metadata(settings(tmp_path))
    assert metadata["ownerReferences"][0]["uid"] == "1234"
    assert metadata["ownerReferences"][0]["name"] == "hub"


async def test_requests_to_the_api_server(tmp_path: Path) -> None:
    requests: list[tuple[str, str, str, Any]] = []
    answers = {409: ConflictError, 404: NotFoundError, 403: RefusedError, 429: UnavailableError}
    status = 200

    async def any_request(request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else None
        requests.append((request.method, request.path_qs, request.headers["Authorization"], body))
        if status >= 400:
            return web.json_response({"kind": "Status", "message": "no"}, status=status)
        return web.json_response({"items": [{"metadata": {"name": "pod-a"}}]})

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", any_request)
    (tmp_path / "token").write_text("bearer-token\n")
    async with TestServer(application) as server:
        kube = AgentKube(aiohttp.ClientSession(), str(server.make_url("")).rstrip("/"), tmp_path / "token")
        lease = {"metadata": {"namespace": "team", "name": "hub-leader"}}
        await kube.read_lease("team", "hub-leader")
        await kube.create(lease)
        await kube.replace(lease)
        assert await kube.list_pods("team", "a=b") == ["pod-a"]
        await kube.label_pod("team", "pod-a", "runnerhub.io/leader", None)
        leases = "/apis/coordination.k8s.io/v1/namespaces/team/leases"
        assert [entry[:2] for entry in requests] == [
            ("GET", f"{leases}/hub-leader"),
            ("POST", leases),
            ("PUT", f"{leases}/hub-leader"),
            ("GET", "/api/v1/namespaces/team/pods?labelSelector=a%3Db"),
            ("PATCH", "/api/v1/namespaces/team/pods/pod-a"),
        ]
        assert {entry[2] for entry in requests} == {"Bearer bearer-token"}
        assert requests[-1][3] == {"metadata": {"labels": {"runnerhub.io/leader": None}}}
        for code, error in answers.items():
            status = code
            with pytest.raises(error):
                await kube.read_lease("team", "hub-leader")
    with pytest.raises(UnavailableError):
        await kube.read_lease("team", "hub-leader")
    await kube.close()


def test_the_agent_loads_none_of_the_operators_heavy_libraries() -> None:
    code = (
        "import sys, runnerhub_operator.agent.__main__;"
        "print([m for m in ('kopf', 'kubernetes', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "operator")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
