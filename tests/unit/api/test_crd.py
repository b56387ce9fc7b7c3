"""The schema that the API server gets, and the operator's own validation of the same rules."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerhub_operator.api import (
    ConditionReason,
    ConditionType,
    RunnerHubClusterSpec,
    RunnerPoolSpec,
    parse_cluster,
)
from runnerhub_operator.api.base import NETWORK_PATTERN
from runnerhub_operator.api.crd import SCALE, custom_resource_definition
from runnerhub_operator.api.meanings import CONDITIONS, REASONS
from runnerhub_operator.errors import InvalidSpecError
from runnerhub_operator.resources.patroni import needed_connections
from runnerhub_operator.resources.runners import runner_pod
from tests.generate import context, desired_objects, example


def schema() -> dict[str, Any]:
    found: dict[str, Any] = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def walk(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, inner in node.get("properties", {}).items():
        yield from walk(inner, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from walk(node[key], f"{path}[]")


def resource(spec: dict[str, Any], name: str = "hub") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "d", "uid": "1", "generation": 1}, "spec": spec}


def test_the_schema_is_structural() -> None:
    for path, node in walk(schema()):
        assert "type" in node, path
        assert not {"$ref", "anyOf", "allOf", "$defs", "title"} & set(node), path


def test_every_field_of_spec_and_status_is_described() -> None:
    bare = [
        path
        for path, node in walk(schema())
        if path.startswith((".spec", ".status")) and not path.endswith("[]") and not node.get("description")
    ]
    assert bare == []


def test_lists_strings_and_maps_of_the_spec_are_bounded_for_the_cost_of_cel() -> None:
    for path, node in walk(schema()["properties"]["spec"]):
        if node["type"] == "string" and "enum" not in node:
            assert "maxLength" in node, path
        if node["type"] == "array":
            assert "maxItems" in node, path
        if node["type"] == "object" and "additionalProperties" in node:
            assert "maxProperties" in node, path


def default_of(node: dict[str, Any]) -> Any:
    """What the API server makes of an absent value."""
    if "default" not in node:
        return None
    value = node["default"]
    if node["type"] != "object":
        return value
    filled = {name: default_of(inner) for name, inner in node.get("properties", {}).items()}
    return {name: inner for name, inner in filled.items() if inner is not None} | value


def test_the_defaults_of_the_schema_are_those_of_the_models() -> None:
    by_server = default_of(schema()["properties"]["spec"])
    assert RunnerHubClusterSpec.model_validate(by_server) == RunnerHubClusterSpec()
    assert by_server["redis"]["storage"] == {"size": "5Gi"}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"redis": {"replicas": 4}}, "odd"),
        ({"redis": {"replicas": 0}}, "greater than or equal to 3"),
        ({"postgres": {"instances": 0}}, "greater than or equal to 1"),
        ({"postgres": {"storage": {"size": "much"}}}, "spec.postgres.storage.size"),
        ({"ingress": {"host": "no_host"}}, "spec.ingress: ingress.host must be a DNS name"),
        ({"ingress": {}}, "spec.ingress: ingress needs host or hosts"),
        ({"ingress": {"hosts": ["a.example.com", "b"]}}, "each of ingress.hosts must be a DNS name"),
        ({"ingress": {"host": "x.y", "gateway": {}}}, "spec.ingress.gateway.parentRefs"),
        (
            {"ingress": {"host": "x.y", "className": "c", "gateway": {"parentRefs": [{"name": "g"}]}}},
            "className, tlsSecretName and pathType must be left out",
        ),
        ({"loadBalancer": {"tls": {}}}, "spec.loadBalancer.tls.secretName"),
        ({"loadBalancer": {"maxConnections": 99}}, "greater than or equal to 100"),
        ({"loadBalancer": {"trustedProxies": ["10.0.0.0"]}}, "spec.loadBalancer.trustedProxies"),
        ({"loadBalancer": {"service": {"externalTrafficPolicy": "Local"}}}, "NodePort or LoadBalancer"),
        ({"loadBalancer": {"service": {"loadBalancerClass": "a.b/c"}}}, "needs service.type LoadBalancer"),
        (
            {"loadBalancer": {"service": {"loadBalancerSourceRanges": ["10.0.0.0/8"]}}},
            "needs service.type LoadBalancer",
        ),
        ({"surprise": 1}, "spec.surprise"),
        ({"leaderElection": {"leaseDurationSeconds": 5}}, "leaseDurationSeconds > renewDeadlineSeconds"),
        ({"orchestrator": {"image": "no image"}}, "spec.orchestrator.image"),
    ],
)
def test_a_bad_spec_is_told_by_field(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        parse_cluster(resource(spec))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"orchestrator": {"replicas": "3"}}, "valid integer"),
        ({"orchestrator": {"replicas": True}}, "valid integer"),
        ({"orchestrator": {"replicas": 2.5}}, "valid integer"),
        ({"load_balancer": {}}, "spec.load_balancer"),
        ({"ingress": {"host": "1.2.3.4"}}, "must be a DNS name"),
        ({"ingress": {"host": "x.y\n"}}, "must be a DNS name"),
        (
            {"ingress": {"host": "x.y", "annotations": {"kubernetes.io/ingress.class": "a"}}},
            "set ingress.className",
        ),
        (
            {"loadBalancer": {"service": {"annotations": {"runnerhub.io/applied-hash": "x"}}}},
            "belong to the operator",
        ),
        ({"loadBalancer": {"service": {"annotations": {"a b": "x"}}}}, "names like example.com/name"),
        (
            {"postgres": {"resources": {"limits": {"memory": "500m"}}}},
            "spec.postgres.resources.limits.memory",
        ),
        ({"postgres": {"resources": {"limits": {"memory": "16383Ki"}}}}, "memory must be at least 16Mi"),
        ({"postgres": {"resources": {"limits": {"cpu": "1.1m"}}}}, "spec.postgres.resources.limits.cpu"),
        ({"postgres": {"resources": {"limits": {"cpu": "0"}}}}, "spec.postgres.resources.limits.cpu"),
        (
            {"redis": {"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "500m"}}}},
            "must not be above limits.cpu",
        ),
        ({"redis": {"storage": {"size": "100Mi"}}}, "size must be at least 256Mi"),
        ({"postgres": {"storage": {"size": "999Mi"}}}, "size must be at least 1Gi"),
        ({"postgres": {"parameters": {"max_connections": "169"}}}, "max_connections must be a number"),
        ({"postgres": {"parameters": {"work_mem": "1MB\nfsync = off"}}}, "spec.postgres.parameters.work_mem"),
        ({"postgres": {"parameters": {"fsync": "off"}}}, "that the operator owns"),
        ({"surprise" * 100: 1}, "surprise"),
        ([], "valid dictionary"),
    ],
)
def test_hostile_input_is_told_by_field(spec: Any, words: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        parse_cluster(resource(spec))
    assert words in str(caught.value)
    assert "Value error" not in str(caught.value)


def test_what_is_just_allowed_is_accepted() -> None:
    parsed = parse_cluster(
        resource(
            {
                "postgres": {
                    "parameters": {"max_connections": "170"},
                    "synchronous": "required",
                    "instances": 3,
                    "storage": {"size": "1024Mi"},
                },
                "redis": {"resources": {"requests": {"cpu": "0.5"}, "limits": {"cpu": "500m"}}},
                "ingress": {"host": "*.example.com", "tlsSecretName": None},
                "orchestrator": None,
            }
        )
    )
    assert parsed.spec.orchestrator.replicas == 3
    assert parsed.spec.ingress is not None


def test_two_instances_that_require_a_standby_are_refused_by_the_api_server_and_served_where_they_are() -> (
    None
):
    spec = {"postgres": {"synchronous": "required", "instances": 2}}
    assert parse_cluster(resource(spec)).spec.postgres.instances == 2
    rules = at(schema(), ".spec.postgres")["x-kubernetes-validations"]
    assert any("at least three instances" in rule["message"] for rule in rules)


def test_a_refusal_with_many_reasons_stays_readable() -> None:
    with pytest.raises(InvalidSpecError) as caught:
        parse_cluster(resource({f"field{number}": 1 for number in range(1000)}))
    assert str(caught.value).endswith("and 990 more")


def test_a_name_too_long_for_its_children_is_refused() -> None:
    parse_cluster(resource({}, "a" * 40))
    with pytest.raises(InvalidSpecError):
        parse_cluster(resource({}, "a" * 41))


@pytest.mark.parametrize("name", ["1hub", "hub.x", "Hub", "hub-", "hub\n", ""])
def test_a_name_that_is_no_name_of_a_service_is_refused(name: str) -> None:
    with pytest.raises(InvalidSpecError):
        parse_cluster(resource({}, name))


def at(node: dict[str, Any], path: str) -> dict[str, Any]:
    for name in path.removeprefix(".").split("."):
        node = node["properties"][name]
    return node


def test_the_scale_subresource_points_to_fields_that_exist() -> None:
    assert at(schema(), SCALE["specReplicasPath"])["type"] == "integer"
    assert at(schema(), SCALE["statusReplicasPath"])["type"] == "integer"
    assert at(schema(), SCALE["labelSelectorPath"])["type"] == "string"


def test_kubectl_explain_tells_default_bounds_and_immutability() -> None:
    replicas = at(schema(), ".spec.redis.replicas")["description"]
    assert replicas.endswith("3 to 9. Default: 3.")
    storage = at(schema(), ".spec.postgres.storage")["properties"]
    assert storage["storageClassName"]["description"].endswith("Immutable in this version.")
    assert storage["size"]["description"].endswith("Default: 10Gi.")


def test_the_default_requests_that_the_fields_tell_are_those_of_the_pods() -> None:
    requests = {
        container["name"]: container["resources"]["requests"]
        for item in desired_objects(context("hub", {}))
        if item["kind"] in ("StatefulSet", "Deployment")
        for container in item["spec"]["template"]["spec"]["containers"]
    }
    sections = {
        "orchestrator": "orchestrator",
        "postgres": "postgres",
        "postgres.pooler": "pgbouncer-rw",
        "redis": "redis",
        "loadBalancer": "haproxy",
    }
    for section, container in sections.items():
        told = at(schema(), f".spec.{section}.resources")["description"]
        asked = requests[container]
        assert told.endswith(f"Default requests: {asked['cpu']} CPU, {asked['memory']} memory."), section


def test_the_default_requests_of_a_runner_are_those_of_its_pod() -> None:
    built = context("hub", {"runnerPools": [{"name": "a"}]})
    asked = runner_pod(built, built.cluster.spec.runner_pools[0], 0)["spec"]["containers"][0]["resources"][
        "requests"
    ]
    told = at(schema(), ".spec.runnerPools")["items"]["properties"]["resources"]["description"]
    assert told.endswith(f"Default requests: {asked['cpu']} CPU, {asked['memory']} memory.")


def test_the_fields_of_a_pool_have_defaults_that_kubernetes_fills_in() -> None:
    inside = at(schema(), ".spec.runnerPools")["items"]["properties"]
    by_server = {name: value for name in inside if (value := default_of(inside[name])) is not None}
    filled = RunnerPoolSpec.model_validate({"name": "a", **by_server})
    assert filled == RunnerPoolSpec(name="a")
    assert inside["maxReplicas"]["description"].endswith("1 to 1000. Default: 10.")


@pytest.mark.parametrize(
    ("pool", "words"),
    [
        ({}, "spec.runnerPools.0.name"),
        ({"name": "Linux"}, "spec.runnerPools.0.name"),
        ({"name": "a" * 21}, "spec.runnerPools.0.name"),
        ({"name": "a", "labels": []}, "at least 1 item"),
        ({"name": "a", "labels": ["a,b"]}, "spec.runnerPools.0.labels"),
        ({"name": "a", "minReplicas": 11}, "minReplicas must not be above maxReplicas"),
        ({"name": "a", "maxReplicas": 0}, "greater than or equal to 1"),
        ({"name": "a", "nodeSelector": {"a b": "x"}}, "names of labels"),
        ({"name": "a", "nodeSelector": {"a": "x y"}}, "spec.runnerPools.0.nodeSelector"),
        (
            {"name": "a", "region": "x", "nodeSelector": {"topology.kubernetes.io/region": "y"}},
            "beside region",
        ),
        ({"name": "a", "tolerations": [{}]}, "must have operator: Exists"),
        ({"name": "a", "tolerations": [{"operator": "Exists", "value": "x"}]}, "must not have a value"),
        (
            {"name": "a", "tolerations": [{"key": "x", "tolerationSeconds": 1, "effect": "NoSchedule"}]},
            "must have effect: NoExecute",
        ),
        ({"name": "a", "terminationGracePeriodSeconds": 29}, "greater than or equal to 30"),
    ],
)
def test_a_bad_pool_is_told_by_field(pool: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        parse_cluster(resource({"runnerPools": [pool]}))
    assert words in str(caught.value)


def test_pools_of_one_name_and_a_registration_without_owner_are_refused() -> None:
    for spec, words in (
        ({"runnerPools": [{"name": "a"}, {"name": "a"}]}, "distinct names"),
        ({"github": {"tokenSecretName": "x"}}, "must name an organisation or a repository"),
        ({"github": {"url": "git@github.com:x/y"}}, "spec.github.url"),
    ):
        with pytest.raises(InvalidSpecError) as caught:
            parse_cluster(resource(spec))
        assert words in str(caught.value)
    for url in ("https://github.com/example", "https://github.example.com:8443/example/app.js"):
        parse_cluster(resource({"github": {"tokenSecretName": "x", "url": url}}))


def test_every_condition_and_every_reason_is_explained() -> None:
    assert set(CONDITIONS) == set(ConditionType)
    assert set(REASONS) == set(ConditionReason)


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


@given(
    st.one_of(
        st.from_regex(NETWORK_PATTERN, fullmatch=True),
        st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,3}", fullmatch=True),
        st.from_regex(r"[0-9a-f:]{2,39}/(0|[1-9][0-9]{0,2})", fullmatch=True),
        st.builds("{}/{}".format, st.ip_addresses(), st.integers(0, 140)),
    )
)
def test_the_pattern_of_networks_takes_what_is_one(text: str) -> None:
    length = text.rsplit("/", 1)[1]
    both = "." in text and ":" in text
    wanted = _is_network(text) and str(int(length)) == length and not both
    assert (re.fullmatch(NETWORK_PATTERN, text) is not None) == wanted


def test_the_examples_name_every_field() -> None:
    def names(value: Any, path: str = "") -> Iterator[str]:
        for item in value if isinstance(value, list) else ():
            yield from names(item, f"{path}[]")
        for name, inner in value.items() if isinstance(value, dict) else ():
            yield f"{path}.{name}"
            yield from names(inner, f"{path}.{name}")
        for inner in value if isinstance(value, list) else ():
            yield from names(inner, f"{path}[]")

    # An HTTPRoute and an Ingress exclude each other.
    told = {*names(example("full")["spec"]), *names(example("gateway")["spec"])}
    # Told once, in a comment at the top.
    repeated = (".image", ".resources")
    # Of the same form as that of the orchestrator, or as that of a Secret.
    # One of several is chosen, and the others are told in a comment.
    others = {
        ".sharedStorage.claim.name",
        ".sharedStorage.nfs",
        ".sharedStorage.nfs.server",
        ".sharedStorage.nfs.path",
        ".sharedStorage.s3",
        ".sharedStorage.s3.bucket",
        ".sharedStorage.s3.prefix",
        ".sharedStorage.s3.region",
        ".sharedStorage.s3.endpoint",
        ".sharedStorage.s3.pathStyle",
        ".sharedStorage.s3.credentialsSecretName",
        ".sharedStorage.s3.caConfigMapName",
    }
    alike = (
        ".initContainers[].env",
        ".runnerPools[].env",
        ".initContainers[].volumeMounts[].",
        ".volumes[].configMap.",
        ".podTemplate.tolerations[].",
    )
    every = {
        path
        for path, _ in walk(schema()["properties"]["spec"])
        if path and not path.endswith(("[]", *repeated)) and ".resources." not in path
    }
    assert {path for path in every - told - others if not any(form in path for form in alike)} == set()


@pytest.mark.parametrize(("replicas", "pool_size"), [(1, 1), (2, 20), (3, 115), (20, 500)])
def test_the_connections_that_the_rule_counts_are_those_that_postgres_gets(
    replicas: int, pool_size: int
) -> None:
    def spec(**parameters: str) -> dict[str, Any]:
        pooler = {"replicas": replicas, "poolSize": pool_size}
        return {"postgres": {"pooler": pooler, "parameters": parameters}}

    needed = needed_connections(context("hub", spec()))
    least = 2 * (replicas + 1) * (pool_size + 5) + 20
    assert refused(spec(max_connections=str(least - 1)))
    assert not refused(spec(max_connections=str(least)))
    assert needed == max(100, -(-least // 100) * 100), "what is computed is rounded up from the same sum"


def refused(spec: dict[str, Any]) -> bool:
    try:
        parse_cluster(resource(spec))
    except InvalidSpecError:
        return True
    return False
