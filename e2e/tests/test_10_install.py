"""An installed cluster as a person sees it."""

from __future__ import annotations

import json
import re

import pytest

from e2e.lab.bed import OPERATOR_NAMESPACE, Bed
from e2e.lab.hub import Hub
from e2e.lab.kubectl import KubectlError, wait_for
from runnerhub_operator.resources.credentials import CREDENTIAL_KEYS


def test_kubectl_get_tells_who_has_which_role(hub: Hub) -> None:
    header, line = hub.kubectl("get", "rhc").splitlines()
    assert header.split() == ["NAME", "READY", "PHASE", "PRIMARY", "MASTER", "LEADER", "RUNNERS", "AGE"]
    assert re.match(r"hub\s+True\s+Ready\s+hub-postgres-\d\s+hub-redis-\d\s+hub-orchestrator-\S+\s", line)


def test_kubectl_wait_for_ready_works(hub: Hub) -> None:
    hub.kubectl("wait", "rhc/hub", "--for=condition=Ready", "--timeout=10s")


def test_all_conditions_are_there_with_reason_and_message(hub: Hub) -> None:
    conditions = hub.status()["conditions"]
    assert [item["type"] for item in conditions] == [
        "Ready",
        "Progressing",
        "Degraded",
        "Accepted",
        "PostgresReady",
        "RedisReady",
        "OrchestratorsReady",
        "LoadBalancerReady",
        "IngressReady",
        "RunnersReady",
    ]
    assert all(item["reason"] and item["message"] for item in conditions)
    assert {item["observedGeneration"] for item in conditions} == {hub.body()["metadata"]["generation"]}


def test_leases_tell_the_holders(hub: Hub) -> None:
    holders = {
        lease["metadata"]["name"]: lease["spec"].get("holderIdentity") for lease in hub.kubectl.items("lease")
    }
    assert holders["hub-postgres-primary"] == hub.role_holder("postgres")
    assert holders["hub-redis-master"] == hub.role_holder("redis")
    assert holders["hub-leader"] == hub.role_holder("orchestrator")


def test_members_are_spread_over_the_workers(hub: Hub) -> None:
    for component in ("postgres", "redis", "orchestrator"):
        assert len({pod["spec"]["nodeName"] for pod in hub.pods(component)}) == 3, component


def test_replication_is_synchronous(hub: Hub) -> None:
    def roles() -> set[str]:
        return {item["role"] for item in hub.status()["postgres"]["instances"]}

    # Patroni lets replicas confirm some seconds after they stream.
    wait_for("replicas that confirm", lambda: roles() & {"sync_standby", "quorum_standby"}, 30)
    assert "primary" in roles()
    assert re.fullmatch(r"17\.\d+", hub.status()["postgres"]["version"])


def test_no_password_is_in_a_spec_or_a_log(bed: Bed, hub: Hub) -> None:
    import base64

    secrets = [
        base64.b64decode(value).decode()
        for secret in hub.kubectl.items("secret", "runnerhub.io/cluster=hub")
        for value in filter(None, secret["data"].values())
    ]
    # Those of roles and users, the key of tokens and the list of the keys that count.
    assert len(secrets) == sum(map(len, CREDENTIAL_KEYS.values())) + 1
    objects = "".join(
        json.dumps(hub.kubectl.items(kind, "runnerhub.io/cluster=hub"))
        for kind in ("configmap", "pod", "statefulset", "deployment", "runnerhubcluster", "service")
    )
    logs = "".join(
        hub.kubectl("logs", pod["metadata"]["name"], "--all-containers")
        for pod in hub.kubectl.items("pod", "runnerhub.io/cluster=hub")
    )
    operator = bed.kubectl.in_namespace(OPERATOR_NAMESPACE)
    logs += "".join(operator("logs", pod) for pod in bed.operator_pods())
    assert len(logs) > 1000
    assert not [number for number, secret in enumerate(secrets) if secret in objects or secret in logs]


def test_a_settled_cluster_costs_no_api_calls_but_the_lease(bed: Bed, hub: Hub) -> None:
    hub.wait_settled(60)
    operator = bed.kubectl.in_namespace(OPERATOR_NAMESPACE)
    lease = operator.get("lease", "runnerhub-operator")
    assert lease is not None
    active = lease["spec"]["holderIdentity"]

    def calls() -> dict[str, float]:
        text = operator(
            "exec", active, "--", "python3", "-c",
            "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000/metrics').read().decode())",
        )  # fmt: skip
        found = re.findall(r"^runnerhub_operator_api_calls_total\{(.*?)\} (\S+)", text, re.MULTILINE)
        return {labels: float(count) for labels, count in found if 'kind="Lease"' not in labels}

    assert calls(), "the metric exists"
    # A pod that answers late on a busy machine is a reason to write, but not each time.
    for _ in range(3):
        before, told_before = calls(), hub.status()
        # Bounded observation of an absence: there is no state to poll for.
        wait_for("30 s to pass", _elapsed(30), 40)
        after, told = calls(), hub.status()
        if after == before:
            break
    assert after == before, [
        (told_before.get(key), value) for key, value in told.items() if value != told_before.get(key)
    ]


def _elapsed(seconds: float) -> object:
    import time

    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"redis": {"replicas": 4}}, "redis.replicas must be odd"),
        ({"redis": {"replicas": 0}}, "spec.redis.replicas"),
        ({"postgres": {"instances": 0}}, "spec.postgres.instances"),
        ({"ingress": {"host": "not a host"}}, "spec.ingress.host"),
        ({"surprise": True}, 'unknown field "spec.surprise"'),
        ({"postgres": {"parameters": {"wal_level": "minimal"}}}, "that the operator owns"),
        ({"leaderElection": {"leaseDurationSeconds": 6}}, "leaseDurationSeconds > renewDeadlineSeconds"),
    ],
)
def test_kubectl_apply_refuses_bad_input_with_a_sentence(hub: Hub, spec: dict, words: str) -> None:
    manifest = {
        "apiVersion": "runnerhub.io/v1alpha1",
        "kind": "RunnerHubCluster",
        "metadata": {"name": "bad"},
        "spec": spec,
    }
    with pytest.raises(KubectlError) as caught:
        hub.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    assert words in str(caught.value)


def test_a_name_too_long_for_its_children_is_refused(hub: Hub) -> None:
    manifest = {
        "apiVersion": "runnerhub.io/v1alpha1",
        "kind": "RunnerHubCluster",
        "metadata": {"name": "a" * 41},
    }
    with pytest.raises(KubectlError, match="at most 40 characters"):
        hub.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))


def test_a_volume_that_would_shrink_is_refused(hub: Hub) -> None:
    with pytest.raises(KubectlError, match="may only grow"):
        hub.kubectl(
            "patch", "rhc", "hub", "--type=merge", "-p", '{"spec":{"redis":{"storage":{"size":"256Mi"}}}}'
        )


def test_every_example_is_accepted(hub: Hub) -> None:
    from kindbed import paths

    for path in sorted((paths.REPOSITORY / "examples").glob("*.yaml")):
        text = path.read_text().replace("name: hub\n", "name: other\n", 1)
        assert "other" in hub.kubectl("apply", "--dry-run=server", "-f", "-", stdin=text)
