"""What matters in the orchestrators' manifests."""

from __future__ import annotations

import re
from typing import Any

from runnerhub_operator import names
from runnerhub_operator.agent.settings import CheckTiming, read_settings
from runnerhub_operator.api import parse_cluster
from runnerhub_operator.resources.common import BuildContext, Images
from runnerhub_operator.resources.credentials import credential_secrets
from runnerhub_operator.resources.loadbalancer import configuration
from runnerhub_operator.resources.orchestrator import SERVICE_ACCOUNT_FOLDER, orchestrator_manifests
from runnerhub_orchestrator.settings import Settings

IMAGES = Images(
    operator="registry/operator:1",
    postgres="registry/postgres:1",
    pooler="registry/pooler:1",
    redis="registry/redis:1",
    haproxy="registry/haproxy:1",
    orchestrator="registry/orchestrator:1",
    runner="registry/runner:1",
)


def build(**spec: Any) -> dict[str, dict[str, Any]]:
    """The manifests of a cluster `hub` by kind."""
    body = {"metadata": {"namespace": "team", "name": "hub", "uid": "1234", "generation": 1}, "spec": spec}
    found = orchestrator_manifests(BuildContext(parse_cluster(body), IMAGES))
    # The one of the leader comes after it.
    return {m["kind"]: m for m in reversed(found)}


def pod(manifests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = manifests["Deployment"]["spec"]["template"]["spec"]
    return spec


def container(manifests: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(c for c in pod(manifests)["containers"] if c["name"] == name)
    return found


def environment(manifests: dict[str, dict[str, Any]], name: str) -> dict[str, str]:
    """Environment as Kubernetes would expand it, with placeholders for what comes from elsewhere."""
    result: dict[str, str] = {}
    for entry in container(manifests, name)["env"]:
        assert entry["name"] not in result
        if "value" in entry:
            missing = set(re.findall(r"\$\((\w+)\)", entry["value"])) - set(result)
            assert not missing, f"{entry['name']} uses {missing} before it is set"
            result[entry["name"]] = re.sub(r"\$\((\w+)\)", lambda m: result[m[1]], entry["value"])
        elif "secretKeyRef" in entry["valueFrom"]:
            reference = entry["valueFrom"]["secretKeyRef"]
            result[entry["name"]] = f"<{reference['name']}/{reference['key']}>"
        else:
            result[entry["name"]] = f"<{entry['valueFrom']['fieldRef']['fieldPath']}>"
    return result


def test_the_orchestrator_has_the_documents_variables() -> None:
    given = environment(build(), "orchestrator")
    primary = "postgresql://app@hub-postgres:5432/github_runnerhub"
    assert given == {
        "HA_ENABLED": "true",
        "HA_NODE_ID": "<metadata.name>",
        "HA_CLUSTER_NODES": "hub-orchestrator-pods",
        "PORT": "3001",
        "DATABASE_PASSWORD_FILE": "/etc/runnerhub/credentials/app-password",
        "WEBSOCKET_PORT": "3002",
        "DATABASE_URL": primary,
        "DATABASE_PRIMARY_URL": primary,
        "DATABASE_REPLICA_URL": primary.replace(":5432", ":5433"),
        "DATABASE_CONNECTION_POOL_SIZE": "20",
        "DATABASE_MAX_CONNECTIONS": "100",
        "REDIS_ENABLE_SENTINEL": "true",
        "REDIS_SENTINEL_HOSTS": "hub-redis-0:26379,hub-redis-1:26379,hub-redis-2:26379",
        "REDIS_MASTER_NAME": "github-runnerhub-redis",
        "REDIS_HOST": "hub-redis-master",
        "REDIS_PORT": "6379",
        "REDIS_USER": "app",
        "REDIS_PASSWORD_FILE": "/etc/runnerhub/queue-credentials/password",
        "REDIS_SENTINEL_PASSWORD_FILE": "/etc/runnerhub/queue-credentials/sentinel-password",
        "JWT_SECRET": "<hub-orchestrator-credentials/jwt-secret>",
        "LEADER_ELECTION_ENABLED": "true",
        "LEADER_ELECTION_TIMEOUT": "15000",
        "LEADER_ELECTION_RENEWAL": "2000",
        "HEALTH_CHECK_INTERVAL": "10000",
        "HEALTH_CHECK_TIMEOUT": "5000",
        "HEALTH_CHECK_RETRIES": "3",
        "LOAD_BALANCER_URL": "http://hub",
        "LOAD_BALANCER_HEALTH_CHECK": "/health",
        "LOG_DIR": "/tmp",  # noqa: S108 - the pod's own emptyDir
        "RUNNERHUB_NAMESPACE": "<metadata.namespace>",
        "RUNNERHUB_CLUSTER": "hub",
        "RUNNERHUB_AGENT_URL": "http://127.0.0.1:9808",
        "RUNNERHUB_LEADER_FILE": "/run/runnerhub/leader.json",
        "RUNNERHUB_TOKEN_KEYS_FILE": "/etc/runnerhub/token-keys/keys.json",
    }


def test_an_image_of_somebody_else_has_the_password_in_its_environment() -> None:
    manifests = build(orchestrator={"image": "registry.example/hub:1"})
    given = environment(manifests, "orchestrator")
    password = "<hub-postgres-credentials/app-password>"
    assert given["DATABASE_PASSWORD"] == password
    assert given["DATABASE_URL"] == f"postgresql://app:{password}@hub-postgres:5432/github_runnerhub"
    agent = environment(manifests, "ha-agent")
    assert "DATABASE_PASSWORD" not in agent
    assert agent["DATABASE_PRIMARY_URL"] == "postgresql://app@hub-postgres:5432/github_runnerhub"


def test_the_agent_understands_what_it_is_given() -> None:
    manifests = build(
        redis={"replicas": 5},
        leaderElection={"leaseDurationSeconds": 30, "renewDeadlineSeconds": 20, "retryPeriodSeconds": 5},
        healthChecks={"intervalSeconds": 4, "timeoutSeconds": 2, "retries": 1},
    )
    settings = read_settings(environment(manifests, "ha-agent"))
    assert settings.cluster_uid == "1234"
    assert settings.timing.lease_duration_seconds == 30
    assert settings.timing.renew_deadline_seconds == 20
    assert settings.timing.retry_period_seconds == 5
    assert (settings.checks.interval_seconds, settings.checks.timeout_seconds, settings.checks.retries) == (
        4,
        2,
        1,
    )
    assert settings.redis is not None
    assert len(settings.redis.sentinels) == 5
    assert settings.port == names.PORT_AGENT


def test_every_secret_key_that_is_referenced_is_generated() -> None:
    manifests = build()
    body = {"metadata": {"namespace": "team", "name": "hub", "uid": "1", "generation": 1}}
    generated = {
        (secret.manifest["metadata"]["name"], key)
        for secret in credential_secrets(BuildContext(parse_cluster(body), IMAGES))
        for key in secret.keys
    }
    referenced = {
        (entry["valueFrom"]["secretKeyRef"]["name"], entry["valueFrom"]["secretKeyRef"]["key"])
        for c in pod(manifests)["containers"]
        for entry in c["env"]
        if "secretKeyRef" in entry.get("valueFrom", {})
    }
    assert referenced <= generated


def test_only_the_agent_has_a_token_for_the_api_server() -> None:
    manifests = build()
    assert pod(manifests)["automountServiceAccountToken"] is False
    mounts = {c["name"]: [m["mountPath"] for m in c["volumeMounts"]] for c in pod(manifests)["containers"]}
    assert SERVICE_ACCOUNT_FOLDER in mounts["ha-agent"]
    assert SERVICE_ACCOUNT_FOLDER not in mounts["orchestrator"]


def test_the_orchestrator_cannot_forge_the_leader_file() -> None:
    mounts = {m["name"]: m for m in container(build(), "orchestrator")["volumeMounts"]}
    assert mounts["run"]["readOnly"] is True


def test_the_agent_may_touch_one_lease_and_no_secret() -> None:
    rules = build()["Role"]["rules"]
    assert [rule for rule in rules if "leases" in rule["resources"] and "update" in rule["verbs"]] == [
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": ["hub-leader"],
            "verbs": ["get", "update"],
        }
    ]
    assert {resource for rule in rules for resource in rule["resources"]} == {"leases", "pods"}
    assert all("*" not in (*rule["verbs"], *rule["resources"], *rule["apiGroups"]) for rule in rules)


def test_pods_pass_the_restricted_standard() -> None:
    spec = pod(build())
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for c in spec["containers"]:
        assert c["securityContext"]["allowPrivilegeEscalation"] is False
        assert c["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert c["securityContext"]["readOnlyRootFilesystem"] is True


def test_an_update_never_lowers_the_number_of_ready_pods() -> None:
    strategy = build(orchestrator={"replicas": 5})["Deployment"]["spec"]
    assert strategy["replicas"] == 5
    assert strategy["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_a_broken_dependency_restarts_nothing() -> None:
    probes = container(build(), "orchestrator")
    assert "tcpSocket" in probes["livenessProbe"]
    assert "tcpSocket" in probes["startupProbe"]
    readiness = probes["readinessProbe"]
    assert readiness["httpGet"]["path"] == "/health"
    # Nor does a failover take all addresses away at once, with an image whose /health follows the database.
    assert readiness["periodSeconds"] * readiness["failureThreshold"] >= 30


def test_an_agent_that_stands_still_for_a_while_takes_no_address_from_its_orchestrator() -> None:
    agent = container(build(), "ha-agent")
    assert "readinessProbe" not in agent
    assert agent["startupProbe"]["httpGet"]["path"] == "/readyz", "no pod is ready before its agent works"
    patience = agent["livenessProbe"]["periodSeconds"] * agent["livenessProbe"]["failureThreshold"]
    assert patience >= 60, "a restart makes the pod unready as well"


def test_the_agent_gives_leadership_back_before_the_orchestrator_drains() -> None:
    manifests = build()
    assert "lifecycle" not in container(manifests, "ha-agent")
    drain = container(manifests, "orchestrator")["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod(manifests)["terminationGracePeriodSeconds"] > drain + 24


def test_the_headless_service_shows_ready_pods_only() -> None:
    service = build()["Service"]
    assert service["metadata"]["name"] == "hub-orchestrator-pods"
    assert service["spec"]["clusterIP"] == "None"
    assert "publishNotReadyAddresses" not in service["spec"]
    assert [port["port"] for port in service["spec"]["ports"]] == [3001, 3002, 9808]


def test_the_leaders_service_selects_by_the_label_that_the_agent_moves() -> None:
    body = {"metadata": {"namespace": "team", "name": "hub", "uid": "1", "generation": 1}}
    found = orchestrator_manifests(BuildContext(parse_cluster(body), IMAGES))
    service = next(item for item in found if item["metadata"]["name"] == "hub-leader")
    assert service["kind"] == "Service"
    assert service["spec"]["selector"] == {
        "runnerhub.io/cluster": "hub",
        "runnerhub.io/component": "orchestrator",
        "runnerhub.io/leader": "true",
    }


def test_a_check_has_the_timing_of_all_unless_it_has_its_own() -> None:
    own = {
        "timeoutSeconds": 8,
        "canary": {"intervalSeconds": 3},
        "storage": {"timeoutSeconds": 20, "retries": 1},
    }
    settings = read_settings(environment(build(healthChecks=own), "ha-agent"))
    assert settings.timing_of("database") == settings.checks
    assert settings.timing_of("canary") == CheckTiming(3, 8, 3)
    assert settings.timing_of("storage") == CheckTiming(10, 20, 1)


def test_another_image_is_a_field_away_and_the_agent_stays() -> None:
    manifests = build(orchestrator={"image": "example.com/own:2"})
    assert container(manifests, "orchestrator")["image"] == "example.com/own:2"
    assert container(manifests, "ha-agent")["image"] == "registry/operator:1"
    assert not {"command", "args"} & set(container(manifests, "orchestrator")), "what the image says"


def test_an_image_whose_entry_point_is_wrong_is_started_otherwise() -> None:
    given = {"image": "example.com/own:2", "command": ["node", "dist/server.js"], "args": ["--quiet"]}
    started = container(build(orchestrator=given), "orchestrator")
    assert (started["command"], started["args"]) == (["node", "dist/server.js"], ["--quiet"])


def test_an_image_of_somebody_else_has_the_token_of_github_and_ours_has_not() -> None:
    github = {"url": "https://github.com/example", "tokenSecretName": "github"}
    other: dict[str, Any] = {"image": "example.com/own:2"}
    given = build(github=github, orchestrator=other)
    assert environment(given, "orchestrator")["GITHUB_TOKEN"] == "<github/token>"
    (token,) = [item for item in container(given, "orchestrator")["env"] if item["name"] == "GITHUB_TOKEN"]
    assert token["valueFrom"]["secretKeyRef"]["optional"] is True, "without the Secret it serves"
    assert "GITHUB_TOKEN" not in environment(given, "ha-agent")
    assert "GITHUB_TOKEN" not in environment(build(github=github), "orchestrator")
    assert "GITHUB_TOKEN" not in environment(build(orchestrator=other), "orchestrator")
    own = {**other, "env": [{"name": "GITHUB_TOKEN", "value": "mine"}]}
    assert environment(build(github=github, orchestrator=own), "orchestrator")["GITHUB_TOKEN"] == "mine"
    from_elsewhere = {**other, "envFrom": [{"secretRef": {"name": "own"}}]}
    assert "GITHUB_TOKEN" not in environment(
        build(github=github, orchestrator=from_elsewhere), "orchestrator"
    )


def test_orchestrators_and_load_balancer_name_the_cluster_alike() -> None:
    given = {**environment(build(), "orchestrator"), "RUNNERHUB_NAMESPACE": "team"}
    given |= {"DATABASE_URL": "postgresql://app:x@db/hub", "JWT_SECRET": "s3cr3t" * 8}
    body = {"metadata": {"namespace": "team", "name": "hub", "uid": "1234", "generation": 1}}
    balancer = configuration(BuildContext(parse_cluster(body), IMAGES))
    told = re.findall(rf"{names.HEADER_CLUSTER} (\S+)", balancer)
    assert set(told) == {Settings.from_environment(given).cluster} == {"team/hub"}
    assert len(told) == 6, (
        "the requests, and the checks of four backends, one of which asks the agent as well"
    )
