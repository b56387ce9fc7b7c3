"""Leader election against a real API server: electors in this process, and ha-agents as processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client as kube_client
from kubernetes.aio import config as kube_config

from runnerhub_operator import names
from runnerhub_operator.errors import LostLeadershipError
from runnerhub_operator.kube.client import KubeClient, ObjectRef
from runnerhub_operator.kube.election import ClientLeaseApi, LeaseElector
from runnerhub_operator.kube.lease import ElectionTiming
from runnerhub_operator.resources.orchestrator import agent_rules
from tests.share import free_port

REPOSITORY = Path(__file__).parents[2]
# Long enough that a busy machine costs nobody the Lease.
TIMING = ElectionTiming(40.0, 30.0, 1.0, absent_wait_seconds=0)
LEASE = names.leader_lease("hub")


@pytest.fixture(scope="module")
def api_server() -> Iterator[Any]:
    """etcd and kube-apiserver on loopback."""
    sys.path.insert(0, str(REPOSITORY / "e2e" / "kind"))
    from apiserver import ApiServer

    with ApiServer() as server:
        yield server


@pytest.fixture
async def client(api_server: Any) -> AsyncIterator[KubeClient]:
    """An administrator's client."""
    configuration = kube_client.Configuration()
    await kube_config.load_kube_config(
        config_file=str(api_server.kubeconfig), client_configuration=configuration
    )
    kube = KubeClient(kube_client.ApiClient(configuration))
    yield kube
    await kube.close()


@pytest.fixture
async def namespace(client: KubeClient) -> str:
    """A namespace of the test's own."""
    name = f"lease-{uuid.uuid4().hex[:8]}"
    await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


async def until(condition: Callable[[], bool], seconds: float) -> float:
    """Wait until something holds; the seconds that it took."""
    start = time.monotonic()
    async with asyncio.timeout(seconds):
        # Conditions are of many kinds, few of them events.
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return time.monotonic() - start


@contextlib.asynccontextmanager
async def electors(
    client: KubeClient, namespace: str, count: int, timing: ElectionTiming = TIMING
) -> AsyncIterator[list[LeaseElector]]:
    """Electors over one Lease, ended afterwards."""
    found = [
        LeaseElector(ClientLeaseApi(client), namespace, LEASE, f"elector-{number}", timing)
        for number in range(count)
    ]
    tasks = [asyncio.ensure_future(elector.run()) for elector in found]
    try:
        yield found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def leaders(of: list[LeaseElector]) -> list[LeaseElector]:
    return [elector for elector in of if elector.is_leader]


async def lease_of(client: KubeClient, namespace: str) -> dict[str, Any]:
    return await client.get(ObjectRef("coordination.k8s.io/v1", "Lease", namespace, LEASE))


async def test_many_that_start_together_elect_one(client: KubeClient, namespace: str) -> None:
    async with electors(client, namespace, 6) as all_of_them:
        await until(lambda: bool(leaders(all_of_them)), 30)
        for _ in range(100):
            assert len(leaders(all_of_them)) == 1
            await asyncio.sleep(0.03)
        (leader,) = leaders(all_of_them)
        spec = (await lease_of(client, namespace))["spec"]
        assert spec["holderIdentity"] == leader.identity
        assert spec["leaseTransitions"] == leader.fencing_token == 1


async def test_release_is_taken_over_and_the_token_grows(client: KubeClient, namespace: str) -> None:
    async with electors(client, namespace, 2) as both:
        await until(lambda: bool(leaders(both)), 30)
        (leader,) = leaders(both)
        await leader.release()
        with pytest.raises(LostLeadershipError):
            leader.ensure_leader()
        took = await until(lambda: bool(leaders(both)), 60)
        assert took < TIMING.lease_duration_seconds - TIMING.retry_period_seconds, "nobody waits for its end"
        (successor,) = leaders(both)
        assert successor is not leader
        assert successor.fencing_token == 2


async def test_a_lease_deleted_by_hand_comes_back(client: KubeClient, namespace: str) -> None:
    async with electors(client, namespace, 2) as both:
        await until(lambda: bool(leaders(both)), 30)
        (leader,) = leaders(both)
        await client.delete(ObjectRef("coordination.k8s.io/v1", "Lease", namespace, LEASE))
        for _ in range(60):
            await asyncio.sleep(0.05)
            assert leaders(both) == [leader]
        assert (await lease_of(client, namespace))["spec"]["holderIdentity"] == leader.identity


async def test_another_holder_written_by_hand_is_respected(client: KubeClient, namespace: str) -> None:
    # The longer of two durations counts.
    async with electors(client, namespace, 2, ElectionTiming(10.0, 8.0, 1.0, absent_wait_seconds=0)) as both:
        await until(lambda: bool(leaders(both)), 30)
        ref = ObjectRef("coordination.k8s.io/v1", "Lease", namespace, LEASE)
        written = time.monotonic()
        await client.merge_patch(ref, {"spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 12}})
        await until(lambda: not leaders(both), 20)
        await until(lambda: bool(leaders(both)), 40)
        assert time.monotonic() - written >= 12
        assert leaders(both)[0].fencing_token == 2


class AgentProcess:
    """One ha-agent as a process, with the orchestrator's /health answered by this test."""

    def __init__(self, name: str, environment: dict[str, str], folder: Path, health_port: int) -> None:
        self.name = name
        self.port = free_port()
        self.file = folder / name / "leader.json"
        self.log = folder / f"{name}.log"
        self._environment = {
            **os.environ,
            **environment,
            "PYTHONPATH": str(REPOSITORY / "operator"),
            "HA_NODE_ID": name,
            "RUNNERHUB_AGENT_PORT": str(self.port),
            "RUNNERHUB_LEADER_FILE": str(self.file),
            "RUNNERHUB_APP_HEALTH_URL": f"http://127.0.0.1:{health_port}/health",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "runnerhub_operator.agent"],
                env=self._environment,
                stdout=log,
                stderr=log,
            )

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()

    def leader(self, timeout: float = 0.3) -> tuple[int, dict[str, Any]]:
        """Status and body of GET /leader; 0 when there is no answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/leader", timeout=timeout) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return 0, {}


def mount_token(api_server: Any, namespace: str, folder: Path) -> Path:
    """Ask for a token of ServiceAccount `agent` and put it where the kubelet would."""
    request = urllib.request.Request(  # noqa: S310 - the address of the test's own server
        f"{api_server.url}/api/v1/namespaces/{namespace}/serviceaccounts/agent/token",
        data=json.dumps(
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        ).encode(),
        headers={"Authorization": f"Bearer {api_server.token}", "Content-Type": "application/json"},
    )
    context = ssl.create_default_context(cafile=str(api_server.certificate_authority))
    with urllib.request.urlopen(request, context=context) as answer:  # noqa: S310 - see above
        token = json.load(answer)["status"]["token"]
    folder.mkdir()
    (folder / "token").write_text(token)
    (folder / "ca.crt").write_bytes(api_server.certificate_authority.read_bytes())
    return folder


async def service_account(client: KubeClient, api_server: Any, namespace: str, folder: Path) -> Path:
    """A folder as Kubernetes mounts it, for a ServiceAccount with exactly the agent's Role."""
    meta = {"name": "agent", "namespace": namespace}
    rbac = "rbac.authorization.k8s.io"
    await client.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    await client.create(
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": meta, "rules": agent_rules("hub")}
    )
    await client.create(
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "agent"},
            "subjects": [{"kind": "ServiceAccount", "name": "agent", "namespace": namespace}],
        }
    )
    return await asyncio.to_thread(mount_token, api_server, namespace, folder)


@pytest.fixture
async def agents(
    client: KubeClient, api_server: Any, namespace: str, tmp_path: Path
) -> AsyncIterator[list[AgentProcess]]:
    """Three agents with the default timing, and their pods."""

    async def health(_: web.Request) -> web.Response:
        return web.Response()

    application = web.Application()
    application.router.add_get("/health", health)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    host, _, api_port = api_server.url.removeprefix("https://").partition(":")
    environment = {
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": api_port,
        "RUNNERHUB_SERVICE_ACCOUNT": str(
            await service_account(client, api_server, namespace, tmp_path / "serviceaccount")
        ),
        "RUNNERHUB_NAMESPACE": namespace,
        "RUNNERHUB_CLUSTER": "hub",
    }
    found = [AgentProcess(f"hub-orchestrator-{number}", environment, tmp_path, port) for number in range(3)]
    for agent in found:
        await client.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": agent.name,
                    "namespace": namespace,
                    "labels": names.labels("hub", names.ORCHESTRATOR),
                },
                "spec": {"containers": [{"name": "orchestrator", "image": "none"}]},
            }
        )
        agent.start()
    yield found
    for agent in found:
        agent.end()
    await runner.cleanup()


async def leading(agents: list[AgentProcess], seconds: float) -> tuple[AgentProcess, float, int]:
    """Who leads, how long that took to come about, and the fencing token; never more than one at a time."""
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        answers = await asyncio.gather(*(asyncio.to_thread(agent.leader) for agent in agents))
        found = [
            (agent, body["fencingToken"])
            for agent, (status, body) in zip(agents, answers, strict=True)
            if status == 200
        ]
        assert len(found) <= 1
        if found:
            ((leader, token),) = found
            return leader, time.monotonic() - start, token
        await asyncio.sleep(0.05)
    raise AssertionError(f"no leader within {seconds} s")


async def labelled(client: KubeClient, namespace: str) -> list[str]:
    pods = await client.list_objects("v1", "Pod", namespace, f"{names.LABEL_LEADER}=true")
    return [pod["metadata"]["name"] for pod in pods]


async def until_labelled(client: KubeClient, namespace: str, agent: AgentProcess) -> None:
    """Wait until it is the only one with the label, which follows the leadership late, but surely."""
    async with asyncio.timeout(60):
        while await labelled(client, namespace) != [agent.name]:  # noqa: ASYNC110 - nothing to wait on
            await asyncio.sleep(0.1)


async def test_agents_hand_over_within_the_service_levels(
    agents: list[AgentProcess], client: KubeClient, namespace: str
) -> None:
    """Graceful <= 3 s, crash <= 17 s; a frozen agent knows at once when it wakes. With the agent's own rights.

    A busy machine gets some seconds more; a hand-over that waits for the Lease's end takes 13 s at least.
    """
    leader, _, token = await leading(agents, 60)
    tokens = [token]

    others = [agent for agent in agents if agent is not leader]
    leader.signal(signal.SIGTERM)
    successor, took, token = await leading(others, 30)
    assert took <= 8
    tokens.append(token)
    leader.end()
    leader.start()

    leader = successor
    others = [agent for agent in agents if agent is not leader]
    await until(lambda: all(agent.leader()[0] == 503 for agent in others), 60)
    leader.end()
    successor, took, token = await leading(others, 30)
    assert took <= 22
    tokens.append(token)
    await until_labelled(client, namespace, successor)
    leader.start()

    leader = successor
    others = [agent for agent in agents if agent is not leader]
    await until(lambda: all(agent.leader()[0] == 503 for agent in others), 60)
    leader.signal(signal.SIGSTOP)
    successor, took, token = await leading(others, 30)
    assert took <= 22
    tokens.append(token)
    leader.signal(signal.SIGCONT)
    status, answer = await asyncio.to_thread(leader.leader, 20)
    assert (status, answer["leader"]) == (503, False)
    await until(lambda: json.loads(leader.file.read_text())["holder"] == successor.name, 20)
    await until_labelled(client, namespace, successor)

    assert tokens == sorted(set(tokens)), "each term has a higher fencing token"
    assert "refused" not in "".join(agent.log.read_text().lower() for agent in agents), "the Role suffices"
