"""The objects of the database and of the pooler: what Kubernetes and the people who review them rely on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runnerhub_operator import names
from runnerhub_operator.resources.common import BuildContext
from runnerhub_operator.resources.patroni import patroni_labels
from runnerhub_operator.resources.pooler import pooler_configuration, pooler_manifests
from runnerhub_operator.resources.postgres import postgres_manifests

from .contexts import context


def _one(manifests: list[dict[str, Any]], kind: str, name: str | None = None) -> dict[str, Any]:
    found = [m for m in manifests if m["kind"] == kind and name in (None, m["metadata"]["name"])]
    assert len(found) == 1
    return found[0]


def _all(built: BuildContext) -> list[dict[str, Any]]:
    return [*postgres_manifests(built), *pooler_manifests(built)]


def _pod_specs(built: BuildContext) -> list[dict[str, Any]]:
    return [m["spec"]["template"]["spec"] for m in _all(built) if m["kind"] in ("StatefulSet", "Deployment")]


def test_the_role_allows_what_patroni_does_and_no_more() -> None:
    rules = _one(postgres_manifests(context()), "Role")["rules"]
    granted = {
        (resource, verb, "resourceNames" in rule)
        for rule in rules
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == {
        ("configmaps", "create", False),
        ("configmaps", "list", False),
        ("configmaps", "watch", False),
        ("configmaps", "delete", True),
        ("configmaps", "get", True),
        ("configmaps", "patch", True),
        ("pods", "list", False),
        ("pods", "watch", False),
        ("pods", "patch", True),
        ("persistentvolumeclaims", "get", True),
        ("secrets", "get", True),
    }


def test_the_role_does_not_change_with_the_number_of_instances() -> None:
    few, many = postgres_manifests(context(instances=1)), postgres_manifests(context(instances=9))
    assert _one(few, "Role")["rules"] == _one(many, "Role")["rules"]
    assert "hub-postgres-8" in json.dumps(_one(few, "Role")["rules"])


def test_pods_meet_the_restricted_standard() -> None:
    for pod in _pod_specs(context()):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert {next(iter(set(volume) - {"name"})) for volume in pod["volumes"]} <= {
            "configMap",
            "secret",
            "emptyDir",
        }
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }


def test_memory_backed_volumes_are_bounded() -> None:
    for pod in _pod_specs(context()):
        for volume in pod["volumes"]:
            if "emptyDir" in volume:
                assert "sizeLimit" in volume["emptyDir"]


def test_passwords_come_from_the_secret_only() -> None:
    for pod in _pod_specs(context()):
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            for variable in container.get("env", ()):
                if "PASSWORD" in variable["name"]:
                    assert variable["valueFrom"]["secretKeyRef"]["name"] == "hub-postgres-credentials"
    for manifest in _all(context()):
        if manifest["kind"] == "ConfigMap":
            assert "PASSWORD" not in json.dumps(manifest["data"])


def test_patroni_finds_the_pods_and_clients_of_each_member_service_find_one() -> None:
    manifests = postgres_manifests(context())
    template = _one(manifests, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert patroni_labels(context()).items() <= template.items()
    for ordinal in range(3):
        service = _one(manifests, "Service", f"hub-postgres-{ordinal}")["spec"]
        assert service["selector"] == {"statefulset.kubernetes.io/pod-name": f"hub-postgres-{ordinal}"}
        assert service["publishNotReadyAddresses"] is True
        assert {port["port"] for port in service["ports"]} == {5432, 8008}


def test_volumes_survive_the_cluster() -> None:
    spec = _one(postgres_manifests(context()), "StatefulSet")["spec"]
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert spec["updateStrategy"] == {"type": "OnDelete"}
    assert spec["podManagementPolicy"] == "Parallel"


@pytest.mark.parametrize(
    "change",
    [
        {"parameters": {"work_mem": "8MB"}},
        {"synchronous": "required"},
        {"instances": 5},
        {"pooler": {"poolSize": 40}},
    ],
)
def test_no_pod_template_changes_for_what_patroni_changes_in_flight(change: dict[str, Any]) -> None:
    before = _one(postgres_manifests(context()), "StatefulSet")["spec"]["template"]
    after = _one(postgres_manifests(context(**change)), "StatefulSet")["spec"]["template"]
    assert before == after


def test_the_claim_has_a_class_only_when_one_is_named() -> None:
    plain = _one(postgres_manifests(context()), "StatefulSet")["spec"]["volumeClaimTemplates"][0]
    assert "storageClassName" not in plain["spec"]
    named = postgres_manifests(context(storage={"size": "1Gi", "storageClassName": "fast"}))
    assert _one(named, "StatefulSet")["spec"]["volumeClaimTemplates"][0]["spec"]["storageClassName"] == "fast"


def test_nothing_is_null_or_an_empty_map() -> None:
    def walk(value: Any, path: str) -> None:
        assert value is not None, path
        assert value != {}, path
        items = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        for key, inner in items:
            walk(inner, f"{path}.{key}")

    for manifest in _all(context()):
        walk(manifest, manifest["kind"])


def test_all_objects_are_owned_and_labelled() -> None:
    for manifest in _all(context()):
        assert manifest["metadata"]["ownerReferences"][0]["uid"] == "1-2-3"
        assert manifest["metadata"]["labels"][names.LABEL_CLUSTER] == "hub"


# --- Pooler ---


def test_the_database_service_leads_to_the_poolers() -> None:
    service = _one(pooler_manifests(context()), "Service", "hub-postgres")["spec"]
    assert service["selector"] == names.selector_labels("hub", names.POOLER)
    assert {(port["name"], port["port"]) for port in service["ports"]} == {
        ("postgres", 5432),
        ("postgres-ro", 5433),
    }


def test_every_member_is_a_server_of_both_routes() -> None:
    haproxy = pooler_configuration(context(instances=5))["haproxy.cfg"]
    for ordinal in range(5):
        assert haproxy.count(f"server hub-postgres-{ordinal} ") == 2


def test_readers_go_to_the_primary_while_there_is_no_replica() -> None:
    haproxy = pooler_configuration(context())["haproxy.cfg"]
    frontend = haproxy.split("frontend read-only\n")[1].split("\n\n")[0]
    assert "use_backend replicas if { nbsrv(replicas) gt 0 }" in frontend
    assert "default_backend primary" in frontend


def test_routes_go_through_the_proxy_of_the_pod() -> None:
    files = pooler_configuration(context())
    assert "port=6432" in files["pgbouncer-rw.ini"]
    assert "port=6433" in files["pgbouncer-ro.ini"]
    assert "default_transaction_read_only" in files["pgbouncer-ro.ini"]
    assert "default_transaction_read_only" not in files["pgbouncer-rw.ini"]
    assert "bind 127.0.0.1:6432" in files["haproxy.cfg"]


def test_pool_sizes_follow_the_spec() -> None:
    ini = pooler_configuration(context(pooler={"poolSize": 33, "maxClientConnections": 444}))[
        "pgbouncer-rw.ini"
    ]
    assert "default_pool_size = 33" in ini
    assert "max_client_conn = 444" in ini
    # 2 routes of 3 pods, by 38 each, and 20.
    assert ini.startswith("; Postgres needs max_connections = 300\n")


def test_the_proxy_and_the_agent_start_first_and_end_last() -> None:
    pod = _one(pooler_manifests(context()), "Deployment")["spec"]["template"]["spec"]
    assert [item["name"] for item in pod["initContainers"]] == ["haproxy", "agent"]
    assert all(item["restartPolicy"] == "Always" for item in pod["initContainers"])
    assert pod["automountServiceAccountToken"] is False


def test_the_agent_gets_its_passwords_as_files() -> None:
    pod = _one(pooler_manifests(context()), "Deployment")["spec"]["template"]["spec"]
    agent = next(item for item in pod["initContainers"] if item["name"] == "agent")
    assert [mount["name"] for mount in agent["volumeMounts"]] == ["config", "credentials", "run"]
    assert all("valueFrom" not in variable for variable in agent["env"])


def test_a_pooler_is_ready_when_clients_get_in_and_stops_when_they_have_left() -> None:
    pod = _one(pooler_manifests(context()), "Deployment")["spec"]["template"]["spec"]
    agent = next(item for item in pod["initContainers"] if item["name"] == "agent")
    assert agent["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "agent", "scheme": "HTTP"}
    for container in pod["containers"]:
        *_, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
        assert pod["terminationGracePeriodSeconds"] > int(seconds)


def test_haproxy_obeys_the_pod_alone() -> None:
    haproxy = pooler_configuration(context())["haproxy.cfg"]
    (socket,) = (line.strip() for line in haproxy.splitlines() if "stats socket" in line)
    assert socket == "stats socket ipv4@127.0.0.1:8405 level admin"


def test_a_postgres_pod_finds_the_agents_of_all_poolers() -> None:
    service = _one(pooler_manifests(context()), "Service", "hub-pooler-pods")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"] == names.selector_labels("hub", names.POOLER)
    pod = _one(postgres_manifests(context()), "StatefulSet")["spec"]["template"]["spec"]
    environment = {item["name"]: item.get("value") for item in pod["containers"][0]["env"]}
    assert environment["POOLER_PODS"] == f"hub-pooler-pods.{service['metadata']['namespace']}.svc"
    assert environment["POOLER_AGENT_PORT"] == str(service["spec"]["ports"][0]["port"])


def test_poolers_are_not_renewed_for_settings_that_the_agent_puts_into_effect() -> None:
    def template(built: BuildContext) -> Any:
        return _one(pooler_manifests(built), "Deployment")["spec"]["template"]

    assert template(context()) == template(context(pooler={"poolSize": 40, "maxClientConnections": 444}))
    assert template(context()) == template(context(parameters={"work_mem": "8MB"}))


def test_another_number_of_members_leaves_the_poolers_and_the_members_addresses_as_they_are() -> None:
    def built(instances: int) -> Any:
        members = postgres_manifests(context(instances=instances))
        services = [item for item in members if item["kind"] == "Service"]
        return pooler_manifests(context(instances=instances)), services

    assert built(1) == built(9)


def test_new_settings_of_the_pools_renew_only_pods_whose_image_may_be_too_old_to_read_them() -> None:
    def told(clients: int, **pooler: str) -> Any:
        built = context(pooler={"maxClientConnections": clients, **pooler})
        return _one(pooler_manifests(built), "Deployment")["spec"]["template"]["metadata"]["annotations"]

    assert told(200) == told(300)
    assert told(200, image="pooler:0") != told(300, image="pooler:0")
