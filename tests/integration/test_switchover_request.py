"""An annotation asks for another primary: a real operator, a real API server, and played databases and poolers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from e2e.lab.kubectl import Kubectl, wait_for
from e2e.stage import Stage
from runnerhub_operator import names
from tests.integration.conftest import PATIENT

SPEC: dict[str, Any] = {"postgres": {"instances": 2}}
MEMBERS = {"hub-postgres-0", "hub-postgres-1"}


@pytest.fixture(scope="module")
def hub() -> Iterator[Kubectl]:
    """kubectl in the namespace of a cluster that is Ready, with an operator at work."""
    with Stage() as stage:
        stage.create_namespaces("asked")
        stage.start_operator("operator-0", **PATIENT)
        kubectl = stage.kubectl.in_namespace("asked")
        body = {
            "apiVersion": f"{names.API_GROUP}/{names.API_VERSION}",
            "kind": names.KIND,
            "metadata": {"name": "hub", "namespace": "asked"},
            "spec": SPEC,
        }
        kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(body))
        wait_for("the cluster to be Ready", lambda: status(kubectl).get("phase") == "Ready", 240)
        yield kubectl


def status(kubectl: Kubectl) -> dict[str, Any]:
    found: dict[str, Any] = (kubectl.get("runnerhubcluster", "hub") or {}).get("status", {})
    return found


def ask(kubectl: Kubectl, member: str) -> None:
    kubectl(
        "annotate", "runnerhubcluster", "hub", "--overwrite", f"{names.ANNOTATION_SWITCH_PRIMARY}={member}"
    )


def result(kubectl: Kubectl, member: str) -> str | None:
    """What became of a request for a member."""
    found = status(kubectl)["postgres"].get("switchover", {})
    return found.get("result") if found.get("request") == member else None


def reasons(kubectl: Kubectl) -> set[str]:
    return {item["reason"] for item in kubectl.items("event")}


def test_the_wanted_member_becomes_primary_and_the_disruption_lease_is_given_back(hub: Kubectl) -> None:
    (replica,) = MEMBERS - {status(hub)["postgres"]["primary"]}
    ask(hub, replica)
    wait_for("the request to be done", lambda: result(hub, replica) == "Done", 60)
    found = status(hub)
    assert found["postgres"]["primary"] == replica
    assert found["failovers"][0]["cause"] == "Requested"
    assert "SwitchoverPostponed" not in reasons(hub)

    def free() -> bool:
        lease = hub.get("lease", "hub-disruption") or {}
        return lease.get("spec", {}).get("holderIdentity") in (None, "")

    wait_for("the Lease to be free", free, 60)
    body = hub.get("runnerhubcluster", "hub") or {}
    assert body["metadata"]["annotations"] == {names.ANNOTATION_SWITCH_PRIMARY: replica}


def test_a_member_that_there_is_not_is_refused(hub: Kubectl) -> None:
    ask(hub, "hub-postgres-7")
    wait_for("the request to be refused", lambda: result(hub, "hub-postgres-7") == "Refused", 60)
    wait_for("the Event", lambda: "SwitchoverRefused" in reasons(hub), 30)
    assert status(hub)["phase"] == "Ready"
    hub("annotate", "runnerhubcluster", "hub", f"{names.ANNOTATION_SWITCH_PRIMARY}-")
    wait_for("the request to be forgotten", lambda: "switchover" not in status(hub)["postgres"], 60)
