"""The manifests of the queue."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from runnerhub_operator import names
from runnerhub_operator.api import parse_cluster
from runnerhub_operator.resources import redis
from runnerhub_operator.resources.common import BuildContext, Images, Manifest

IMAGES = Images(
    operator="operator",
    postgres="postgres",
    pooler="pooler",
    redis="redis",
    haproxy="haproxy",
    orchestrator="app",
    runner="runner",
)


def context(*, bootstrapped: bool = False, **spec: Any) -> BuildContext:
    body = {
        "metadata": {"name": "hub", "namespace": "runnerhub", "uid": "1"},
        "spec": {"redis": spec},
    }
    return BuildContext(parse_cluster(body), IMAGES, redis_bootstrapped=bootstrapped)


def one(manifests: list[Manifest], kind: str, name: str = "hub-redis") -> Manifest:
    found = [item for item in manifests if item["kind"] == kind and item["metadata"]["name"] == name]
    assert len(found) == 1
    return found[0]


def directives(configuration: str) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in configuration.splitlines())


def test_everything_comes_in_the_order_of_need() -> None:
    kinds = [item["kind"] for item in redis.redis_manifests(context())]
    # A pod that is told of others waits for their Services.
    assert kinds == [
        "ServiceAccount", *["Service"] * 3, *["ConfigMap"] * 2, *["Service"] * 2, "PodDisruptionBudget", "StatefulSet",
    ]  # fmt: skip


@pytest.mark.parametrize("replicas", [3, 5])
def test_each_pod_has_a_service_of_its_own(replicas: int) -> None:
    manifests = redis.redis_manifests(context(replicas=replicas))
    for ordinal in range(replicas):
        service = one(manifests, "Service", f"hub-redis-{ordinal}")
        assert service["spec"]["type"] == "ClusterIP"
        assert "clusterIP" not in service["spec"], "headless: there would be no literal address to announce"
        assert service["spec"]["publishNotReadyAddresses"] is True
        assert service["spec"]["selector"]["statefulset.kubernetes.io/pod-name"] == f"hub-redis-{ordinal}"
        assert {port["port"] for port in service["spec"]["ports"]} == {6379, 26379, names.PORT_REDIS_STATE}


@pytest.mark.parametrize(("replicas", "quorum"), [(3, 2), (5, 3), (7, 4), (9, 5)])
def test_quorum_is_a_majority(replicas: int, quorum: int) -> None:
    data = one(redis.redis_manifests(context(replicas=replicas)), "ConfigMap")["data"]
    settings = json.loads(data["settings.json"])
    assert settings["quorum"] == quorum
    assert settings["masterName"] == "github-runnerhub-redis"


@pytest.mark.parametrize(("down_after", "lag"), [(1000, 1), (3000, 1), (5000, 3), (30000, 10)])
def test_a_lonely_master_stops_before_another_is_elected(down_after: int, lag: int) -> None:
    conf = directives(redis.redis_configuration(context(downAfterMilliseconds=down_after)))
    assert int(conf["min-replicas-max-lag"]) == lag
    # A replica confirms each second and the master looks each second.
    assert down_after < 3000 or lag + 2 <= down_after / 1000


@pytest.mark.parametrize("replicas", [3, 5, 7, 9])
def test_a_master_takes_writes_only_together_with_a_majority(replicas: int) -> None:
    conf = directives(redis.redis_configuration(context(replicas=replicas)))
    confirming = 1 + int(conf["min-replicas-to-write"])
    others = replicas - confirming
    assert confirming == replicas // 2 + 1
    assert others < replicas // 2 + 1, "the others could elect a second master that takes writes"


@pytest.mark.parametrize(("limit", "size"), [(None, 64 * 2**20), ("2Gi", 64 * 2**20), ("128Mi", 8 * 2**20)])
def test_the_backlog_leaves_a_small_memory_to_the_data(limit: str | None, size: int) -> None:
    limited = context(**({"resources": {"limits": {"memory": limit}}} if limit else {}))
    assert directives(redis.redis_configuration(limited))["repl-backlog-size"] == str(size)


def test_memory_is_limited_below_the_containers_limit() -> None:
    """And it changes with the container alone: a running one must not use more than its old limit."""

    def limit(**spec: Any) -> str:
        manifests = redis.redis_manifests(context(**spec))
        containers = one(manifests, "StatefulSet")["spec"]["template"]["spec"]["containers"]
        assert ("maxmemory " in one(manifests, "ConfigMap")["data"]["redis.conf"]) is (not spec)
        return next(str(item["value"]) for item in containers[0]["env"] if item["name"] == "REDIS_MAXMEMORY")

    assert limit() == "0"
    assert limit(resources={"limits": {"memory": "1Gi"}}) == str(int(2**30 * 0.7))
    conf = directives(redis.redis_configuration(context()))
    assert conf["maxmemory-policy"] == "noeviction"


def test_without_a_limit_memory_is_bounded_by_what_the_volume_holds() -> None:
    """That follows a volume that grows, and renews no pod."""

    def bound(size: str) -> dict[str, str]:
        return directives(redis.redis_configuration(context(storage={"size": size})))

    def template(size: str) -> Manifest:
        manifests = redis.redis_manifests(context(storage={"size": size}))
        result: Manifest = one(manifests, "StatefulSet")["spec"]["template"]
        return result

    assert bound("1Gi")["maxmemory"] == str(512 * 2**20)
    assert bound("8Gi")["maxmemory"] == str(4 * 2**30)
    assert template("1Gi") == template("8Gi")
    small = bound("256Mi")
    assert small["maxmemory"] == str(128 * 2**20)
    # Used memory has the backlog in it, and the file is rewritten before it fills the volume.
    assert small["repl-backlog-size"] == small["auto-aof-rewrite-min-size"] == str(16 * 2**20)


def test_what_follows_the_volume_follows_the_smallest() -> None:
    asked = context(storage={"size": "40Gi"})
    conf = directives(redis.redis_configuration(replace(asked, redis_volume_bytes=256 * 2**20)))
    small = directives(redis.redis_configuration(context(storage={"size": "256Mi"})))
    assert conf == small
    larger = replace(asked, redis_volume_bytes=2**40)
    assert redis.redis_configuration(larger) == redis.redis_configuration(asked)


def test_pods_that_have_yet_to_come_have_services_and_do_not_count() -> None:
    asked = context(replicas=7)
    manifests = redis.redis_manifests(replace(asked, redis_pods=4, redis_counted=3))
    data = one(manifests, "ConfigMap")["data"]
    assert directives(data["redis.conf"])["min-replicas-to-write"] == "1"
    told = json.loads(data["settings.json"])
    assert (told["quorum"], told["majorityOf"], told["replicas"]) == (2, 3, 7)
    assert one(manifests, "Service", "hub-redis-6")
    queue = one(manifests, "StatefulSet")["spec"]
    assert queue["replicas"] == 4
    # So that those that come are not renewed at the end.
    assert queue["template"] == one(redis.redis_manifests(asked), "StatefulSet")["spec"]["template"]


def test_the_bootstrap_flag_restarts_no_pod() -> None:
    before, after = redis.redis_manifests(context()), redis.redis_manifests(context(bootstrapped=True))
    assert one(before, "StatefulSet") == one(after, "StatefulSet")
    assert one(before, "ConfigMap", "hub-redis-state")["data"] == {"bootstrapped": "false"}
    assert one(after, "ConfigMap", "hub-redis-state")["data"] == {"bootstrapped": "true"}
    volumes = one(after, "StatefulSet")["spec"]["template"]["spec"]["volumes"]
    state = next(volume for volume in volumes if volume["name"] == "state")
    assert state["configMap"] == {"name": "hub-redis-state", "optional": True}


def test_settings_change_no_pod_template_but_the_number_of_pods_does() -> None:
    def template(**spec: Any) -> Manifest:
        result: Manifest = one(redis.redis_manifests(context(**spec)), "StatefulSet")["spec"]["template"]
        return result

    assert template() == template(downAfterMilliseconds=6000, appendFsync="always")
    assert template() != template(replicas=5)


def test_stateful_set_starts_together_keeps_volumes_and_is_rolled_by_the_operator() -> None:
    storage = {"size": "2Gi", "storageClassName": "fast"}
    spec = one(redis.redis_manifests(context(storage=storage)), "StatefulSet")["spec"]
    assert spec["podManagementPolicy"] == "Parallel"
    assert spec["updateStrategy"] == {"type": "OnDelete"}
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    claim = spec["volumeClaimTemplates"][0]["spec"]
    assert claim["storageClassName"] == "fast"
    assert claim["resources"]["requests"]["storage"] == "2Gi"


def test_pods_are_restricted_and_hold_no_token() -> None:
    pod = one(redis.redis_manifests(context()), "StatefulSet")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }


def test_passwords_come_as_files_only() -> None:
    pod = one(redis.redis_manifests(context()), "StatefulSet")["spec"]["template"]["spec"]
    for container in pod["containers"]:
        assert {entry["name"] for entry in container["env"]} <= {
            "POD_NAME",
            "POD_NAMESPACE",
            "REDIS_MAXMEMORY",
        }
        assert not any("exec" in container.get(probe, {}) for probe in ("livenessProbe", "readinessProbe"))
    secret = next(volume for volume in pod["volumes"] if volume["name"] == "credentials")["secret"]
    assert secret == {"secretName": "hub-redis-credentials", "defaultMode": 0o440}


def test_the_image_of_the_spec_wins() -> None:
    pod = one(redis.redis_manifests(context(image="example.com/redis:1")), "StatefulSet")["spec"]["template"][
        "spec"
    ]
    assert {container["image"] for container in pod["containers"]} == {"example.com/redis:1"}
