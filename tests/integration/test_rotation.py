"""New passwords by an annotation on the Secret: a real operator and a real API server."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from e2e.lab.kubectl import Kubectl, KubectlError, wait_for
from e2e.stage import Stage
from runnerhub_operator import names
from tests.integration.conftest import PATIENT, denial

SECRET = "hub-postgres-credentials"
MARK = names.ANNOTATION_MOUNTED


@pytest.fixture(scope="module")
def hub() -> Iterator[Kubectl]:
    """kubectl in the namespace of a cluster that is Ready, with an operator at work."""
    with Stage() as stage:
        stage.create_namespaces("rotated")
        stage.start_operator("operator-0", **PATIENT)
        kubectl = stage.kubectl.in_namespace("rotated")
        body = {
            "apiVersion": f"{names.API_GROUP}/{names.API_VERSION}",
            "kind": names.KIND,
            "metadata": {"name": "hub", "namespace": "rotated"},
            "spec": {"postgres": {"instances": 2}},
        }
        kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(body))

        def is_ready() -> bool:
            found = kubectl.get("runnerhubcluster", "hub") or {}
            return bool(found.get("status", {}).get("phase") == "Ready")

        wait_for("the cluster to be Ready", is_ready, 240)
        assert marks(kubectl, names.POSTGRES) == {None}, "pods start with what there is"
        yield kubectl


def secret(hub: Kubectl, name: str = SECRET) -> dict[str, Any]:
    found = hub.get("secret", name)
    assert found is not None
    return found


def passwords(hub: Kubectl) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in secret(hub)["data"].items()}


def marks(hub: Kubectl, component: str) -> set[str | None]:
    pods = hub.items("pod", f"{names.LABEL_COMPONENT}={component}")
    assert pods
    return {pod["metadata"].get("annotations", {}).get(MARK) for pod in pods}


def reasons(hub: Kubectl) -> set[str]:
    return {item["reason"] for item in hub.items("event")}


def uids(hub: Kubectl) -> set[str]:
    return {pod["metadata"]["uid"] for pod in hub.items("pod")}


def test_an_annotation_makes_one_password_anew_and_tells_the_pods(hub: Kubectl) -> None:
    before, pods = passwords(hub), uids(hub)
    hub("annotate", "secret", SECRET, f"{names.ANNOTATION_ROTATE}=app-password")
    wait_for("a new password", lambda: passwords(hub)["app-password"] != before["app-password"], 60)
    after = passwords(hub)
    assert len(after["app-password"]) == 32
    assert {key: word for key, word in after.items() if key != "app-password"} == {
        key: word for key, word in before.items() if key != "app-password"
    }
    assert names.ANNOTATION_ROTATE not in secret(hub)["metadata"].get("annotations", {})
    version = f"postgres-{secret(hub)['metadata']['resourceVersion']}"
    for component in (names.POSTGRES, names.POOLER, names.ORCHESTRATOR):
        wait_for(f"the marks on {component}", lambda of=component: marks(hub, of) == {version}, 60)
    assert marks(hub, names.REDIS) == {None}
    wait_for("the Event", lambda: "PasswordsChanged" in reasons(hub), 30)
    assert uids(hub) == pods, "nothing restarts"


def test_a_value_that_a_person_writes_is_told_to_the_pods(hub: Kubectl) -> None:
    word = base64.b64encode(b"chosen").decode()
    hub("patch", "secret", SECRET, "-p", f'{{"data": {{"monitoring-password": "{word}"}}}}')
    version = f"postgres-{secret(hub)['metadata']['resourceVersion']}"
    wait_for("the marks", lambda: marks(hub, names.POOLER) == {version}, 60)
    assert passwords(hub)["monitoring-password"] == "chosen"


POOLERS_STAY = denial(
    "poolers-stay",
    f"oldObject.metadata.labels['{names.LABEL_COMPONENT}'] != '{names.POOLER}'",
    "poolers stay as they are",
)


def test_pods_that_could_not_be_told_are_told_later(hub: Kubectl) -> None:
    hub("apply", "-f", "-", stdin=yaml.safe_dump_all(POOLERS_STAY))
    pod = hub.items("pod", f"{names.LABEL_COMPONENT}={names.POOLER}")[0]["metadata"]["name"]

    def denied() -> bool:
        try:
            hub("label", "pod", pod, "example.com/try=1", "--overwrite")
        except KubectlError as error:
            return "poolers stay as they are" in str(error)
        return False

    def accepted() -> bool:
        conditions = (hub.get("runnerhubcluster", "hub") or {})["status"]["conditions"]
        return next(item["status"] for item in conditions if item["type"] == "Accepted") == "True"

    try:
        wait_for("the policy to be in effect", denied, 60)
        word = base64.b64encode(b"another").decode()
        hub("patch", "secret", SECRET, "-p", f'{{"data": {{"monitoring-password": "{word}"}}}}')
        wait_for("the refusal to be told", lambda: not accepted(), 60)
    finally:
        hub("delete", "--ignore-not-found", "-f", "-", stdin=yaml.safe_dump_all(POOLERS_STAY))
    version = f"postgres-{secret(hub)['metadata']['resourceVersion']}"
    wait_for("the marks", lambda: marks(hub, names.POOLER) == {version}, 90)
    wait_for("all to be well", accepted, 60)


def test_what_cannot_be_made_is_refused(hub: Kubectl) -> None:
    queue = "hub-redis-credentials"
    before = secret(hub, queue)["data"]
    hub("annotate", "secret", queue, f"{names.ANNOTATION_ROTATE}=root-password")
    wait_for("the Event", lambda: "RotationRefused" in reasons(hub), 60)
    wait_for(
        "the annotation to go",
        lambda: names.ANNOTATION_ROTATE not in secret(hub, queue)["metadata"].get("annotations", {}),
        60,
    )
    assert secret(hub, queue)["data"] == before
