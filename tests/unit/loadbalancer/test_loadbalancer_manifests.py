"""The manifests of load balancer and Ingress, and HAProxy's configuration."""

from __future__ import annotations

from typing import Any

import pytest

from runnerhub_operator import names
from runnerhub_operator.api import parse_cluster
from runnerhub_operator.resources import haproxy_config
from runnerhub_operator.resources.common import BuildContext, Images, Manifest
from runnerhub_operator.resources.ingress import ingress_manifests
from runnerhub_operator.resources.loadbalancer import configuration, loadbalancer_manifests

IMAGES = Images(
    operator="operator",
    postgres="postgres",
    pooler="pooler",
    redis="redis",
    haproxy="haproxy",
    orchestrator="app",
    runner="runner",
)


def context(**spec: Any) -> BuildContext:
    body = {"metadata": {"name": "hub", "namespace": "runnerhub", "uid": "1"}, "spec": spec}
    return BuildContext(parse_cluster(body), IMAGES)


def one(manifests: list[Manifest], kind: str) -> Manifest:
    found = [item for item in manifests if item["kind"] == kind]
    assert len(found) == 1
    return found[0]


def section(text: str, head: str) -> list[str]:
    return next(
        [line.strip() for line in block.splitlines()[1:]]
        for block in text.split("\n\n")
        if block.splitlines()[0] == head
    )


@pytest.fixture(scope="module")
def config() -> str:
    return configuration(context())


def test_the_service_has_the_clusters_name_and_all_doors() -> None:
    service = one(loadbalancer_manifests(context()), "Service")
    assert service["metadata"]["name"] == "hub"
    ports = {port["name"]: (port["port"], port["targetPort"]) for port in service["spec"]["ports"]}
    assert ports == {"http": (80, "http"), "api": (3001, "api"), "ws": (3002, "ws")}


def test_type_and_annotations_of_the_service_come_from_the_spec() -> None:
    spec = {"service": {"type": "LoadBalancer", "annotations": {"example.com/kind": "internal"}}}
    service = one(loadbalancer_manifests(context(loadBalancer=spec)), "Service")
    assert service["spec"]["type"] == "LoadBalancer"
    assert service["metadata"]["annotations"] == {"example.com/kind": "internal"}


def test_a_new_pod_is_ready_before_an_old_one_goes() -> None:
    spec = one(loadbalancer_manifests(context()), "Deployment")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    pod = spec["template"]["spec"]
    drain = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert drain + haproxy_config.HARD_STOP_SECONDS < pod["terminationGracePeriodSeconds"]


def test_pods_are_restricted_and_use_unprivileged_ports() -> None:
    pod = one(loadbalancer_manifests(context()), "Deployment")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert all(port["containerPort"] > 1024 for port in pod["containers"][0]["ports"])


def test_a_changed_configuration_changes_the_pod_template() -> None:
    def template(**spec: Any) -> Manifest:
        result: Manifest = one(loadbalancer_manifests(context(**spec)), "Deployment")["spec"]["template"]
        return result

    assert template() != template(orchestrator={"replicas": 9})
    assert template() == template(redis={"replicas": 5})
    assert names.ANNOTATION_CONFIG in template()["metadata"]["annotations"]


@pytest.mark.parametrize(("replicas", "slots"), [(1, 10), (3, 10), (5, 10), (6, 20), (50, 100)])
def test_slots_for_a_rollout(replicas: int, slots: int) -> None:
    assert haproxy_config.server_slots(replicas) == slots


def test_names_of_the_pods_are_full_and_quoted(config: str) -> None:
    assert 'server-template pod 10 "hub-orchestrator-pods.${SERVICE_DOMAIN}:3001"' in config


def test_routes(config: str) -> None:
    http = section(config, "frontend http")
    assert "bind *:8080 name http" in http
    assert "bind *:3001 name api" in http
    assert "acl agent path /health /metrics /leader" in http
    order = [line.split()[1] for line in http if line.startswith(("use_backend", "default_backend"))]
    assert order == ["agents", "websockets", "any_orchestrator", "orchestrators"]
    assert "default_backend websockets" in section(config, "frontend websocket")


def test_websockets_stick_to_the_client_on_every_load_balancer(config: str) -> None:
    websockets = section(config, "backend websockets")
    assert "balance hash var(txn.client)" in websockets
    assert any(line.startswith("hash-type consistent") for line in websockets)
    assert any(" hash-key addr" in line for line in websockets)


def test_only_what_may_happen_twice_is_sent_twice(config: str) -> None:
    for backend in ("backend orchestrators", "backend any_orchestrator"):
        lines = section(config, backend)
        assert "acl delegate path /api/jobs/delegate" in lines
        assert "http-request disable-l7-retry unless { method GET HEAD } || { method POST } delegate" in lines
    assert "retry-on conn-failure" in section(config, "defaults")
    assert not any(line.startswith("retry-on") for line in section(config, "backend agents"))


def test_an_outage_of_the_database_cuts_no_websocket(config: str) -> None:
    websockets = section(config, "backend websockets")
    assert "option httpchk GET /" in websockets
    assert "http-check expect status 200-599" in websockets


def test_no_ingress_unless_asked_for() -> None:
    assert ingress_manifests(context()) == []


def test_ingress_in_full() -> None:
    spec = {
        "host": "runnerhub.example.com",
        "className": "nginx",
        "tlsSecretName": "runnerhub-tls",
        "annotations": {"example.com/a": "b"},
    }
    ingress = one(ingress_manifests(context(ingress=spec)), "Ingress")
    assert ingress["metadata"]["annotations"] == {"example.com/a": "b"}
    assert ingress["spec"]["ingressClassName"] == "nginx"
    assert ingress["spec"]["tls"] == [{"hosts": ["runnerhub.example.com"], "secretName": "runnerhub-tls"}]
    path = ingress["spec"]["rules"][0]["http"]["paths"][0]
    assert path["backend"] == {"service": {"name": "hub", "port": {"name": "http"}}}
    assert (path["path"], path["pathType"]) == ("/", "Prefix")


def test_ingress_leaves_out_what_is_not_given() -> None:
    ingress = one(ingress_manifests(context(ingress={"host": "hub.example.com"})), "Ingress")
    assert set(ingress["spec"]) == {"rules"}
    assert "annotations" not in ingress["metadata"]
