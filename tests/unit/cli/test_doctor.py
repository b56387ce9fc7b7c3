"""The doctor's judgements over facts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from runnerhub_cli.doctor.cluster import place
from runnerhub_cli.doctor.facts import (
    OPERATOR_RIGHTS,
    USER_RIGHTS,
    Amounts,
    Claim,
    ClusterFacts,
    Event,
    Facts,
    Node,
    NodeClock,
    Operator,
    Right,
    StorageClass,
    Wanted,
    requests_of,
)
from runnerhub_cli.doctor.findings import Finding, Level, exit_code
from runnerhub_cli.doctor.judge import judge
from runnerhub_cli.doctor.report import counted, findings_screen
from runnerhub_cli.errors import Exit
from runnerhub_cli.kubectl import Unknown
from runnerhub_cli.objects import Lease, Pod
from runnerhub_cli.operators import Installation
from runnerhub_cli.output import text_of
from runnerhub_cli.picture import look
from runnerhub_operator.api.crd import custom_resource_definition
from runnerhub_operator.resources.credentials import CREDENTIAL_KEYS
from runnerhub_operator.watches import sources
from tests.unit.cli.scenes import (
    migration_failed,
    no_primary,
    operator_gone,
    picture_of,
    recorded,
    runners_refused,
    set_condition,
)

GIB = Decimal(2**30)
NOW = picture_of(recorded("healthy")).now
ROOM = Amounts(Decimal(2), 4 * GIB)
POD = Amounts(Decimal("0.5"), GIB)
KEYS = {
    "hub-postgres-credentials": frozenset(
        {
            "superuser-password",
            "replication-password",
            "app-password",
            "restapi-password",
            "monitoring-password",
        }
    ),
    "hub-redis-credentials": frozenset(CREDENTIAL_KEYS["redis"]),
    "hub-orchestrator-credentials": frozenset({"jwt-secret"}),
}


def _pod(name: str, *, ready: bool = True, **status: object) -> Pod:
    conditions = [{"type": "Ready", "status": str(ready), "lastTransitionTime": "2026-11-26T09:00:00Z"}]
    return Pod.of(
        {
            "metadata": {"name": name, "labels": {}},
            "spec": {"containers": [{"name": "main"}]},
            "status": {"phase": "Running", "conditions": conditions, **status},
        }
    )


def cluster_facts(change: Callable[[dict], None] = lambda _: None) -> ClusterFacts:
    scene = recorded("healthy")
    change(scene)
    return ClusterFacts(
        view=look(picture_of(scene)),
        live=True,
        wanted=(Wanted("postgres", POD, there=True),),
        storage_classes=(None, "fast"),
        secrets=KEYS,
        claims=(Claim("data-hub-postgres-0", "Bound", ""),),
    )


def facts(cluster: ClusterFacts | None = None, **changes: object) -> Facts:
    lease = Lease.of(recorded("healthy")["operator"])
    healthy = Facts(
        now=NOW,
        namespace="runnerhub",
        plugin_version="0.1.0",
        server_version="v1.35.4",
        crd=custom_resource_definition(),
        operator=Operator((_pod("operator-1"), _pod("operator-2")), ("operator:1",), lease),
        denied=(),
        storage_classes=(
            StorageClass("standard", True, True, "csi"),
            StorageClass("fast", False, True, "csi"),
        ),
        nodes=tuple(Node(f"node-{n}", True, None, True, (), ROOM) for n in range(3)),
        clocks=(NodeClock("node-0", NOW, NOW.replace(microsecond=0)),),
        dns=(_pod("coredns-1"), _pod("coredns-2")),
        reserved={},
        cluster=cluster,
    )
    return replace(healthy, **changes)


def installed(
    namespace: str = "runnerhub-system",
    release: str = "runnerhub-operator",
    version: str = "",
    *,
    by_helm: bool = True,
    watched: tuple[str, ...] = (),
    denied: tuple[Right, ...] = (),
) -> Operator:
    """The operator of `facts`, installed in another way."""
    healthy = facts().operator
    assert isinstance(healthy, Operator)
    found = Installation(namespace, release, version, by_helm, watched)
    return replace(healthy, installation=found, denied=denied)


def bad(given: Facts) -> list[Finding]:
    return [item for item in judge(given) if item.level not in (Level.OK, Level.NOTE)]


def only(given: Facts) -> Finding:
    (finding,) = bad(given)
    return finding


def test_a_healthy_cluster_needs_nobody() -> None:
    found = judge(facts(cluster_facts()))
    assert bad(facts(cluster_facts())) == []
    assert exit_code(found) is Exit.OK
    assert {item.check for item in found} >= {
        "Kubernetes",
        "operator",
        "clocks",
        "DNS",
        "capacity",
        "Secrets",
        "pods",
    }


def test_a_kubernetes_cluster_that_is_fit_is_told_so_before_there_is_anything() -> None:
    assert bad(facts()) == []


@pytest.mark.parametrize(
    ("level", "code"),
    [
        (Level.OK, Exit.OK),
        (Level.NOTE, Exit.OK),
        (Level.UNKNOWN, Exit.OK),
        (Level.WARNING, Exit.WARNING),
        (Level.ERROR, Exit.CRITICAL),
    ],
)
def test_the_worst_finding_decides_the_exit_code(level: Level, code: Exit) -> None:
    assert (
        exit_code((Finding("a", Level.OK, ""), Finding("b", level, ""), Finding("c", Level.NOTE, ""))) is code
    )


@pytest.mark.parametrize(
    ("version", "level"), [("v1.29.9", Level.ERROR), ("?", Level.UNKNOWN), ("v1.30.0+k3s1", None)]
)
def test_kubernetes_must_be_new_enough(version: str, level: Level | None) -> None:
    found = bad(facts(server_version=version))
    assert [item.level for item in found] == ([level] if level else [])


def test_a_missing_definition_is_installed_with_the_operator_or_applied_where_that_is() -> None:
    nothing, *_ = bad(facts(crd=None, operator=Operator((), (), None)))
    assert (nothing.check, nothing.level) == ("definition", Level.ERROR)
    assert nothing.command == (
        "helm install runnerhub-operator oci://ghcr.io/runnerhub/charts/runnerhub-operator --version 0.1.0 "
        "-n runnerhub-system --create-namespace"
    )
    assert only(facts(crd=None)).command.startswith("helm template runnerhub-operator oci://")


def test_a_definition_of_an_older_version_is_told_by_the_fields_that_it_lacks() -> None:
    crd = copy.deepcopy(custom_resource_definition())
    del crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["paused"]
    finding = only(replace(facts(crd=crd), operator=installed(version="0.2.0")))
    assert finding.level is Level.WARNING
    assert "spec.paused" in finding.message
    assert finding.command == (
        "helm template runnerhub-operator oci://ghcr.io/runnerhub/charts/runnerhub-operator --version 0.2.0 "
        "-n runnerhub-system --show-only templates/crd.yaml | "
        "kubectl apply --server-side --force-conflicts -f -"
    )


def test_a_definition_of_a_newer_version_is_a_note() -> None:
    crd = copy.deepcopy(custom_resource_definition())
    properties = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    properties["teleport"] = {"type": "boolean"}
    (note,) = [item for item in judge(facts(crd=crd)) if item.check == "definition"]
    assert (note.level, "spec.teleport" in note.message) == (Level.NOTE, True)


def test_a_version_that_is_no_longer_served_is_an_error() -> None:
    crd = copy.deepcopy(custom_resource_definition())
    crd["spec"]["versions"][0]["served"] = False
    assert only(facts(crd=crd)).level is Level.ERROR


def test_an_operator_whose_lease_is_old_is_not_at_work() -> None:
    scene = recorded("healthy")
    operator_gone(scene)
    given = facts(cluster_facts())
    stale = replace(given.operator, lease=Lease.of(scene["operator"]))
    finding = only(replace(given, operator=stale))
    assert finding.level is Level.ERROR
    assert "nobody has renewed its Lease" in finding.message


def test_a_missing_operator_is_worse_when_a_cluster_waits_for_it() -> None:
    nothing = Operator((), (), None)
    assert only(facts(operator=nothing)).level is Level.WARNING
    assert only(facts(cluster_facts(), operator=nothing)).level is Level.ERROR


def test_rights_that_the_operator_lacks_are_named() -> None:
    given = facts(cluster_facts())
    finding = only(replace(given, operator=replace(given.operator, denied=OPERATOR_RIGHTS[:2])))
    assert "list runnerhubclusters, patch runnerhubclusters/status" in finding.message


@pytest.mark.parametrize(
    ("watched", "more"),
    [((), ""), (("runnerhub",), ""), (("a", "b"), " --set 'watchNamespaces={a,b,runnerhub}'")],
)
def test_rights_come_with_a_namespace_more_or_by_the_same_chart_once_more(
    watched: tuple[str, ...], more: str
) -> None:
    found = installed("hubs", "op", "0.1.0", watched=watched, denied=OPERATOR_RIGHTS[:2])
    assert only(facts(cluster_facts(), operator=found)).command == (
        "helm upgrade op oci://ghcr.io/runnerhub/charts/runnerhub-operator --version 0.1.0 -n hubs "
        f"--reset-then-reuse-values{more}"
    )


def test_helm_is_not_named_where_it_has_installed_nothing() -> None:
    found = installed(by_helm=False, watched=("a",), denied=OPERATOR_RIGHTS[:2])
    finding = only(facts(cluster_facts(), operator=found))
    assert finding.remedy == "Add the namespace to watchNamespaces, by applying its manifests again."
    assert finding.command == ""


def test_helm_is_not_named_where_argo_cd_has_applied_what_it_made() -> None:
    crd = facts().crd
    assert isinstance(crd, dict)
    tracked = {"argocd.argoproj.io/tracking-id": "op:apiextensions.k8s.io/CustomResourceDefinition:/x"}
    known = {**crd, "metadata": {**crd.get("metadata", {}), "annotations": tracked}}
    found = installed(watched=("a",), denied=OPERATOR_RIGHTS[:2])
    finding = only(facts(cluster_facts(), operator=found, crd=known))
    assert finding.remedy == "Add the namespace to watchNamespaces, in the Application of Argo CD."
    assert finding.command == ""


def test_how_the_operator_was_installed_is_read_from_its_newest_pod() -> None:
    def pod(created: str, labels: dict[str, str], watched: str) -> dict:
        variables = [{"name": "RUNNERHUB_WATCH_NAMESPACES", "value": watched}]
        return {
            "metadata": {"namespace": "hubs", "creationTimestamp": created, "labels": labels},
            "spec": {"containers": [{"name": "operator", "env": variables}]},
        }

    labels = {"app.kubernetes.io/instance": "op", "app.kubernetes.io/version": "0.2.0"}
    helm = {"app.kubernetes.io/managed-by": "Helm"}
    pods = [pod("2026-11-26T09:00:01Z", labels | helm, "a,b"), pod("2026-11-26T09:00:00Z", labels, "")]
    assert Installation.of(pods) == Installation("hubs", "op", "0.2.0", True, ("a", "b"))
    assert Installation.of(pods[1:]) == Installation("hubs", "op", "0.2.0", False, ())
    assert Installation.of([]) == Installation()


def test_an_operator_of_another_version_is_a_note() -> None:
    given = facts(operator=installed(version="0.2.0"))
    notes = [item.message for item in judge(given) if (item.check, item.level) == ("operator", Level.NOTE)]
    assert notes == ["it is of version 0.2.0, this plugin of 0.1.0"]
    assert bad(given) == []


def test_only_rights_without_which_nothing_goes_are_a_warning() -> None:
    found = [item for item in judge(facts(denied=USER_RIGHTS)) if item.check == "permissions"]
    assert {item.level for item in found} == {Level.WARNING, Level.NOTE}
    assert len(found) == len(USER_RIGHTS)


def test_what_may_not_be_looked_at_is_told_and_alarms_nobody() -> None:
    why = Unknown("no permission: nodes is forbidden")
    given = facts(cluster_facts(), nodes=why, clocks=why, dns=why, storage_classes=why, crd=why, operator=why)
    assert {item.level for item in bad(given)} == {Level.UNKNOWN}
    assert exit_code(judge(given)) is Exit.OK


def test_nodes_in_trouble_are_named() -> None:
    lost = Node("node-0", False, "2026-11-26T09:00:00Z", True, (), ROOM)
    full = Node("node-1", True, None, True, ("DiskPressure",), ROOM)
    nodes = (lost, full, *(Node(f"node-{n}", True, None, True, (), ROOM) for n in (2, 3)))
    assert [item.message.split()[0] for item in bad(facts(nodes=nodes))] == ["node-0", "node-1"]


def test_fewer_than_three_nodes_are_a_risk() -> None:
    nodes = (*facts().nodes[:2], Node("closed", True, None, False, (), ROOM))
    assert "only 2 of 3 nodes take pods" in only(facts(nodes=nodes)).message


@pytest.mark.parametrize(
    ("ahead", "level"),
    [
        (0.0, None),
        (3.0, None),
        (-3.0, None),
        (7.0, Level.WARNING),
        (-30.0, Level.WARNING),
        (90.0, Level.ERROR),
    ],
)
def test_a_clock_is_judged_by_what_it_and_the_api_server_wrote_of_one_moment(
    ahead: float, level: Level | None
) -> None:
    clock = NodeClock("node-0", NOW + timedelta(seconds=ahead), NOW)
    found = bad(facts(clocks=(clock,)))
    assert [item.level for item in found] == ([level] if level else [])


def test_a_nodes_lease_tells_both_times() -> None:
    entries = [
        {"manager": "other", "time": "2026-11-26T09:09:00Z", "fieldsV1": {"f:metadata": {}}},
        {"manager": "kubelet", "time": "2026-11-26T09:00:01Z", "fieldsV1": {"f:spec": {"f:renewTime": {}}}},
    ]
    body = {
        "metadata": {"name": "node-0", "managedFields": entries},
        "spec": {"renewTime": "2026-11-26T09:00:11.500000Z"},
    }
    clock = NodeClock.of(body)
    assert clock is not None
    assert clock.ahead_seconds == pytest.approx(9.5)
    assert NodeClock.of({"metadata": {"name": "node-0"}, "spec": {}}) is None


@pytest.mark.parametrize(("ready", "level"), [(2, None), (1, Level.WARNING), (0, Level.ERROR)])
def test_dns_needs_a_pod_that_answers(ready: int, level: Level | None) -> None:
    pods = tuple(_pod(f"coredns-{n}", ready=n < ready) for n in range(2))
    assert [item.level for item in bad(facts(dns=pods))] == ([level] if level else [])


def test_a_storage_class_that_does_not_exist_is_an_error() -> None:
    finding = only(facts(replace(cluster_facts(), storage_classes=("gone",))))
    assert (finding.check, finding.level) == ("StorageClass", Level.ERROR)
    assert "fast, standard" in finding.remedy


def test_no_default_storage_class_matters_only_when_the_spec_names_none() -> None:
    classes = (StorageClass("fast", False, True, "csi"),)
    assert only(facts(cluster_facts(), storage_classes=classes)).level is Level.ERROR
    assert bad(facts(replace(cluster_facts(), storage_classes=("fast",)), storage_classes=classes)) == []


@pytest.mark.parametrize("names_of_both", [("a", "b"), ("b", "a")])
def test_of_several_default_storage_classes_the_newest_is_judged(names_of_both: tuple[str, str]) -> None:
    old, new = (
        {
            "metadata": {
                "name": name,
                "creationTimestamp": f"2026-11-2{day}T09:00:00Z",
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": "csi",
            "allowVolumeExpansion": day == 6,
        }
        for day, name in zip((5, 6), names_of_both, strict=True)
    )
    classes = tuple(sorted((StorageClass.of(old), StorageClass.of(new)), key=lambda item: item.name))
    several, growth = [item for item in judge(facts(storage_classes=classes)) if item.check == "StorageClass"]
    assert several.message.endswith(f"the newest is taken, {names_of_both[1]}")
    assert (growth.level, growth.message.split()[0]) == (Level.OK, names_of_both[1])


def test_volumes_that_cannot_grow_are_a_note() -> None:
    classes = (StorageClass("standard", True, False, "local"),)
    (note,) = [item for item in judge(facts(storage_classes=classes)) if item.check == "StorageClass"]
    assert note.level is Level.NOTE
    assert "allowVolumeExpansion" in note.command


def test_pods_that_cannot_start_come_with_the_reason_and_the_remedy() -> None:
    found = [item for item in bad(facts(cluster_facts(no_primary))) if item.check == "pods"]
    assert [item.level for item in found] == [Level.ERROR, Level.ERROR]
    assert "ImagePullBackOff" in found[0].message
    assert "example.test/postgres:2" in found[0].message
    assert found[0].remedy == "Check the image in the spec and the node's access to its registry."
    assert found[0].command == "kubectl describe pod hub-postgres-1 -n runnerhub"


def test_a_container_that_ran_out_of_memory_is_told_with_what_to_raise() -> None:
    def change(scene: dict) -> None:
        status = scene["pods"][-1]["status"]["containerStatuses"][0]
        ended = {"reason": "OOMKilled", "exitCode": 137, "finishedAt": "2026-11-26T09:05:04Z"}
        status |= {"restartCount": 2, "lastState": {"terminated": ended}}

    finding = only(facts(cluster_facts(change)))
    assert finding.level is Level.WARNING
    assert "5m ago" in finding.message
    assert "OOMKilled (exit code 137, SIGKILL)" in finding.message
    assert "memory limit" in finding.remedy


def test_containers_that_were_lost_with_their_node_are_told_as_one_finding() -> None:
    def change(scene: dict) -> None:
        for pod in scene["pods"]:
            if pod["metadata"]["labels"]["runnerhub.io/component"] == "redis":
                ended = {"reason": "Unknown", "exitCode": 255, "finishedAt": "2026-11-26T09:05:04Z"}
                pod["status"]["containerStatuses"][0] |= {
                    "restartCount": 1,
                    "lastState": {"terminated": ended},
                }

    finding = only(facts(cluster_facts(change)))
    assert all(f"hub-redis-{number} (1 in all)" in finding.message for number in range(3))
    assert finding.message.endswith("5m ago: redis was lost, as when its node restarts (exit code 255)")


def test_a_spec_that_is_refused_is_an_error_with_the_words_of_the_operator() -> None:
    def change(scene: dict) -> None:
        set_condition(scene, "Accepted", "False", "NameTaken", "Service hub belongs to somebody else")

    finding = only(facts(cluster_facts(change)))
    assert finding.level is Level.ERROR
    assert "NameTaken: Service hub belongs to somebody else" in finding.message


def test_a_component_that_does_not_serve_is_an_error_and_one_with_less_redundancy_a_warning() -> None:
    def down(scene: dict) -> None:
        set_condition(scene, "RedisReady", "False", "Unavailable", "no master")

    def reduced(scene: dict) -> None:
        set_condition(scene, "RedisReady", "True", "ReducedRedundancy", "2 of 3 pods ready")

    assert only(facts(cluster_facts(down))).level is Level.ERROR
    assert only(facts(cluster_facts(reduced))).level is Level.WARNING


def test_a_part_of_the_spec_that_stays_without_effect_is_a_warning() -> None:
    finding = only(facts(cluster_facts(migration_failed)))
    assert (finding.check, finding.level) == ("spec", Level.WARNING)
    assert finding.message.startswith("MigrationFailed: the migration of the database")
    assert "Correct the image" in finding.remedy


def test_pools_of_runners_that_do_not_get_their_size_are_a_warning() -> None:
    finding = only(facts(cluster_facts(runners_refused)))
    assert (finding.check, finding.level) == ("runners", Level.WARNING)
    assert "exceeded quota" in finding.message


def test_a_majority_on_one_node_is_a_risk() -> None:
    def change(scene: dict) -> None:
        for pod in scene["pods"]:
            if pod["metadata"]["name"] in ("hub-postgres-0", "hub-postgres-1"):
                pod["spec"]["nodeName"] = "worker-1"

    finding = only(facts(cluster_facts(change)))
    assert finding.message.startswith("2 of 3 members of the database are on worker-1")


def _wanted(*amounts: Amounts) -> tuple[Wanted, ...]:
    return tuple(Wanted("postgres", amount, there=False) for amount in amounts)


def test_pods_that_fit_side_by_side_have_room() -> None:
    cluster = replace(cluster_facts(), wanted=_wanted(*[POD] * 12))
    assert bad(facts(cluster)) == []


def test_the_pod_that_fits_nowhere_is_told_with_what_is_free() -> None:
    cluster = replace(cluster_facts(), wanted=_wanted(Amounts(Decimal(1), 5 * GIB)))
    finding = only(facts(cluster))
    assert (finding.check, finding.level) == ("capacity", Level.ERROR)
    assert "1 CPU and 5120 MiB" in finding.message
    assert "2 CPU and 4096 MiB" in finding.message


def _node(name: str, *taints: dict, architecture: str = "amd64", **labels: str) -> Node:
    return Node.of(
        {
            "metadata": {"name": name, "labels": labels},
            "spec": {"taints": list(taints)},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "allocatable": {"cpu": "2", "memory": "4Gi"},
                "nodeInfo": {"architecture": architecture},
            },
        }
    )


TAINT = {"key": "dedicated", "value": "database", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        (None, False),
        ({"operator": "Exists"}, True),
        ({"key": "dedicated", "operator": "Exists"}, True),
        ({"key": "dedicated", "value": "database"}, True),
        ({"key": "dedicated", "value": "database", "effect": "NoSchedule"}, True),
        ({"key": "dedicated", "value": "other"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({"key": "dedicated", "operator": "Exists", "effect": "NoExecute"}, False),
    ],
)
def test_taints_keep_away_who_does_not_tolerate_them(toleration: dict | None, fits: bool) -> None:
    pod = Wanted("postgres", POD, there=False, tolerations=(toleration,) if toleration else ())
    assert _node("a", TAINT).takes(pod) is fits
    assert _node("a", {**TAINT, "effect": "PreferNoSchedule"}).takes(pod)


def test_a_node_in_trouble_takes_nothing_and_suits_all_the_same() -> None:
    pod = Wanted("postgres", POD, there=False)
    node = _node("a", {"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"})
    assert (node.takes(pod), node.suits(pod)) == (False, True)


@pytest.mark.parametrize("there", [True, False])
def test_a_selector_that_no_node_has_is_an_error(there: bool) -> None:
    pods = tuple(Wanted("orchestrator", POD, there=there, node_selector={"disk": "ssd"}) for _ in range(3))
    nodes = tuple(_node(f"node-{n}", disk="hdd") for n in range(3))
    finding = only(
        facts(replace(cluster_facts(), wanted=(Wanted("postgres", POD, there=True), *pods)), nodes=nodes)
    )
    assert (finding.check, finding.level) == ("capacity", Level.ERROR)
    assert finding.message.startswith("no node for 3 of orchestrator")


def test_room_counts_only_where_a_pod_may_run() -> None:
    pods = tuple(Wanted("runner", POD, there=False, node_selector={"disk": "ssd"}) for _ in range(5))
    nodes = (*(_node(f"node-{n}") for n in range(3)), _node("node-3", disk="ssd"))
    finding = only(facts(replace(cluster_facts(), wanted=pods), nodes=nodes))
    assert finding.message.startswith("no room for 1 of runner")


def test_nodes_are_counted_that_take_what_elects() -> None:
    nodes = tuple(_node(f"node-{n}", TAINT) for n in range(3))
    assert "only 0 of 3 nodes" in only(facts(nodes=nodes)).message
    tolerant = Wanted("postgres", POD, there=True, tolerations=({"operator": "Exists"},))
    assert bad(facts(replace(cluster_facts(), wanted=(tolerant,)), nodes=nodes)) == []


def test_pods_that_may_come_onto_another_processor_are_a_warning() -> None:
    nodes = (*(_node(f"node-{n}") for n in range(3)), _node("arm", architecture="arm64"))
    finding = only(facts(cluster_facts(), nodes=nodes))
    assert (finding.check, finding.level) == ("architecture", Level.WARNING)
    assert finding.message.startswith("pods of postgres may come onto arm (arm64)")
    bound = Wanted("postgres", POD, there=True, node_selector={"kubernetes.io/arch": "amd64"})
    labelled = tuple(replace(node, labels={"kubernetes.io/arch": node.architecture}) for node in nodes)
    assert bad(facts(replace(cluster_facts(), wanted=(bound,)), nodes=labelled)) == []


def test_a_pod_that_runs_there_shows_that_its_image_is_for_that_processor() -> None:
    def change(scene: dict) -> None:
        for pod in scene["pods"]:
            if pod["metadata"]["name"] == "hub-postgres-0":
                pod["spec"]["nodeName"] = "arm"

    nodes = (*(_node(f"node-{n}") for n in range(3)), _node("arm", architecture="arm64"))
    assert bad(facts(cluster_facts(change), nodes=nodes)) == []


def test_what_others_reserve_is_not_free_and_closed_nodes_have_no_room() -> None:
    nodes = (facts().nodes[0], Node("closed", True, None, False, (), ROOM))
    homeless, free = place(list(_wanted(*[POD] * 3)), nodes, {"node-0": Amounts(Decimal(1), 2 * GIB)})
    assert len(homeless) == 1
    assert free == {"node-0": Amounts(Decimal(0), Decimal(0))}


def test_a_pod_reserves_its_sidecars_too_and_its_largest_init_container_at_least() -> None:
    def container(memory: str, **more: str) -> dict:
        return {"resources": {"requests": {"cpu": "100m", "memory": memory}}, **more}

    sidecar = container("1Gi", restartPolicy="Always")
    assert requests_of({"containers": [container("1Gi")], "initContainers": [sidecar]}) == Amounts(
        Decimal("0.2"), 2 * GIB
    )
    large = requests_of({"containers": [container("1Gi")], "initContainers": [container("3Gi")]})
    assert large.memory == 3 * GIB


def test_a_secret_that_is_missing_or_lacks_a_key_is_an_error_that_says_restore() -> None:
    secrets = dict(KEYS) | {"hub-redis-credentials": KEYS["hub-redis-credentials"] - {"sentinel-password"}}
    del secrets["hub-postgres-credentials"]
    found = bad(facts(replace(cluster_facts(), secrets=secrets)))
    assert [item.message.split(",")[0] for item in found] == [
        "hub-postgres-credentials is missing",
        "hub-redis-credentials lacks sentinel-password",
    ]
    assert all("backup" in item.remedy for item in found)


def test_the_certificate_of_the_ingress_is_looked_for() -> None:
    def change(scene: dict) -> None:
        scene["cluster"]["spec"]["ingress"] = {"host": "hub.example.com", "tlsSecretName": "hub-tls"}

    assert "hub-tls is missing" in only(facts(cluster_facts(change))).message


def test_the_certificate_of_the_load_balancer_is_looked_for() -> None:
    def change(scene: dict) -> None:
        scene["cluster"]["spec"]["loadBalancer"]["tls"] = {"secretName": "front"}

    assert "front is missing" in only(facts(cluster_facts(change))).message
    half = replace(cluster_facts(change), secrets={**KEYS, "front": frozenset({"tls.crt"})})
    assert "front lacks tls.key" in only(facts(half)).message


def test_the_token_of_the_runners_is_looked_for_where_there_are_runners() -> None:
    def change(scene: dict) -> None:
        scene["cluster"]["spec"]["github"] = {
            "url": "https://github.com/example",
            "tokenSecretName": "github",
        }

    assert bad(facts(cluster_facts(change))) == []

    def with_runners(scene: dict) -> None:
        change(scene)
        scene["cluster"]["spec"]["runnerPools"] = [{"name": "linux"}]

    assert "github is missing" in only(facts(cluster_facts(with_runners))).message

    def with_an_image(scene: dict) -> None:
        change(scene)
        scene["cluster"]["spec"]["orchestrator"]["image"] = "example.com/own:2"

    assert "github is missing" in only(facts(cluster_facts(with_an_image))).message
    whole = replace(cluster_facts(with_runners), secrets={**KEYS, "github": frozenset({"token"})})
    assert bad(facts(whole)) == []


def test_logins_at_registries_are_looked_for() -> None:
    def change(scene: dict) -> None:
        scene["cluster"]["spec"]["imagePullSecrets"] = [{"name": "registry"}]
        scene["cluster"]["spec"]["orchestrator"]["podTemplate"] = {"imagePullSecrets": [{"name": "registry"}]}

    assert "registry is missing" in only(facts(cluster_facts(change))).message
    whole = replace(cluster_facts(change), secrets={**KEYS, "registry": frozenset({".dockerconfigjson"})})
    assert bad(facts(whole)) == []


def test_the_credentials_of_a_bucket_are_looked_for() -> None:
    def change(scene: dict) -> None:
        bucket = {"bucket": "logs", "credentialsSecretName": "store"}
        scene["cluster"]["spec"]["sharedStorage"] = {"s3": bucket}

    scene = cluster_facts(change)
    assert "store is missing" in only(facts(scene)).message
    half = {**KEYS, "store": frozenset({"AWS_ACCESS_KEY_ID"})}
    assert "store lacks AWS_SECRET_ACCESS_KEY" in only(facts(replace(scene, secrets=half))).message
    whole = {**KEYS, "store": frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"})}
    assert bad(facts(replace(scene, secrets=whole))) == []


def test_claims_that_are_not_bound_and_full_volumes_are_told() -> None:
    pending = Claim("data-hub-redis-0", "Pending", "")
    assert only(facts(replace(cluster_facts(), claims=(pending,)))).level is Level.ERROR

    def full(scene: dict) -> None:
        scene["cluster"]["status"]["redis"]["instances"][0]["volumeUsedPercent"] = 96

    assert "hub-redis-0 96 %" in only(facts(cluster_facts(full))).message


@pytest.mark.parametrize(("percent", "level"), [(84, None), (85, Level.WARNING), (95, Level.ERROR)])
def test_a_queue_that_runs_full_is_told_with_what_to_raise(percent: int, level: Level | None) -> None:
    def change(scene: dict) -> None:
        scene["cluster"]["status"]["redis"]["memoryUsedPercent"] = percent

    found = bad(facts(cluster_facts(change)))
    assert [item.level for item in found] == ([level] if level else [])
    assert all("spec.redis.resources.limits.memory" in item.remedy for item in found)


def test_a_certificate_that_ends_soon_is_a_warning() -> None:
    def change(scene: dict) -> None:
        told = "2 of 2 ready; the certificate in Secret front ends at 2026-12-01T00:00:00Z; put another one there"
        set_condition(scene, "LoadBalancerReady", "True", "Available", told)

    finding = only(facts(cluster_facts(change)))
    assert (finding.check, finding.level) == ("loadbalancer", Level.WARNING)


def test_a_right_is_asked_for_of_every_kind_that_the_operator_follows_from_its_start() -> None:
    asked = {(right.group, right.resource) for right in OPERATOR_RIGHTS}
    for source in sources(()):
        group, _, _ = source.api_version.rpartition("/")
        assert (group, f"{source.kind.lower()}{'es' if source.kind.endswith('s') else 's'}") in asked


def test_warnings_of_kubernetes_are_told_newest_first_and_judged_by_nobody() -> None:
    events = tuple(Event("Pod a", "Unhealthy", f"number {n}", 2, f"2026-11-26T09:0{n}:00Z") for n in range(7))
    given = facts(replace(cluster_facts(), events=events))
    told = [item.message for item in judge(given) if item.check == "Events"]
    assert bad(given) == []
    assert [text[-8:] for text in told] == [f"number {n}" for n in (6, 5, 4, 3, 2)]


def test_what_needs_somebody_stands_last_with_its_command() -> None:
    given = facts(cluster_facts(no_primary), crd=None)
    lines = text_of(findings_screen(judge(given))).splitlines()
    assert lines[0].startswith("OK ")
    assert lines[-1] == counted(judge(given))
    assert lines[-1].startswith("4 errors, ")
    assert any(line.strip().startswith("$ helm template") for line in lines)
