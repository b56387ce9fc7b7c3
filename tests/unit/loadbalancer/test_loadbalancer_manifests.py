"""The manifests of load balancer and Ingress, and HAProxy's configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runnerhub_operator.api import parse_cluster
from runnerhub_operator.resources import haproxy_config
from runnerhub_operator.resources.common import BuildContext, Images, Manifest
from runnerhub_operator.resources.ingress import ingress_manifests
from runnerhub_operator.resources.loadbalancer import configuration, inside_url, loadbalancer_manifests

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
    # The other Service is the queue's.
    found = [
        item for item in manifests if item["kind"] == kind and item["metadata"]["name"] != "hub-redis-master"
    ]
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
    stop = {item["name"]: item["value"] for item in pod["containers"][0]["env"]}["HARD_STOP_SECONDS"]
    assert drain + int(stop) < pod["terminationGracePeriodSeconds"]


def test_pods_are_restricted_and_use_unprivileged_ports() -> None:
    pod = one(loadbalancer_manifests(context()), "Deployment")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert all(port["containerPort"] > 1024 for port in pod["containers"][0]["ports"])


SETTINGS: list[dict[str, Any]] = [
    {"balance": "leastconn"},
    {"maxConnections": 100},
    {"slowStartSeconds": 0},
    {"timeouts": {"tunnelSeconds": 10}},
    {"trustedProxies": ["10.0.0.0/8"]},
    {"service": {"type": "NodePort"}},
]


def test_a_limit_of_requests_holds_from_the_first_second_on(config: str) -> None:
    assert "slowstart 10s" in config
    limited = configuration(context(loadBalancer={"maxConnectionsPerOrchestrator": 100}))
    assert "maxconn 100" in limited
    assert "slowstart" not in limited


def test_an_image_of_somebody_else_may_take_its_time_for_every_answer(config: str) -> None:
    assert "http-request set-timeout server 3s" in config
    own = section(
        configuration(context(orchestrator={"image": "example.com/own:2"})), "backend orchestrators"
    )
    assert not any("set-timeout" in line or line.startswith("acl job") for line in own)
    assert any(line.startswith("retry-on") for line in own)


def template(built: BuildContext) -> Manifest:
    result: Manifest = one(loadbalancer_manifests(built), "Deployment")["spec"]["template"]
    return result


@pytest.mark.parametrize("settings", SETTINGS)
def test_settings_are_reloaded_and_renew_no_pod(settings: dict[str, Any]) -> None:
    changed = context(loadBalancer=settings)
    assert configuration(changed) != configuration(context())
    assert template(changed) == template(context())


def test_room_for_more_orchestrators_renews_no_pod() -> None:
    assert template(context(orchestrator={"replicas": 9})) == template(context())


def test_tls_serves_443_from_the_files_of_the_secret() -> None:
    built = context(loadBalancer={"tls": {"secretName": "hub-tls"}})
    manifests = loadbalancer_manifests(built)
    ports = {port["name"]: port["port"] for port in one(manifests, "Service")["spec"]["ports"]}
    assert ports == {"http": 80, "https": 443, "api": 3001, "ws": 3002}
    pod = template(built)["spec"]
    secret = next(volume["secret"] for volume in pod["volumes"] if volume["name"] == "tls")
    assert secret["secretName"] == "hub-tls"
    assert [item["key"] for item in secret["items"]] == ["tls.crt", "tls.key"]
    assert secret["optional"] is True, "the pod starts and tells what is missing"
    assert {"name": "tls", "mountPath": "/etc/haproxy-tls", "readOnly": True} in pod["containers"][0][
        "volumeMounts"
    ]
    frontend = section(configuration(built), "frontend http")
    assert any(line.startswith("bind *:8443 name https ssl crt") for line in frontend)
    assert (
        "http-request redirect scheme https code 308 if { so_name -m str http } !secure !health" in frontend
    )


def test_without_tls_nothing_redirects(config: str) -> None:
    assert "redirect" not in config
    assert "ssl crt" not in config


def test_inside_kubernetes_the_api_is_reached_without_tls() -> None:
    cluster = context(loadBalancer={"tls": {"secretName": "hub-tls"}}).cluster
    assert inside_url(cluster, "hub") == "http://hub:3001"
    assert inside_url(context().cluster, "hub") == "http://hub"


def test_the_fields_of_the_service_come_from_the_spec() -> None:
    given = {
        "type": "LoadBalancer",
        "externalTrafficPolicy": "Local",
        "loadBalancerClass": "example.com/internal",
        "loadBalancerSourceRanges": ["192.0.2.0/24"],
    }
    spec = one(loadbalancer_manifests(context(loadBalancer={"service": given})), "Service")["spec"]
    assert {name: spec[name] for name in given} == given
    plain = one(loadbalancer_manifests(context()), "Service")["spec"]
    assert set(plain) == {"type", "selector", "ports"}


@pytest.mark.parametrize(
    ("spec", "believed"),
    [
        ({}, None),
        ({"service": {"type": "NodePort"}}, ()),
        ({"service": {"type": "NodePort"}, "trustedProxies": ["10.0.0.0/8"]}, ("10.0.0.0/8",)),
        ({"trustedProxies": []}, ()),
    ],
)
def test_who_is_believed_about_the_client(spec: dict[str, Any], believed: object) -> None:
    built = context(loadBalancer=spec)
    assert haproxy_config.trusted_proxies(built.cluster.spec.load_balancer) == believed
    lines = section(configuration(built), "frontend http")
    deletes = [line for line in lines if line.startswith("http-request del-header")]
    assert len(deletes) == (0 if believed is None else len(haproxy_config.FORWARDED_HEADERS))
    assert all(line.endswith(" unless trusted") == bool(believed) for line in deletes)


@pytest.mark.parametrize(("replicas", "slots"), [(1, 10), (3, 10), (5, 10), (6, 20), (50, 100)])
def test_slots_for_a_rollout(replicas: int, slots: int) -> None:
    assert haproxy_config.server_slots(replicas) == slots


def test_names_of_the_pods_are_full_and_quoted(config: str) -> None:
    assert 'server-template pod 10 "hub-orchestrator-pods.${SERVICE_DOMAIN}:3001"' in config


def test_who_has_only_just_started_is_ready_when_it_has_found_an_orchestrator(config: str) -> None:
    assert "set-var proc.asked int(0)" in section(config, "global")
    stats = section(config, "frontend stats")
    assert "acl starting var(proc.asked) -m int le 3" in stats
    assert "http-request return status 503 if ready alone starting or ready alone nowhere" in stats


def test_routes(config: str) -> None:
    http = section(config, "frontend http")
    assert "bind *:8080 name http" in http
    assert "bind *:3001 name api" in http
    assert "acl agent path /health /metrics /leader" in http
    order = [line.split()[1] for line in http if line.startswith(("use_backend", "default_backend"))]
    assert order == ["agents", "websockets", "any_orchestrator", "orchestrators"]
    assert "bind *:3002 name ws" in http
    assert "acl websocket so_name -m str ws" in http


def test_websockets_stick_to_the_client_on_every_load_balancer(config: str) -> None:
    websockets = section(config, "backend websockets")
    assert "balance hash var(txn.client)" in websockets
    assert any(line.startswith("hash-type consistent") for line in websockets)
    assert any(" hash-key addr" in line for line in websockets)


def test_only_what_may_happen_twice_is_sent_twice(config: str) -> None:
    for backend in ("backend orchestrators", "backend any_orchestrator"):
        lines = section(config, backend)
        assert "acl delegate path /api/jobs/delegate" in lines
        assert "acl repeatable method GET HEAD OPTIONS PUT DELETE" in lines
        assert "http-request disable-l7-retry unless repeatable or { method POST } delegate" in lines
    assert "retry-on conn-failure" in section(config, "defaults")
    assert "http-request disable-l7-retry unless METH_GET" in section(config, "backend agents")


def test_an_outage_of_the_database_cuts_no_websocket(config: str) -> None:
    websockets = section(config, "backend websockets")
    assert "option httpchk GET /" in websockets
    assert "http-check expect status 200-420,422-599" in websockets


def test_a_connection_that_fails_cuts_no_websocket(config: str) -> None:
    (servers,) = [
        line for line in section(config, "backend websockets") if line.startswith("server-template")
    ]
    assert servers.endswith(" fall 3 on-error fastinter on-marked-down shutdown-sessions")
    assert "on-error mark-down" in section(config, "defaults")[-1]


def test_an_orchestrator_is_chosen_by_its_own_word_and_by_its_agents_about_the_database(config: str) -> None:
    checks = [line for line in section(config, "backend orchestrators") if "http-check" in line]
    assert checks == [
        "http-check connect",
        "http-check send meth GET uri /health hdr X-RunnerHub-Cluster runnerhub/hub",
        "http-check expect status 200",
        "http-check connect port 9808",
        "http-check send meth GET uri /health/database hdr X-RunnerHub-Cluster runnerhub/hub",
        "http-check expect status 200",
    ]


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


def test_an_ingress_has_all_hosts_once_and_the_path_type_of_the_spec() -> None:
    spec = {
        "host": "a.example.com",
        "hosts": ["b.example.com", "a.example.com"],
        "pathType": "ImplementationSpecific",
        "tlsSecretName": "tls",
    }
    ingress = one(ingress_manifests(context(ingress=spec)), "Ingress")["spec"]
    assert [rule["host"] for rule in ingress["rules"]] == ["a.example.com", "b.example.com"]
    assert {rule["http"]["paths"][0]["pathType"] for rule in ingress["rules"]} == {"ImplementationSpecific"}
    assert ingress["tls"] == [{"hosts": ["a.example.com", "b.example.com"], "secretName": "tls"}]


GATEWAY = {
    "hosts": ["hub.example.com"],
    "annotations": {"example.com/a": "b"},
    "gateway": {
        "parentRefs": [{"name": "public", "namespace": "gateways", "sectionName": "https"}, {"name": "own"}]
    },
}


def test_a_gateway_gets_an_http_route_instead_of_an_ingress() -> None:
    (route,) = ingress_manifests(context(ingress=GATEWAY))
    assert (route["apiVersion"], route["kind"]) == ("gateway.networking.k8s.io/v1", "HTTPRoute")
    assert route["metadata"]["annotations"] == {"example.com/a": "b"}
    assert route["spec"]["parentRefs"] == GATEWAY["gateway"]["parentRefs"]
    assert route["spec"]["hostnames"] == ["hub.example.com"]
    (rule,) = route["spec"]["rules"]
    assert rule["backendRefs"] == [{"name": "hub", "port": 80}]


def test_with_tls_both_ways_in_lead_to_a_port_that_does_not_send_on_to_https() -> None:
    tls = {"tls": {"secretName": "hub-tls"}, "service": {"type": "LoadBalancer"}}
    (ingress,) = ingress_manifests(context(loadBalancer=tls, ingress={"host": "hub.example.com"}))
    path = ingress["spec"]["rules"][0]["http"]["paths"][0]
    assert path["backend"]["service"]["port"] == {"name": "api"}
    (route,) = ingress_manifests(context(loadBalancer=tls, ingress=GATEWAY))
    (backend,) = route["spec"]["rules"][0]["backendRefs"]
    assert backend["port"] == 3001
    service = one(loadbalancer_manifests(context(loadBalancer=tls)), "Service")
    assert {"name": "api", "port": 3001, "protocol": "TCP", "targetPort": "api"} in service["spec"]["ports"]


def test_no_http_route_where_the_api_server_knows_none() -> None:
    assert ingress_manifests(replace(context(ingress=GATEWAY), serves_http_routes=False)) == []


def test_clients_that_know_no_sentinel_are_led_to_the_master_that_is_followed(config: str) -> None:
    assert "bind *:6379 name redis" in section(config, "frontend queue")
    backend = section(config, "backend queue_master")
    assert "option httpchk GET /master" in backend
    servers = [line for line in backend if line.startswith("server ")]
    assert [line.split()[1] for line in servers] == ["hub-redis-0", "hub-redis-1", "hub-redis-2"]
    assert all(
        line.endswith(" port 6380 on-error fastinter on-marked-down shutdown-sessions") for line in servers
    )


def test_the_queue_has_no_way_in_from_outside() -> None:
    spec = {"loadBalancer": {"service": {"type": "LoadBalancer"}}}
    services = {
        item["metadata"]["name"]: item["spec"]
        for item in loadbalancer_manifests(context(**spec))
        if item["kind"] == "Service"
    }
    assert services["hub-redis-master"]["type"] == "ClusterIP"
    assert 6379 not in {port["port"] for port in services["hub"]["ports"]}
