"""The shared storage: who mounts it, what is made for it and when, and that it outlives the cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runnerhub_operator.agent.settings import BucketSettings, read_settings
from runnerhub_operator.api.pod import BUCKET_VARIABLES, OPERATOR_OWNED_VARIABLES
from runnerhub_operator.errors import InvalidSpecError
from runnerhub_operator.plan import ClusterMemory, Plan, make_plan
from runnerhub_operator.resources.storage import STORAGE_PATH
from runnerhub_operator.snapshot import Volume
from tests.generate import IMAGES
from tests.unit.agent.test_orchestrator_manifests import build, container, environment, pod
from tests.unit.plan.builders import children, cluster, snapshot

NFS = {"nfs": {"server": "nfs.example.com", "path": "/exports/runnerhub"}}
MADE = {"claim": {"size": "20Gi", "storageClassName": "shared"}}
EXISTING = {"claim": {"name": "artifacts"}}
BUCKET = {
    "s3": {
        "bucket": "logs",
        "prefix": "ci/hub",
        "endpoint": "https://store.example.com:9000",
        "credentialsSecretName": "store",
        "caConfigMapName": "store-ca",
    }
}


def plan(storage: dict[str, Any] | None, *volumes: Volume, memory: ClusterMemory | None = None) -> Plan:
    spec = {} if storage is None else {"sharedStorage": storage}
    # Claims are cached as volumes, and what belongs to no namespace is not watched.
    there = {key: item for key, item in children(spec=spec).items() if "Volume" not in key[0]}
    return make_plan(cluster(spec), snapshot(children=there, volumes=volumes), IMAGES, memory)


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


def test_a_share_that_is_lost_is_written_again_also_when_nothing_else_changed() -> None:
    name = made(plan(NFS))["PersistentVolumeClaim"]["metadata"]["name"]
    settled = plan(NFS, volume(name)).memory
    assert settled.unchanged is not None, "or the test would prove nothing"
    assert set(made(plan(NFS, volume(name, bound=False), memory=settled))) == {"PersistentVolume"}


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


def test_a_bucket_is_told_and_not_mounted() -> None:
    manifests = build(sharedStorage=BUCKET)
    assert made(plan(BUCKET)) == {}
    assert "shared-storage" not in {item["name"] for item in pod(manifests)["volumes"]}
    given = {
        item["name"]: item["value"]
        for item in container(manifests, "orchestrator")["env"]
        if item["name"].startswith(("AWS", "S3")) and "value" in item
    }
    assert given == {
        "S3_BUCKET": "logs",
        "S3_PREFIX": "ci/hub",
        "S3_FORCE_PATH_STYLE": "true",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": "https://store.example.com:9000",
        "AWS_CA_BUNDLE": "/etc/runnerhub/s3-ca/ca.crt",
    }
    secret = {
        item["name"]: item["valueFrom"]["secretKeyRef"]
        for item in container(manifests, "orchestrator")["env"]
        if item.get("valueFrom", {}).get("secretKeyRef", {}).get("name") == "store"
    }
    assert secret == {
        "AWS_ACCESS_KEY_ID": {"name": "store", "key": "AWS_ACCESS_KEY_ID"},
        "AWS_SECRET_ACCESS_KEY": {"name": "store", "key": "AWS_SECRET_ACCESS_KEY"},
        "AWS_SESSION_TOKEN": {"name": "store", "key": "AWS_SESSION_TOKEN", "optional": True},
    }


def test_the_agent_reads_a_buckets_credentials_from_files_that_kubernetes_renews() -> None:
    manifests = build(sharedStorage=BUCKET)
    agent, found = container(manifests, "ha-agent"), environment(manifests, "ha-agent")
    read = read_settings(found).bucket
    assert read == BucketSettings(
        "logs",
        "ci/hub",
        "us-east-1",
        "https://store.example.com:9000",
        path_style=True,
        credentials_folder=Path("/etc/runnerhub/s3-credentials"),
        ca_file=Path("/etc/runnerhub/s3-ca/ca.crt"),
    )
    assert "AWS_SECRET_ACCESS_KEY" not in {item["name"] for item in agent["env"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in agent["volumeMounts"]}
    volumes = {item["name"]: item for item in pod(manifests)["volumes"]}
    credentials = volumes[mounts["/etc/runnerhub/s3-credentials"]]["secret"]
    assert credentials["secretName"] == "store"
    assert credentials["optional"], "the orchestrator's variables tell what is missing, a mount only hangs"
    assert volumes[mounts["/etc/runnerhub/s3-ca"]]["configMap"]["name"] == "store-ca"
    mounted = {mount["name"] for mount in container(manifests, "orchestrator")["volumeMounts"]}
    assert ("s3-ca" in mounted, "s3-credentials" in mounted) == (True, False)


def test_a_bucket_of_amazon_leaves_identity_and_region_to_the_cloud() -> None:
    manifests = build(sharedStorage={"s3": {"bucket": "logs"}})
    for name in ("orchestrator", "ha-agent"):
        given = {item["name"] for item in container(manifests, name)["env"]}
        assert {item for item in given if item.startswith(("AWS", "S3"))} == {
            "S3_BUCKET",
            "S3_FORCE_PATH_STYLE",
        }
    assert read_settings(environment(manifests, "ha-agent")).bucket == BucketSettings("logs")
    assert environment(manifests, "orchestrator")["S3_FORCE_PATH_STYLE"] == "false"


@pytest.mark.parametrize(
    ("given", "style"),
    [({"pathStyle": True}, "true"), ({"endpoint": "https://store", "pathStyle": False}, "false")],
)
def test_the_style_of_urls_can_be_chosen(given: dict[str, Any], style: str) -> None:
    manifests = build(sharedStorage={"s3": {"bucket": "logs", **given}})
    assert environment(manifests, "orchestrator")["S3_FORCE_PATH_STYLE"] == style


def test_variables_of_a_bucket_are_reserved_only_when_there_is_one() -> None:
    manifests = build(sharedStorage=BUCKET)
    decided = {item["name"] for item in container(manifests, "orchestrator")["env"]}
    assert {name for name in decided if name.startswith(("AWS", "S3_"))} == set(BUCKET_VARIABLES)
    assert decided <= {*BUCKET_VARIABLES, *OPERATOR_OWNED_VARIABLES}
    for name in BUCKET_VARIABLES:
        own = {"env": [{"name": name, "value": "x"}]}
        with pytest.raises(
            InvalidSpecError, match=r"orchestrator\.env must not set a variable that it decides"
        ):
            cluster({"sharedStorage": BUCKET, "orchestrator": own})
        assert environment(build(orchestrator=own, sharedStorage=NFS), "orchestrator")[name] == "x"


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ({}, "exactly one of claim, nfs, s3"),
        ({**NFS, **MADE}, "exactly one of claim, nfs, s3"),
        ({**NFS, **BUCKET}, "exactly one of claim, nfs, s3"),
        ({"claim": {}}, "exactly one of name, size"),
        ({"claim": {"name": "a", "size": "1Gi"}}, "exactly one of name, size"),
        ({"claim": {"name": "a", "storageClassName": "b"}}, "goes with size"),
        ({"nfs": {"server": "s", "path": "relative"}}, "sharedStorage.nfs.path"),
        ({"nfs": {"server": "s", "path": "/a/../b"}}, "sharedStorage.nfs.path"),
        ({"s3": {}}, "sharedStorage.s3.bucket"),
        ({"s3": {"bucket": "No_Name"}}, "sharedStorage.s3.bucket"),
        ({"s3": {"bucket": "logs", "prefix": "/ci"}}, "sharedStorage.s3.prefix"),
        ({"s3": {"bucket": "logs", "prefix": "ci/../x"}}, "sharedStorage.s3.prefix"),
        ({"s3": {"bucket": "logs", "endpoint": "store.example.com"}}, "sharedStorage.s3.endpoint"),
        (
            {"s3": {"bucket": "logs", "endpoint": "https://store.example.com/logs"}},
            "sharedStorage.s3.endpoint",
        ),
        ({"s3": {"bucket": "logs", "endpoint": "https://me:word@store"}}, "sharedStorage.s3.endpoint"),
        ({"s3": {"bucket": "logs", "caConfigMapName": "ca"}}, "goes with an endpoint of https"),
        (
            {"s3": {"bucket": "logs", "endpoint": "http://store:9000", "caConfigMapName": "ca"}},
            "goes with an endpoint of https",
        ),
    ],
)
def test_what_names_no_storage_or_two_is_refused(storage: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSpecError, match=words):
        cluster({"sharedStorage": storage})
