"""What the spec may add to the orchestrators' pods, and that nothing of the operator's own gives way to it."""

from __future__ import annotations

from typing import Any

import pytest

from runnerhub_operator import names
from runnerhub_operator.api import parse_cluster
from runnerhub_operator.api.pod import (
    OPERATOR_OWNED_CONTAINERS,
    OPERATOR_OWNED_FOLDERS,
    OPERATOR_OWNED_VARIABLES,
    OPERATOR_OWNED_VOLUMES,
)
from runnerhub_operator.errors import InvalidSpecError
from runnerhub_operator.kube.compare import needs_apply, with_applied_hash
from runnerhub_operator.resources.orchestrator import SERVICE_ACCOUNT_FOLDER
from tests.unit.agent.test_orchestrator_manifests import build, container, pod

TRUST = {"name": "trust", "secret": {"secretName": "company-ca"}}


def additions(**given: Any) -> dict[str, dict[str, Any]]:
    return build(orchestrator=given)


def template(**given: Any) -> dict[str, dict[str, Any]]:
    return additions(podTemplate=given)


@pytest.mark.parametrize("image", [None, "registry.example/hub:1"])
def test_every_variable_that_the_operator_sets_is_refused_as_an_addition(image: str | None) -> None:
    set_by_operator = {entry["name"] for entry in container(additions(image=image), "orchestrator")["env"]}
    assert set_by_operator <= set(OPERATOR_OWNED_VARIABLES)
    for name in OPERATOR_OWNED_VARIABLES:
        with pytest.raises(InvalidSpecError, match="env must not set a variable that the operator owns"):
            additions(env=[{"name": name, "value": "x"}])


def test_every_volume_folder_and_container_of_the_operator_is_refused_as_an_addition() -> None:
    own = pod(additions())
    assert {volume["name"] for volume in own["volumes"]} <= set(OPERATOR_OWNED_VOLUMES)
    assert {item["name"] for item in own["containers"]} == set(OPERATOR_OWNED_CONTAINERS)
    paths = {mount["mountPath"] for item in own["containers"] for mount in item["volumeMounts"]}
    for path in (*paths, *OPERATOR_OWNED_FOLDERS, f"{SERVICE_ACCOUNT_FOLDER}/token"):
        with pytest.raises(InvalidSpecError, match="a folder that the operator owns"):
            additions(volumes=[TRUST], volumeMounts=[{"name": "trust", "mountPath": path}])
    for name in OPERATOR_OWNED_VOLUMES:
        with pytest.raises(InvalidSpecError, match="a name that the operator uses"):
            additions(volumes=[{"name": name, "emptyDir": {}}])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"env": [{"name": "A"}, {"name": "A"}]}, "the same name twice"),
        (
            {"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]},
            "both",
        ),
        ({"env": [{"name": "A", "valueFrom": {}}]}, "exactly one of secretKeyRef, configMapKeyRef, fieldRef"),
        ({"envFrom": [{"prefix": "A_"}]}, "exactly one of secretRef, configMapRef"),
        ({"volumes": [{"name": "a"}]}, "a volume must have exactly one of"),
        ({"volumes": [{"name": "a", "hostPath": {"path": "/"}}]}, "hostPath"),
        ({"volumes": [{"name": "a", "nfs": {"server": "s", "path": "/"}}]}, "nfs"),
        ({"volumeMounts": [{"name": "nothing", "mountPath": "/a"}]}, "must name a volume"),
        (
            {"initContainers": [{"name": "a", "volumeMounts": [{"name": "x", "mountPath": "/x"}]}]},
            "must name a volume",
        ),
        ({"initContainers": [{"name": "ha-agent"}]}, "a name that the operator uses"),
        ({"initContainers": [{"name": "a", "securityContext": {"privileged": True}}]}, "securityContext"),
        ({"volumes": [TRUST], "volumeMounts": [{"name": "trust", "mountPath": "/run/../tmp"}]}, "mountPath"),
        ({"podTemplate": {"labels": {"runnerhub.io/leader": "true"}}}, "those belong to the operator"),
        ({"podTemplate": {"labels": {"app.kubernetes.io/name": "x"}}}, "those belong to the operator"),
        ({"podTemplate": {"annotations": {"runnerhub.io/layout": "x"}}}, "those belong to the operator"),
        ({"podTemplate": {"securityContext": {"runAsUser": 0}}}, "runAsUser"),
        ({"podTemplate": {"securityContext": {"runAsNonRoot": False}}}, "runAsNonRoot"),
        ({"podTemplate": {"hostNetwork": True}}, "hostNetwork"),
        ({"podTemplate": {"tolerations": [{"value": "x"}]}}, "without key must have operator: Exists"),
        (
            {"podTemplate": {"tolerations": [{"key": "a", "operator": "Exists", "value": "x"}]}},
            "must not have a value",
        ),
        (
            {"podTemplate": {"tolerations": [{"key": "a", "tolerationSeconds": 3}]}},
            "must have effect: NoExecute",
        ),
    ],
)
def test_what_would_take_rights_or_the_place_of_something_is_refused_in_a_sentence(
    given: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidSpecError, match=words):
        additions(**given)


def test_additions_stand_behind_what_the_operator_sets() -> None:
    found = container(
        additions(
            env=[
                {"name": "EMPTY", "value": ""},
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            ],
            envFrom=[{"secretRef": {"name": "more"}, "prefix": "MORE_"}],
            volumes=[TRUST, {"name": "scratch", "emptyDir": {}}],
            volumeMounts=[{"name": "trust", "mountPath": "/etc/company", "readOnly": True}],
        ),
        "orchestrator",
    )
    own = container(additions(), "orchestrator")
    assert found["env"][: len(own["env"])] == own["env"]
    assert found["env"][len(own["env"]) :] == [
        {"name": "EMPTY"},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    ]
    assert found["envFrom"] == [{"prefix": "MORE_", "secretRef": {"name": "more"}}]
    assert found["volumeMounts"][-1] == {"name": "trust", "mountPath": "/etc/company", "readOnly": True}


def test_the_agent_sees_nothing_of_it() -> None:
    more = additions(
        env=[{"name": "A", "value": "b"}],
        volumes=[TRUST],
        volumeMounts=[{"name": "trust", "mountPath": "/etc/company"}],
    )
    assert container(more, "ha-agent") == container(additions(), "ha-agent")


def test_init_containers_are_restricted_and_have_the_orchestrators_image() -> None:
    (found,) = pod(additions(initContainers=[{"name": "warm-up", "command": ["true"]}]))["initContainers"]
    assert found["image"] == "registry/orchestrator:1"
    assert found["securityContext"] == container(additions(), "orchestrator")["securityContext"]
    assert found["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108
    assert "env" not in found


def test_the_pods_labels_stay_those_by_which_services_find_them() -> None:
    metadata = template(labels={"team": "platform"})["Deployment"]["spec"]["template"]["metadata"]
    assert metadata["labels"] == {"team": "platform", **names.labels("hub", names.ORCHESTRATOR)}


def test_a_spread_constraint_of_the_same_domain_takes_the_place_of_the_operators() -> None:
    given = {"topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
    softer = {"topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 2}
    found = pod(template(topologySpreadConstraints=[given, softer]))["topologySpreadConstraints"]
    assert [(item["topologyKey"], item["whenUnsatisfiable"], item["maxSkew"]) for item in found] == [
        ("topology.kubernetes.io/zone", "ScheduleAnyway", 1),
        ("topology.kubernetes.io/zone", "DoNotSchedule", 1),
        ("kubernetes.io/hostname", "ScheduleAnyway", 2),
    ]
    selectors = [item["labelSelector"]["matchLabels"] for item in found]
    assert selectors == [names.selector_labels("hub", names.ORCHESTRATOR)] * 3


def test_a_given_service_account_gets_the_agents_rights_and_none_is_made() -> None:
    found = template(serviceAccountName="cloud")
    assert "ServiceAccount" not in found
    assert found["RoleBinding"]["subjects"][0]["name"] == pod(found)["serviceAccountName"] == "cloud"


def test_users_and_groups_change_and_the_restricted_standard_stays() -> None:
    own = pod(template())["securityContext"]
    found = pod(template(securityContext={"runAsUser": 2000, "supplementalGroups": [7]}))["securityContext"]
    assert found == {**own, "runAsUser": 2000, "supplementalGroups": [7]}


def test_placement_is_handed_on() -> None:
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": []}}
    found = pod(
        template(
            nodeSelector={"disk": "ssd"},
            tolerations=[{"operator": "Exists"}],
            affinity=affinity,
            priorityClassName="high",
            imagePullSecrets=[{"name": "registry"}],
        )
    )
    assert found["nodeSelector"] == {"disk": "ssd"}
    assert found["tolerations"] == [{"operator": "Exists"}]
    assert found["affinity"] == affinity
    assert found["priorityClassName"] == "high"
    assert found["imagePullSecrets"] == [{"name": "registry"}]


def test_nothing_is_added_where_nothing_is_asked_for() -> None:
    absent = {
        "nodeSelector",
        "tolerations",
        "affinity",
        "priorityClassName",
        "imagePullSecrets",
        "initContainers",
    }
    assert not absent & set(pod(additions()))
    assert "envFrom" not in container(additions(), "orchestrator")


def test_a_label_that_is_taken_away_is_written_although_the_live_object_has_all_that_is_wanted() -> None:
    live = with_applied_hash(template(labels={"team": "platform"})["Deployment"])
    assert needs_apply(with_applied_hash(template()["Deployment"]), live)


def test_the_additions_survive_being_read_again() -> None:
    spec = {"orchestrator": {"env": [{"name": "A", "value": "b"}], "volumes": [TRUST]}}
    body = {"metadata": {"namespace": "team", "name": "hub", "uid": "1", "generation": 1}, "spec": spec}
    read = parse_cluster(body).spec
    again = parse_cluster(
        {**body, "spec": read.model_dump(mode="json", by_alias=True, exclude_none=True)}
    ).spec
    assert again == read
