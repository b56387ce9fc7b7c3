"""The shared storage: who mounts it, what is made for it and when, and that it outlives the cluster."""

from __future__ import annotations

from typing import Any

import pytest

from runnerhub_operator.agent.settings import read_settings
from runnerhub_operator.errors import InvalidSpecError
from runnerhub_operator.plan import Plan, make_plan
from runnerhub_operator.resources.storage import STORAGE_PATH
from runnerhub_operator.snapshot import Volume
from tests.generate import IMAGES
from tests.unit.agent.test_orchestrator_manifests import build, container, environment, pod
from tests.unit.plan.builders import children, cluster, snapshot

NFS = {"nfs": {"server": "nfs.example.com", "path": "/exports/runnerhub"}}
MADE = {"claim": {"size": "20Gi", "storageClassName": "shared"}}
EXISTING = {"claim": {"name": "artifacts"}}


def plan(storage: dict[str, Any] | None, *volumes: Volume) -> Plan:
    spec = {} if storage is None else {"sharedStorage": storage}
    # Claims are cached as volumes, and what belongs to no namespace is not watched.
    there = {key: item for key, item in children(spec=spec).items() if "Volume" not in key[0]}
    return make_plan(cluster(spec), snapshot(children=there, volumes=volumes), IMAGES, None)


def made(found: Plan) -> dict[str, dict[str, Any]]:
    return {item["kind"]: item for item in found.objects if item["kind"].startswith("PersistentVolume")}


def volume(name: str, *, bound: bool = True, gib: int = 20) -> Volume:
    size = gib * 1024**3
    return Volume(name, f"uid-{name}", "shared", "shared", bound, size, size, "", "")


@pytest.mark.parametrize("storage", [NFS, MADE, EXISTING])
def test_orchestrator_and_agent_mount_it_where_the_document_says(storage: dict[str, Any]) -> None:
    manifests = build(sharedStorage=storage)
    (claim,) = [item for item in pod(manifests)["volumes"] if item["name"] == "shared-storage"]
    assert claim["persistentVolumeClaim"]["claimName"]
    for name in ("orchestrator", "ha-agent"):
        mounts = {mount["name"]: mount["mountPath"] for mount in container(manifests, name)["volumeMounts"]}
        assert mounts["shared-storage"] == environment(manifests, name)["SHARED_STORAGE_PATH"] == STORAGE_PATH
    assert str(read_settings(environment(manifests, "ha-agent")).storage_path) == STORAGE_PATH


def test_without_it_there_is_none() -> None:
    manifests = build()
    assert "shared-storage" not in {item["name"] for item in pod(manifests)["volumes"]}
    assert "SHARED_STORAGE_PATH" not in environment(manifests, "orchestrator")
    assert made(plan(None)) == {}


def test_an_nfs_share_has_a_volume_and_a_claim_that_belong_together() -> None:
    found = made(plan(NFS))
    share, claim = found["PersistentVolume"], found["PersistentVolumeClaim"]
    assert share["spec"]["nfs"] == {"server": "nfs.example.com", "path": "/exports/runnerhub"}
    assert share["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert share["spec"]["claimRef"]["name"] == claim["metadata"]["name"]
    assert claim["spec"]["volumeName"] == share["metadata"]["name"]
    assert claim["spec"]["storageClassName"] == "", "no provisioner may make another one"
    assert "namespace" not in share["metadata"]
    assert share["metadata"]["name"].startswith("d-hub-shared-"), "another namespace has another one"
    given = environment(build(sharedStorage=NFS), "orchestrator")
    assert (given["NFS_SERVER"], given["NFS_MOUNT_POINT"]) == ("nfs.example.com", "/exports/runnerhub")


def test_another_share_has_another_claim() -> None:
    other = {"nfs": {**NFS["nfs"], "path": "/exports/other"}}
    first, second = made(plan(NFS)), made(plan(other))
    assert (
        first["PersistentVolumeClaim"]["metadata"]["name"]
        != second["PersistentVolumeClaim"]["metadata"]["name"]
    )


def test_what_is_there_is_not_written_again() -> None:
    name = made(plan(NFS))["PersistentVolumeClaim"]["metadata"]["name"]
    assert set(made(plan(NFS, volume(name, bound=False)))) == {"PersistentVolume"}
    assert made(plan(NFS, volume(name))) == {}
    assert made(plan(MADE, volume("hub-shared"))) == {}


def test_claims_and_volumes_outlive_the_cluster() -> None:
    for item in (*made(plan(NFS)).values(), *made(plan(MADE)).values()):
        assert "ownerReferences" not in item["metadata"]
        assert item["metadata"]["labels"]["runnerhub.io/cluster"] == "hub"


def test_an_existing_claim_is_only_mounted() -> None:
    assert made(plan(EXISTING)) == {}


def test_a_claim_of_ours_grows_with_the_spec() -> None:
    larger = {"claim": {**MADE["claim"], "size": "30Gi"}}
    (step,) = plan(larger, volume("hub-shared")).growth
    assert (step.claim, step.size) == ("hub-shared", "30Gi")
    assert plan(MADE, volume("hub-shared")).growth == ()


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ({}, "exactly one of claim, nfs"),
        ({**NFS, **MADE}, "exactly one of claim, nfs"),
        ({"claim": {}}, "exactly one of name, size"),
        ({"claim": {"name": "a", "size": "1Gi"}}, "exactly one of name, size"),
        ({"claim": {"name": "a", "storageClassName": "b"}}, "goes with size"),
        ({"nfs": {"server": "s", "path": "relative"}}, "sharedStorage.nfs.path"),
        ({"nfs": {"server": "s", "path": "/a/../b"}}, "sharedStorage.nfs.path"),
    ],
)
def test_what_names_no_storage_or_two_is_refused(storage: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSpecError, match=words):
        cluster({"sharedStorage": storage})
