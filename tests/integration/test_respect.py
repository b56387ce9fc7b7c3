"""What belongs to others is left alone, what is the operator's is put right, and a plan tells it beforehand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from apiserver import ApiServer
from e2e.lab.kubectl import Kubectl, wait_for
from kindbed import paths
from tests.integration.conftest import Operator, Start, until_it_leads, wait_until_time_passed
from tests.integration.test_reconcile import created, manifest


@pytest.fixture
def operator(start_operator: Start) -> Operator:
    """One active operator that looks at its clusters every second, so that what it leaves alone it has seen soon."""
    return until_it_leads(start_operator("operator-0", RUNNERHUB_PROBE_INTERVAL_SECONDS="1"))


def edit(kubectl: Kubectl, spec: dict[str, Any]) -> None:
    kubectl("patch", "rhc", "hub", "--type=merge", "-p", json.dumps({"spec": spec}))


def replicas(kubectl: Kubectl, name: str = "hub-orchestrator") -> int:
    found: int = (kubectl.get("deployment", name) or {})["spec"]["replicas"]
    return found


def test_a_paused_cluster_is_left_alone_until_it_goes_on(operator: Operator, namespace: Kubectl) -> None:
    hub = created(namespace)
    edit(namespace, {"paused": True})
    wait_for("the pause", lambda: hub.condition("Progressing").get("reason") == "Paused", 30)
    edit(namespace, {"orchestrator": {"replicas": 5}, "ingress": {"host": "hub.example.com"}})
    namespace("delete", "service", "hub-redis-1")
    wait_for("it to be told", lambda: "objects differ" in hub.condition("Progressing")["message"], 30)
    wait_until_time_passed(3)
    assert replicas(namespace) == 3
    assert namespace.get("ingress", "hub-ingress") is None
    assert namespace.get("service", "hub-redis-1") is None
    edit(namespace, {"paused": False})
    wait_for("5 orchestrators", lambda: replicas(namespace) == 5, 30)
    wait_for("the Service", lambda: namespace.get("service", "hub-redis-1"), 30)


def test_a_size_set_by_an_autoscaler_is_not_fought_over(operator: Operator, namespace: Kubectl) -> None:
    hub = created(namespace)
    namespace("scale", "deployment", "hub-orchestrator", "--replicas=5")
    wait_for("it to be told", lambda: "scaled by" in hub.condition("OrchestratorsReady")["message"], 30)
    namespace("annotate", "service", "hub", "runnerhub.io/applied-hash=0", "--overwrite")
    wait_until_time_passed(3)
    assert replicas(namespace) == 5
    namespace("scale", "deployment", "hub-orchestrator", "--replicas=3")
    edit(namespace, {"orchestrator": {"replicas": 4}})
    wait_until_time_passed(2)
    assert replicas(namespace) == 3, "whoever scales it goes on doing so"


def test_a_status_that_somebody_scribbled_on_is_written_anew(operator: Operator, namespace: Kubectl) -> None:
    hub = created(namespace)
    wait_for("a status", lambda: hub.status()["phase"] == "Creating", 30)
    scribble = {
        "status": {"phase": "Fine", "postgres": {"primary": "mine"}, "failovers": [], "conditions": []}
    }
    namespace("patch", "rhc", "hub", "--subresource=status", "--type=merge", "-p", json.dumps(scribble))
    wait_for("the real phase", lambda: hub.status()["phase"] == "Creating", 30)
    wait_for("the conditions", lambda: len(hub.status()["conditions"]) == 10, 30)
    assert "primary" not in hub.status().get("postgres", {})


def test_a_child_without_its_labels_is_found_again(operator: Operator, namespace: Kubectl) -> None:
    created(namespace)
    namespace(
        "label", "service", "hub-redis-0", "runnerhub.io/cluster-", "app.kubernetes.io/managed-by=somebody",
        "--overwrite",
    )  # fmt: skip

    def labelled() -> bool:
        labels = (namespace.get("service", "hub-redis-0") or {})["metadata"]["labels"]
        return bool(labels.get("runnerhub.io/cluster") == "hub")

    wait_for("the labels", labelled, 30)


def test_a_share_whose_claim_was_deleted_is_offered_again_and_not_written_all_the_time(
    admin: Kubectl, operator: Operator, namespace: Kubectl
) -> None:
    admin("create", "clusterrole", "volumes", "--verb=get,create,patch", "--resource=persistentvolumes")
    admin(
        "create", "clusterrolebinding", "volumes", "--clusterrole=volumes",
        "--serviceaccount=runnerhub-system:runnerhub-operator",
    )  # fmt: skip
    created(namespace, {"sharedStorage": {"nfs": {"server": "nfs.example.com", "path": "/exports"}}})
    (share,) = wait_for("the volume", lambda: admin.items("persistentvolume"), 60)
    name = share["metadata"]["name"]
    # As Kubernetes' controller leaves it when the claim has been deleted.
    stale = {"spec": {"claimRef": {"uid": "former"}}}
    admin("patch", "persistentvolume", name, "--type=merge", "-p", json.dumps(stale))
    released = {"status": {"phase": "Released"}}
    admin(
        "patch", "persistentvolume", name, "--subresource=status", "--type=merge", "-p", json.dumps(released)
    )

    def reference() -> dict[str, Any]:
        found: dict[str, Any] = (admin.get("persistentvolume", name) or {})["spec"]["claimRef"]
        return found

    wait_for("the volume to be free", lambda: "uid" not in reference(), 60)
    assert (reference()["namespace"], reference()["name"]) == (
        share["spec"]["claimRef"]["namespace"],
        share["spec"]["claimRef"]["name"],
    )
    available = {"status": {"phase": "Available"}}
    admin(
        "patch", "persistentvolume", name, "--subresource=status", "--type=merge", "-p", json.dumps(available)
    )

    def calls(verb: str) -> float:
        pattern = rf'api_calls_total{{kind="PersistentVolume",status="\d+",verb="{verb}"}} (\S+)'
        return sum(float(number) for number in re.findall(pattern, operator.metrics()))

    looks, writes = calls("get"), calls("patch")
    wait_for("some more visits", lambda: calls("get") >= looks + 2, 60)
    assert calls("patch") <= writes + 1, "one more may have been under way"


def test_another_operator_version_restarts_nothing(start_operator: Start, namespace: Kubectl) -> None:
    first = start_operator("operator-old")
    hub = created(namespace)
    wait_for("the orchestrators", lambda: namespace.get("deployment", "hub-orchestrator"), 30)
    wait_until_time_passed(2)
    kinds = ("deployment", "statefulset")
    before = {item["metadata"]["name"]: item["spec"] for kind in kinds for item in namespace.items(kind)}
    first.stop()
    newer = {
        f"RUNNERHUB_IMAGE_{name}": f"example.test/{name.lower()}:9"
        for name in ("POSTGRES", "REDIS", "ORCHESTRATOR")
    }
    start_operator("operator-new", **newer)
    wait_for(
        "it to be told",
        lambda: hub.status().get("pendingUpdates") == ["postgres", "redis", "orchestrator"],
        60,
    )
    wait_until_time_passed(2)
    assert {
        item["metadata"]["name"]: item["spec"] for kind in kinds for item in namespace.items(kind)
    } == before
    edit(namespace, {"updatePolicy": "Immediate"})

    def image() -> str:
        found: str = namespace.items("statefulset")[0]["spec"]["template"]["spec"]["containers"][0]["image"]
        return found

    wait_for("the new image", lambda: image() == "example.test/postgres:9", 30)
    wait_for("nothing to wait for", lambda: not hub.status().get("pendingUpdates"), 30)


def plan(kubeconfig: Path, kubectl: Kubectl, spec: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """What `runnerhub-operator plan` says about a spec."""
    return subprocess.run(
        [
            sys.executable, "-m", "runnerhub_operator", "plan", "-f", "-",
            "-n", kubectl.namespace, "--kubeconfig", kubeconfig,
        ],
        input=yaml.safe_dump(manifest("hub", spec)),
        env={**os.environ, "PYTHONPATH": str(paths.REPOSITORY / "operator")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )  # fmt: skip


def test_a_plan_tells_what_would_change_and_restart_and_changes_nothing(
    operator: Operator, server: ApiServer, namespace: Kubectl, tmp_path: Path
) -> None:
    new = plan(server.kubeconfig, namespace, {})
    assert "create  StatefulSet hub-postgres" in new.stdout, new.stderr
    assert namespace.get("rhc", "hub") is None

    created(namespace)
    wait_until_time_passed(2)
    assert "nothing would change" in plan(server.kubeconfig, namespace, {}).stdout
    changed = plan(
        server.kubeconfig,
        namespace,
        {"orchestrator": {"image": "example.test/other:2"}, "redis": {"image": "example.test/r:2"}},
    ).stdout
    told = next(line for line in changed.splitlines() if "change  Deployment hub-orchestrator: " in line)
    assert "spec.template.spec.containers[orchestrator].image" in told
    assert changed.index("1. redis") < changed.index("2. orchestrator")
    assert "example.test" not in namespace("get", "deployment", "hub-orchestrator", "-o", "yaml")

    token = namespace.in_namespace("runnerhub-system")("create", "token", "runnerhub-operator").strip()
    config = json.loads(server.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    as_operator = tmp_path / "kubeconfig"
    as_operator.write_text(json.dumps(config))
    own = plan(as_operator, namespace, {"redis": {"image": "example.test/r:2"}})
    assert "1. redis" in own.stdout, own.stderr
    assert "was not asked" in own.stderr

    refused = plan(server.kubeconfig, namespace, {"redis": {"replicas": 4}})
    assert refused.returncode == 1
    assert "redis.replicas must be odd" in refused.stderr


def test_the_autoscaler_of_the_spec_takes_the_size_over_and_gives_it_back(
    operator: Operator, namespace: Kubectl
) -> None:
    created(namespace)
    edit(namespace, {"orchestrator": {"autoscaling": {"minReplicas": 2, "maxReplicas": 9}}})
    wait_for("the autoscaler", lambda: namespace.get("hpa", "hub-orchestrator"), 60)
    wait_until_time_passed(3)
    assert replicas(namespace) == 3, "nothing was lost on the way"
    namespace("scale", "deployment", "hub-orchestrator", "--replicas=6")
    wait_until_time_passed(3)
    assert replicas(namespace) == 6
    edit(namespace, {"orchestrator": {"autoscaling": None, "replicas": 4}})
    wait_for("the size of the spec", lambda: replicas(namespace) == 4, 60)
    wait_for("the autoscaler to go", lambda: namespace.get("hpa", "hub-orchestrator") is None, 60)


# Does what a webhook of a platform does that has its own mind about resources.
MUTATION = """
apiVersion: admissionregistration.k8s.io/v1beta1
kind: MutatingAdmissionPolicy
metadata: {name: requests}
spec:
  matchConstraints:
    resourceRules:
      - {apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments, statefulsets]}
  failurePolicy: Fail
  reinvocationPolicy: Never
  mutations:
    - patchType: JSONPatch
      jsonPatch:
        expression: >-
          [JSONPatch{op: "replace", path: "/spec/template/spec/containers/0/resources/requests/cpu", value: "250m"}]
---
apiVersion: admissionregistration.k8s.io/v1beta1
kind: MutatingAdmissionPolicyBinding
metadata: {name: requests}
spec:
  policyName: requests
  matchResources:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: NAMESPACE}}
"""


# What the mutation is tried on.
TRIAL: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "trial"},
    "spec": {
        "selector": {"matchLabels": {"app": "trial"}},
        "template": {
            "metadata": {"labels": {"app": "trial"}},
            "spec": {
                "containers": [{"name": "trial", "image": "none", "resources": {"requests": {"cpu": "1m"}}}]
            },
        },
    },
}

WORKLOADS = (
    ("StatefulSet", "hub-postgres"),
    ("StatefulSet", "hub-redis"),
    ("Deployment", "hub-pooler"),
    ("Deployment", "hub-orchestrator"),
    ("Deployment", "hub-loadbalancer"),
)


def test_what_an_admission_webhook_changes_is_not_fought_over(operator: Operator, namespace: Kubectl) -> None:
    policies = [*yaml.safe_load_all(MUTATION.replace("NAMESPACE", namespace.namespace))]

    def mutated() -> bool:
        tried = namespace("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(TRIAL))
        return first_cpu(json.loads(tried)) == "250m"

    for policy in policies:
        namespace.apply(policy)
    try:
        wait_for("the policy to be in effect", mutated, 60)
        created(namespace)
        for kind, name in WORKLOADS:
            told = f"{kind} {name} stays other than written"
            wait_for("it to be told", lambda told=told: told in operator.log.read_text(), 60)  # type: ignore[misc]
            # As its controller would, which does not run here: the next one waits for it.
            generation = (namespace.get(kind, name) or {})["metadata"]["generation"]
            status = json.dumps({"status": {"observedGeneration": generation}})
            namespace("patch", kind, name, "--subresource=status", "--type=merge", "-p", status)
        before = operator.log.read_text()
        wait_until_time_passed(12)
        since = operator.log.read_text().removeprefix(before)
        assert "stays other than written" not in since
        assert "changed " not in since
        assert cpu(namespace, "statefulset", "hub-postgres") == "250m"
    finally:
        for policy in policies:
            namespace("delete", policy["kind"], policy["metadata"]["name"])
    wait_for("the policy to be gone", lambda: not mutated(), 60)
    namespace("annotate", "deployment", "hub-pooler", "runnerhub.io/applied-hash=0", "--overwrite")
    wait_for("our own again", lambda: cpu(namespace, "deployment", "hub-pooler") != "250m", 30)


def cpu(kubectl: Kubectl, kind: str, name: str) -> str:
    """What the first container of a workload asks for."""
    return first_cpu(kubectl.get(kind, name) or {})


def first_cpu(workload: dict[str, Any]) -> str:
    """The same of a workload that was read."""
    found: str = workload["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"]
    return found
