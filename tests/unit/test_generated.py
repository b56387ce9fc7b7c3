"""Generated files are committed and current."""

from __future__ import annotations

import pytest
import yaml

from tests.generate import ROOT, example, generated


def test_committed_files_are_what_the_models_and_builders_give() -> None:
    stale = [
        str(path.relative_to(ROOT))
        for path, text in generated().items()
        if not path.exists() or path.read_text() != text
    ]
    assert stale == [], "run `make generate` and review the difference"


def test_minimal_example_has_at_most_12_lines() -> None:
    assert len((ROOT / "examples" / "minimal.yaml").read_text().splitlines()) <= 12


def _pod_templates() -> list[tuple[str, dict]]:
    found = []
    for path in sorted((ROOT / "tests" / "unit" / "golden").glob("*.yaml")):
        for manifest in yaml.safe_load_all(path.read_text()):
            if "template" in manifest.get("spec", {}):
                name = f"{path.stem}/{manifest['metadata']['name']}"
                found.append((name, manifest["spec"]["template"]["spec"]))
            if manifest["kind"] == "Pod":
                found.append((f"{path.stem}/{manifest['metadata']['name']}", manifest["spec"]))
    return found


@pytest.mark.parametrize(("name", "pod"), _pod_templates())
def test_pods_hold_the_restricted_pod_security_standard(name: str, pod: dict) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
    for container in [*pod.get("initContainers", ()), *pod["containers"]]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, container["name"]
        assert context["capabilities"]["drop"] == ["ALL"], container["name"]
        assert context["readOnlyRootFilesystem"] is True, container["name"]
        assert container["resources"]["requests"], container["name"]
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    assert all(set(volume) - {"name"} <= allowed for volume in pod.get("volumes", ()))


def test_every_manifest_is_owned_and_labelled() -> None:
    for path in (ROOT / "tests" / "unit" / "golden").glob("*.yaml"):
        for manifest in yaml.safe_load_all(path.read_text()):
            metadata = manifest["metadata"]
            if metadata["name"] in ("hub-redis-state", "hub-shared"):
                assert "ownerReferences" not in metadata, "it outlives the cluster"
                continue
            assert metadata["ownerReferences"][0]["controller"] is True
            assert metadata["labels"]["app.kubernetes.io/managed-by"] == "runnerhub-operator"
            assert metadata["labels"]["runnerhub.io/cluster"] == example("minimal")["metadata"]["name"]
