"""What a release writes into the files that it publishes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from release import archives, build
from runnerhub_operator import __version__
from tests import charts
from tests.unit.release.test_archives import write_image


@pytest.mark.parametrize("binary", charts.HELMS)
def test_a_released_chart_names_its_images_by_digest_unless_a_tag_is_asked_for(
    tmp_path: Path, binary: str
) -> None:
    chart, archive = tmp_path / "charts" / "runnerhub-operator", tmp_path / "redis.oci.tar"
    shutil.copytree(charts.OPERATOR, chart)
    write_image(archive, [{"etc/a": b"1"}])
    build.pin(tmp_path, {"redis": archive, "operator": archive})
    digest = archives.image_digest(archive)

    def images(*options: str) -> dict[str, str]:
        rendered = charts.render(chart, *options, binary=binary)
        deployment = next(item for item in rendered if item["kind"] == "Deployment")
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        found = {item["name"]: item.get("value") for item in container["env"]}
        return {
            "own": container["image"],
            **{name: found[f"RUNNERHUB_IMAGE_{name}"] for name in ("REDIS", "POOLER")},
        }

    here = "ghcr.io/runnerhub"
    assert images() == {
        "own": f"{here}/operator@{digest}",
        "REDIS": f"{here}/redis@{digest}",
        "POOLER": f"{here}/pooler:{__version__}",
    }
    assert images("--set", "image.tag=mine")["REDIS"] == f"{here}/redis:mine"
    given = f"sha256:{'b' * 64}"
    assert images("--set", f"image.digests.redis={given}")["REDIS"] == f"{here}/redis@{given}"
    assert images("--set", "image.overrides.redis=else.test/redis:1")["REDIS"] == "else.test/redis:1"
