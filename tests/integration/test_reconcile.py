"""The operator against a real API server: what it writes, keeps, refuses and leaves alone."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from e2e.lab.hub import Hub
from e2e.lab.kubectl import Kubectl, KubectlError, wait_for
from runnerhub_operator import names
from runnerhub_operator.api import parse_cluster
from runnerhub_operator.resources.common import BuildContext
from runnerhub_operator.resources.credentials import CREDENTIAL_KEYS
from runnerhub_operator.resources.migration import migration_job
from tests.generate import IMAGES, ROOT, context, desired_objects
from tests.integration.conftest import Operator, wait_until_time_passed


def manifest(name: str = "hub", spec: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "runnerhub.io/v1alpha1",
        "kind": "RunnerHubCluster",
        "metadata": {"name": name},
        "spec": spec or {},
    }


def created(kubectl: Kubectl, spec: dict[str, Any] | None = None) -> Hub:
    """A cluster whose last child has been written."""
    kubectl.apply(manifest("hub", spec))
    hub = Hub(kubectl, "hub")
    # The orchestrators come last: they wait for the key that their template carries.
    for last in ("hub-loadbalancer", "hub-orchestrator"):
        wait_for("all children", lambda last=last: kubectl.get("deployment", last), 120)  # type: ignore[misc]
    return hub


def resource_versions(kubectl: Kubectl) -> dict[str, str]:
    kinds = (
        "configmap,service,secret,statefulset,deployment,role,rolebinding,serviceaccount,pdb,runnerhubcluster"
    )
    return {
        f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
        for item in kubectl.items(kinds)
    }


def test_every_child_is_written_with_the_rights_of_the_chart(operator: Operator, namespace: Kubectl) -> None:
    created(namespace)
    missing = [
        f"{item['kind']}/{item['metadata']['name']}"
        for item in desired_objects(context("hub", {}))
        if namespace.get(item["kind"], item["metadata"]["name"]) is None
    ]
    assert missing == []
    secrets = {item["metadata"]["name"]: set(item["data"]) for item in namespace.items("secret")}
    assert secrets["hub-redis-credentials"] == set(CREDENTIAL_KEYS[names.REDIS])


def test_conditions_are_there_from_the_first_visit(operator: Operator, namespace: Kubectl) -> None:
    hub = created(namespace)
    conditions = {item["type"]: item for item in hub.status()["conditions"]}
    assert len(conditions) == 10
    assert conditions["Ready"]["status"] == "False"
    assert conditions["Accepted"]["status"] == "True"
    assert hub.status()["phase"] == "Creating"


def test_nothing_is_written_when_nothing_changes(operator: Operator, namespace: Kubectl) -> None:
    created(namespace)
    # The last writes are still on their way through the watches, on a busy machine for longer.
    for _ in range(3):
        wait_until_time_passed(3)
        before = resource_versions(namespace)
        wait_until_time_passed(8)
        after = resource_versions(namespace)
        if after == before:
            break
    assert after == before


def test_a_deleted_child_comes_back_and_a_changed_one_is_put_right(
    operator: Operator, namespace: Kubectl
) -> None:
    created(namespace)
    namespace("delete", "service", "hub-redis-1")
    wait_for("the Service", lambda: namespace.get("service", "hub-redis-1"), 30)
    namespace("patch", "deployment", "hub-pooler", "--type=merge", "-p", '{"spec":{"replicas":7}}')
    wait_for(
        "2 poolers", lambda: (namespace.get("deployment", "hub-pooler") or {})["spec"]["replicas"] == 2, 30
    )


def test_an_edit_reaches_the_children_and_a_removed_section_goes(
    operator: Operator, namespace: Kubectl
) -> None:
    hub = created(namespace, {"ingress": {"host": "hub.example.com"}})
    assert namespace.get("ingress", "hub-ingress") is not None
    assert hub.condition("IngressReady")["reason"] in ("Creating", "NoAddress")
    namespace.apply(manifest("hub", {"orchestrator": {"replicas": 5}, "loadBalancer": {"replicas": 3}}))
    wait_for(
        "5 orchestrators",
        lambda: (namespace.get("deployment", "hub-orchestrator") or {})["spec"]["replicas"] == 5,
        30,
    )
    wait_for("the Ingress to go", lambda: namespace.get("ingress", "hub-ingress") is None, 30)
    wait_for("the status", lambda: hub.status()["observedGeneration"] == 2, 30)


def migration_jobs(kubectl: Kubectl) -> list[dict[str, Any]]:
    return kubectl.items("job")


def ended(kubectl: Kubectl, job: str, kind: str) -> None:
    """What the Job controller writes of a Job that has ended."""
    at = "2026-01-01T00:00:00Z"
    before = "SuccessCriteriaMet" if kind == "Complete" else "FailureTarget"
    conditions = [
        {"type": name, "status": "True", "reason": "Played", "message": "by a test", "lastTransitionTime": at}
        for name in (before, kind)
    ]
    status: dict[str, Any] = {"conditions": conditions, "startTime": at, "ready": 0}
    status |= {"succeeded": 1, "completionTime": at} if kind == "Complete" else {"failed": 4}
    patch = json.dumps({"status": status})
    kubectl("patch", "job", job, "--subresource=status", "--type=merge", "-p", patch)


def test_no_orchestrator_starts_before_its_migration_has_ended_well(
    operator: Operator, namespace: Kubectl
) -> None:
    wanted = {"orchestrator": {"image": "example.test/hub:2", "migrations": {"command": ["migrate"]}}}
    namespace.apply(manifest("hub", wanted))
    hub = Hub(namespace, "hub")

    def told(words: str) -> bool:
        return words in hub.condition("OrchestratorsReady").get("message", "")

    wait_for("the wait for the database", lambda: told("waits for the database"), 90)
    assert migration_jobs(namespace) == []
    # Without a database the operator starts no migration, so its Job is made here as the operator would.
    uid = (namespace.get("rhc", "hub") or {})["metadata"]["uid"]
    body = {"metadata": {"namespace": namespace.namespace, "name": "hub", "uid": uid, "generation": 1}}
    job = migration_job(BuildContext(parse_cluster({**body, "spec": wanted}), IMAGES))
    name = job["metadata"]["name"]
    namespace("apply", "--server-side", "-f", "-", stdin=json.dumps(job))
    wait_for("the migration to be told", lambda: told(f"Job {name} migrates the database"), 60)
    ended(namespace, name, "Failed")
    wait_for("the failure", lambda: told("failed, so its pods are not started: Played: by a test"), 60)
    assert hub.condition("Accepted")["status"] == "True"
    namespace("delete", "job", name)
    wait_for("the next try", lambda: told("waits for the database"), 60)
    assert namespace.get("deployment", "hub-orchestrator") is None
    namespace("apply", "--server-side", "-f", "-", stdin=json.dumps(job))
    ended(namespace, name, "Complete")
    wait_for("the orchestrators", lambda: namespace.get("deployment", "hub-orchestrator"), 60)
    wait_until_time_passed(3)
    assert [item["metadata"]["name"] for item in migration_jobs(namespace)] == [name], "it is the record"


def test_passwords_are_made_once(operator: Operator, namespace: Kubectl) -> None:
    created(namespace)
    before = {item["metadata"]["name"]: item["data"] for item in namespace.items("secret")}
    namespace("annotate", "rhc", "hub", "touched=1")
    namespace("patch", "rhc", "hub", "--type=merge", "-p", '{"spec":{"orchestrator":{"replicas":2}}}')
    wait_for(
        "2 orchestrators",
        lambda: (namespace.get("deployment", "hub-orchestrator") or {})["spec"]["replicas"] == 2,
        30,
    )
    assert {item["metadata"]["name"]: item["data"] for item in namespace.items("secret")} == before


def test_a_lost_password_secret_is_told_and_not_made_anew(operator: Operator, namespace: Kubectl) -> None:
    hub = created(namespace)
    namespace("delete", "secret", "hub-postgres-credentials")
    wait_for(
        "it to be told", lambda: hub.condition("PostgresReady").get("reason") == "CredentialsMissing", 30
    )
    assert namespace.get("secret", "hub-postgres-credentials") is None
    namespace("delete", "secret", "hub-orchestrator-credentials")
    wait_for("the token secret", lambda: namespace.get("secret", "hub-orchestrator-credentials"), 30)


def test_an_object_of_somebody_else_is_never_touched(operator: Operator, namespace: Kubectl) -> None:
    namespace("create", "configmap", "hub-redis", "--from-literal=mine=1")
    namespace.apply(manifest())
    hub = Hub(namespace, "hub")
    wait_for("the refusal", lambda: hub.condition("Accepted").get("reason") == "NameTaken", 60)
    assert "ConfigMap" in hub.condition("Accepted")["message"]
    found = namespace.get("configmap", "hub-redis")
    assert found is not None
    assert found["data"] == {"mine": "1"}
    namespace("delete", "configmap", "hub-redis")
    wait_for("the retry", lambda: hub.condition("Accepted").get("status") == "True", 60)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"redis": {"replicas": 4}}, "redis.replicas must be odd"),
        ({"redis": {"replicas": 0}}, "should be greater than or equal to 3"),
        ({"orchestrator": {"replicas": 0}}, "spec.orchestrator.replicas"),
        ({"postgres": {"instances": 10}}, "should be less than or equal to 9"),
        ({"ingress": {"host": "http://x"}}, "ingress.host must be a DNS name"),
        ({"surprise": True}, 'unknown field "spec.surprise"'),
        ({"postgres": {"parameters": {"wal_level": "minimal"}}}, "that the operator owns"),
        ({"postgres": {"parameters": {"Bad Name": "1"}}}, "names must match"),
        ({"leaderElection": {"leaseDurationSeconds": 6}}, "leaseDurationSeconds > renewDeadlineSeconds"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(admin: Kubectl, spec: dict[str, Any], words: str) -> None:
    with pytest.raises(KubectlError) as caught:
        admin("apply", "-f", "-", stdin=json.dumps(manifest("bad", spec)))
    assert words in str(caught.value)


def test_a_name_too_long_or_no_service_name_is_refused(admin: Kubectl) -> None:
    for name, words in (("a" * 41, "at most 40 characters"), ("1hub", "must start with a letter")):
        with pytest.raises(KubectlError, match=words):
            admin("apply", "-f", "-", stdin=json.dumps(manifest(name)))


def test_every_example_is_accepted(namespace: Kubectl) -> None:
    for path in sorted((ROOT / "examples").glob("*.yaml")):
        assert yaml.safe_load(path.read_text())["kind"] == "RunnerHubCluster"
        namespace("apply", "--dry-run=server", "-f", str(path))


def test_logs_are_structured_and_hold_no_password(operator: Operator, namespace: Kubectl) -> None:
    created(namespace)
    lines = operator.log.read_text().splitlines()
    assert all(re.match(r'^\{"time": ', line) and json.loads(line) for line in lines)
    secrets = namespace(
        "get", "secret", "-o", "go-template={{range .items}}{{range .data}}{{.|base64decode}} {{end}}{{end}}"
    )
    assert len(secrets.split()) == sum(map(len, CREDENTIAL_KEYS.values())) + 1, "and the keys of tokens"
    assert not [secret for secret in secrets.split() if secret in "\n".join(lines)]
