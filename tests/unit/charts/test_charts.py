"""What the charts give, with both major versions of Helm."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from runnerhub_operator import __version__, names
from runnerhub_operator.api.crd import custom_resource_definition
from tests import charts, manifest
from tests.charts import CLUSTER, OPERATOR, Manifest

CASES = [(chart, name) for chart in (OPERATOR, CLUSTER) for name in charts.cases(chart)]
EVERYTHING = charts.cases(OPERATOR)["everything"]


@cache
def rendered(chart: Path, case: str, binary: str = "helm") -> tuple[Manifest, ...]:
    return tuple(charts.render_case(chart, charts.cases(chart)[case], binary))


def of_kind(kind: str, case: str = "default") -> list[Manifest]:
    return [item for item in rendered(OPERATOR, case) if item["kind"] == kind]


@pytest.mark.parametrize("binary", charts.HELMS)
@pytest.mark.parametrize("chart", [OPERATOR, CLUSTER])
def test_lint_finds_nothing(chart: Path, binary: str) -> None:
    for values in charts.cases(chart).values():
        charts.helm("lint", "--strict", chart, "--values", values, binary=binary)


@pytest.mark.parametrize("binary", charts.HELMS)
@pytest.mark.parametrize(("chart", "case"), CASES)
def test_golden_file_is_what_helm_gives(chart: Path, case: str, binary: str) -> None:
    golden = yaml.safe_load_all((charts.GOLDEN / chart.name / f"{case}.yaml").read_text())
    by_name = {(item["kind"], item["metadata"]["name"], item["metadata"].get("namespace")): item
               for item in rendered(chart, case, binary)}  # fmt: skip
    # Helm 3 and 4 put them in another order.
    expected = {(item["kind"], item["metadata"]["name"], item["metadata"].get("namespace")): item
                for item in golden}  # fmt: skip
    assert by_name == expected, "run `make generate` and review the difference"


def test_kustomization_has_what_the_chart_gives_without_marks_of_helm() -> None:
    text = (charts.KUSTOMIZE / "operator.yaml").read_text()
    expected = charts.installation("--set", "crds.install=false")
    assert list(yaml.safe_load_all(text)) == expected, "run `make generate` and review the difference"
    assert "helm" not in text.lower()


def test_manifest_for_kubectl_starts_with_namespace_and_definition(tmp_path: Path) -> None:
    files = [tmp_path / "one.yaml", tmp_path / "two.yaml"]
    for file in files:
        manifest.main([str(file), "--namespace", "hubs", "--set", "image.registry=mirror.test/hub"])
    assert files[0].read_text() == files[1].read_text()
    namespace, definition, *others = yaml.safe_load_all(files[0].read_text())
    assert namespace["metadata"]["name"] == "hubs"
    assert definition == {
        **custom_resource_definition(),
        "metadata": {"name": "runnerhubclusters.runnerhub.io", "labels": definition["metadata"]["labels"]},
    }
    assert {item["metadata"].get("namespace", "hubs") for item in others} == {"hubs"}
    assert not [item for item in others if item["kind"] in ("Pod", "CustomResourceDefinition")]
    (deployment,) = [item for item in others if item["kind"] == "Deployment"]
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == f"mirror.test/hub/operator:{__version__}"


def test_charts_and_operator_have_one_version() -> None:
    for chart in (OPERATOR, CLUSTER):
        about = yaml.safe_load((chart / "Chart.yaml").read_text())
        assert about["appVersion"] == __version__


@pytest.mark.parametrize(("keep", "policy"), [("true", "keep"), ("false", None)])
def test_definition_is_the_generated_one_and_is_kept_on_demand(keep: str, policy: str | None) -> None:
    found = charts.render(OPERATOR, "--set", f"crds.keep={keep}", "--show-only", "templates/crd.yaml")
    assert len(found) == 1
    assert found[0]["spec"] == custom_resource_definition()["spec"]
    assert found[0]["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == policy


def test_nothing_but_the_definition_is_cluster_scoped_when_namespaces_are_given() -> None:
    objects = charts.render(OPERATOR, "--set", "watchNamespaces={team-a,team-b}")
    scoped = [item["kind"] for item in objects if "namespace" not in item["metadata"]]
    assert scoped == ["CustomResourceDefinition"]


def test_releases_for_other_namespaces_share_no_object() -> None:
    def objects(namespace: str, watched: str) -> set[tuple[str, str, str]]:
        options = f"watchNamespaces={{{watched}}},crds.install=false,nfsVolumes=true"
        return {
            (item["kind"], item["metadata"]["name"], item["metadata"].get("namespace", ""))
            for item in charts.render(OPERATOR, "--set", options, namespace=namespace)
        }

    one, other = objects("system-a", "team-a"), objects("system-b", "team-b")
    assert {kind for kind, _, namespace in one if not namespace} == {"ClusterRole", "ClusterRoleBinding"}
    assert not one & other


def test_namespaced_roles_grant_what_the_cluster_role_does_and_only_there() -> None:
    everywhere = of_kind("ClusterRole")[0]["rules"]
    roles = {
        item["metadata"]["namespace"]: item["rules"]
        for item in of_kind("Role", "namespaced")
        if item["metadata"]["name"] == "runnerhub-operator"
    }
    assert roles == {"team-a": everywhere, "team-b": everywhere}
    container = of_kind("Deployment", "namespaced")[0]["spec"]["template"]["spec"]["containers"][0]
    environment = {item["name"]: item.get("value") for item in container["env"]}
    assert environment["RUNNERHUB_WATCH_NAMESPACES"] == "team-a,team-b"


def _rules() -> Iterator[tuple[str, dict[str, Any]]]:
    for case in charts.cases(OPERATOR):
        for item in rendered(OPERATOR, case):
            for rule in item.get("rules", ()):
                yield f"{case}/{item['metadata']['name']}", rule


def test_no_right_is_a_wildcard() -> None:
    found = list(_rules())
    assert len(found) > 30
    for where, rule in found:
        for key in ("apiGroups", "resources", "verbs"):
            assert rule[key], where
            assert not [word for word in rule[key] if "*" in word], where


def test_the_operator_may_not_write_what_people_ask_for() -> None:
    for where, rule in _rules():
        if "runnerhubclusters" in rule["resources"]:
            assert set(rule["verbs"]) == {"get", "list", "watch"}, where


@pytest.mark.parametrize("case", charts.cases(OPERATOR))
def test_pods_hold_the_restricted_pod_security_standard(case: str) -> None:
    deployment, test = of_kind("Deployment", case)[0], of_kind("Pod", case)[0]
    for pod in (deployment["spec"]["template"]["spec"], test["spec"]):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
        assert all(set(volume) <= {"name", "emptyDir"} for volume in pod.get("volumes", ()))
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}


def test_the_pod_of_the_test_is_none_of_the_operators() -> None:
    selector = of_kind("Deployment")[0]["spec"]["selector"]["matchLabels"]
    labels = of_kind("Pod")[0]["metadata"]["labels"]
    assert not selector.items() <= labels.items()
    assert of_kind("Pod")[0]["metadata"]["annotations"]["helm.sh/hook"] == "test"


def test_objects_of_prometheus_are_there_only_when_asked_for() -> None:
    def monitors(case: str) -> list[str]:
        return [item["kind"] for item in rendered(OPERATOR, case) if "monitoring" in item["apiVersion"]]

    assert monitors("default") == []
    assert monitors("everything") == ["ServiceMonitor"]
    assert monitors("pod-monitor") == ["PodMonitor"]
    port = of_kind("Service")[0]["spec"]["ports"][0]["name"]
    assert of_kind("ServiceMonitor", "everything")[0]["spec"]["endpoints"][0]["port"] == port


def test_common_labels_and_annotations_are_on_every_object() -> None:
    for item in rendered(OPERATOR, "everything"):
        assert item["metadata"]["labels"]["team"] == "platform", item["kind"]
        assert item["metadata"]["annotations"]["contact"] == "platform@example.com", item["kind"]


def test_an_override_wins_over_a_digest_and_a_digest_over_the_tag() -> None:
    digest = f"sha256:{'b' * 64}"
    options = [
        f"image.digests.redis={digest}",
        "image.overrides.redis=else.test/redis:1",
        f"image.digests.pooler={digest}",
    ]
    (deployment,) = charts.render(
        OPERATOR,
        *(word for option in options for word in ("--set", option)),
        "--set", "podDisruptionBudget.enabled=false",
        "--show-only", "templates/deployment.yaml",
    )  # fmt: skip
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    images = {item["name"]: item.get("value") for item in container["env"]}
    assert images["RUNNERHUB_IMAGE_REDIS"] == "else.test/redis:1"
    assert images["RUNNERHUB_IMAGE_POOLER"] == f"ghcr.io/runnerhub/pooler@{digest}"
    assert images["RUNNERHUB_IMAGE_POSTGRES"] == f"ghcr.io/runnerhub/postgres:{__version__}"


def test_the_spec_of_a_cluster_is_that_of_the_values() -> None:
    values = yaml.safe_load(charts.cases(CLUSTER)["everything"].read_text())
    (cluster,) = rendered(CLUSTER, "everything")
    assert cluster["spec"] == values["spec"]
    assert cluster["kind"] == names.KIND


@pytest.mark.parametrize("example", ["minimal", "full"])
def test_the_spec_of_an_example_can_be_pasted_into_the_values(example: str) -> None:
    wanted = yaml.safe_load((charts.ROOT / "examples" / f"{example}.yaml").read_text())["spec"]
    (cluster,) = charts.render_text(CLUSTER, yaml.safe_dump({"spec": wanted}), "hub")
    assert cluster["spec"] == wanted


def test_the_examples_for_argo_cd_hold_the_schemas() -> None:
    folder = charts.ROOT / "examples" / "argocd"
    application = yaml.safe_load((folder / "application.yaml").read_text())
    sources = application["spec"]["sources"]
    assert [charts.ROOT / source["path"] for source in sources] == [OPERATOR, CLUSTER]
    for source in sources:
        text = json.dumps(source["helm"]["valuesObject"])
        assert charts.render_text(charts.ROOT / source["path"], text, source["helm"]["releaseName"])

    applications = yaml.safe_load((folder / "applicationset.yaml").read_text())["spec"]
    template = applications["template"]["spec"]["source"]["helm"]
    for element in applications["generators"][0]["list"]["elements"]:
        # Of Go's templates only this much is used.
        text = re.sub(r"{{ \.(\w+) }}", lambda found, of=element: str(of[found[1]]), template["values"])
        (cluster,) = charts.render_text(CLUSTER, text, template["releaseName"])
        assert cluster["spec"]["orchestrator"]["replicas"] == element["orchestrators"]
        assert cluster["metadata"]["labels"]["team"] == element["team"]


def test_notes_name_commands_for_this_release() -> None:
    # Only an installation shows them; a dry run on the client needs no cluster.
    shown = charts.helm(
        "install",
        "op",
        OPERATOR,
        "--namespace",
        "sys",
        "--dry-run=client",
        "--set",
        "watchNamespaces={team-a}",
        "--set",
        "crds.install=false",
    )
    notes = shown.split("NOTES:")[1]
    assert "helm test op --namespace sys" in notes
    assert "kubectl wait rhc/hub --namespace team-a --for=condition=Ready" in notes
    # They are read where there may be no checkout.
    for chart in ("runnerhub-operator", "runnerhub-cluster"):
        assert f" oci://ghcr.io/runnerhub/charts/{chart} --version {__version__} " in notes


WRONG_OPERATOR = {
    "unknown value": ("replica=3", "replica"),
    "unknown value inside": ("image.regstry=x", "regstry"),
    "number of replicas": ("replicas=0", "replicas"),
    "text for a number": ("probeIntervalSeconds=often", "probeIntervalSeconds"),
    "level": ("log.level=LOUD", "level"),
    "digest": ("image.digests.operator=latest", "operator"),
    "name of an image": ("image.digests.nginx=x", "nginx"),
    "namespace": ("watchNamespaces={Team A}", "watchNamespaces"),
    "kind of monitor": ("monitoring.kind=Monitor", "monitoring"),
    "own label": ("podLabels.app\\.kubernetes\\.io/name=x", "app.kubernetes.io/name"),
    "disruption": ("podDisruptionBudget.maxUnavailable=many", "maxUnavailable"),
    "security": ("containerSecurityContext.privilegd=true", "privilegd"),
}
WRONG_CLUSTER = {
    "unknown field": ("spec.postgress.instances=3", "postgress"),
    "unknown field inside": ("spec.postgres.instance=3", "instance"),
    "bound": ("spec.postgres.instances=10", "instances"),
    "enum": ("spec.postgres.synchronous=maybe", "synchronous"),
    "quantity": ("spec.postgres.storage.size=big", "size"),
    "type": ("spec.orchestrator.replicas=three", "replicas"),
    "required": ("spec.ingress.gateway.parentRefs[0].namespace=gateways", "name"),
    "name": ("name=Hub", "name"),
    "beside the spec": ("postgres.instances=3", "postgres"),
}


@pytest.mark.parametrize(
    ("chart", "option", "word"),
    [(OPERATOR, *value) for value in WRONG_OPERATOR.values()]
    + [(CLUSTER, *value) for value in WRONG_CLUSTER.values()],
    ids=[*(f"operator: {name}" for name in WRONG_OPERATOR), *(f"cluster: {name}" for name in WRONG_CLUSTER)],
)
def test_schema_refuses_a_wrong_value_and_names_it(chart: Path, option: str, word: str) -> None:
    with pytest.raises(charts.HelmError, match=word):
        charts.render(chart, "--set", option, release="hub")


@pytest.mark.parametrize(
    ("chart", "option", "word"),
    [(OPERATOR, *WRONG_OPERATOR["security"]), (CLUSTER, *WRONG_CLUSTER["unknown field inside"])],
)
def test_helm_3_reads_the_schema_too(chart: Path, option: str, word: str) -> None:
    with pytest.raises(charts.HelmError, match=word):
        charts.render(chart, "--set", option, release="hub", binary="helm3")


def _properties(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, value in schema.get("properties", {}).items():
        yield f"{path}.{name}", value
        yield from _properties(value, f"{path}.{name}")
        yield from _properties(value.get("items", {}), f"{path}.{name}[]")


@pytest.mark.parametrize("chart", [OPERATOR, CLUSTER])
def test_every_value_is_described_and_every_section_is_closed(chart: Path) -> None:
    schema = json.loads((chart / "values.schema.json").read_text())
    found = list(_properties(schema))
    assert len(found) > 50
    assert [path for path, value in found if not value.get("description")] == []
    open_ones = [
        path
        for path, value in found
        if "properties" in value and value.get("additionalProperties") is not False
    ]
    assert open_ones == []
    assert schema["additionalProperties"] is False


def test_values_file_names_every_value_of_the_schema() -> None:
    for chart in (OPERATOR, CLUSTER):
        schema = json.loads((chart / "values.schema.json").read_text())
        values = yaml.safe_load((chart / "values.yaml").read_text())
        assert set(schema["properties"]) - {"global"} == set(values)
