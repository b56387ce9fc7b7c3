"""The product's images: built when their inputs changed, loaded onto nodes that do not have them yet."""

import json
import os
import re
import shlex
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kindbed import baseimage, versions
from kindbed.cluster import Cluster
from kindbed.console import Word, exclusive, run_logged, say, step
from kindbed.engine import Engine
from kindbed.hostclients import build_mounts
from kindbed.paths import BUILD_DIR, REPOSITORY, content_hash, files_below

IMAGES_DIR = REPOSITORY / "images"
BASE = "base"
# What the operator's defaults name; a folder of another name below images/ is built as well.
EXPECTED = (BASE, "client", "haproxy", "operator", "orchestrator", "pooler", "postgres", "redis", "runner")

_FLAGS = re.compile(r"^(--\S+\s+)+")
INPUTS_LABEL = "runnerhub.io/inputs"
# On a node's image record; an import of the same name by somebody else removes it again.
LOADED_LABEL = "runnerhub.io/image-id"
_CTR = ("ctr", "--namespace", "k8s.io")


def image_name(name: str, tag: str = versions.PRODUCT_VERSION) -> str:
    """Full name of a product image, as the operator's defaults and the chart use it."""
    return f"{versions.PRODUCT_REGISTRY}/{name}:{tag}"


def names() -> list[str]:
    """Product images that have a Dockerfile, the base first because the others are built on it."""
    found = sorted(path.parent.name for path in IMAGES_DIR.glob("*/Dockerfile"))
    return sorted(found, key=lambda name: name != BASE)


def build(engine: Engine) -> list[str]:
    """Build the images whose inputs changed, and return the names of all; raises TestBedError when one fails."""
    found = names()
    for name in EXPECTED:
        if name not in found:
            say(f"    note: images/{name}/Dockerfile does not exist; {image_name(name)} is left out")
    with exclusive("product-images"):
        foundation = baseimage.ensure(engine)
        inherited = foundation
        for name in found:
            key = content_hash(_inputs(name), inherited)
            if engine.image_label(image_name(name), INPUTS_LABEL) != key:
                with step(f"build {image_name(name)}"):
                    _build(engine, name, key, foundation if name == BASE else image_name(BASE))
            if name == BASE:
                inherited = key
    return found


def _build(engine: Engine, name: str, key: str, base: str) -> None:
    common: list[Word] = [
        "--build-arg", f"BASE_IMAGE={base}", "--label", f"{INPUTS_LABEL}={key}", "--tag", image_name(name),
        "--file", IMAGES_DIR / name / "Dockerfile",
    ]  # fmt: skip
    own: list[str] = []
    if not engine.is_docker:
        own = ["--network", "host", "--isolation", "chroot", "--pull=never", *build_mounts()]
    run_logged([engine.command, "build", *own, *common, REPOSITORY], f"image-{name}", env=engine.environment)


def _inputs(name: str) -> list[Path]:
    """Files that decide what the image holds: its own folder and whatever its Dockerfile copies."""
    folder = IMAGES_DIR / name
    places = [str(folder.relative_to(REPOSITORY)), *_copied(folder / "Dockerfile")]
    return _tracked(places)


def _copied(dockerfile: Path) -> list[str]:
    """Sources of COPY and ADD that come from the build context."""
    sources: list[str] = []
    for line in dockerfile.read_text().replace("\\\n", " ").splitlines():
        instruction, _, rest = line.strip().partition(" ")
        if instruction.upper() not in ("COPY", "ADD"):
            continue
        arguments = _FLAGS.sub("", rest.strip())
        if "--from=" in rest:
            continue
        words = json.loads(arguments) if arguments.startswith("[") else shlex.split(arguments)
        sources += words[:-1]
    return sources


def _tracked(places: list[str]) -> list[Path]:
    """Files at these places that git tracks or would track; without git, all files but Python's byte code."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *places]
    try:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        found: list[Path] = []
        for place in places:
            for path in REPOSITORY.glob(place.removeprefix("./")):
                found += files_below(path) if path.is_dir() else [path]
        return sorted(set(found))
    paths = {REPOSITORY / name for name in done.stdout.split("\0") if name}
    return sorted(path for path in paths if path.is_file())


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One image as the engine has it."""

    name: str
    image_id: str


def load(cluster: Cluster) -> None:
    """Bring the product images onto all nodes; an image that a node already has with this content is skipped."""
    # No pod runs the base image itself.
    place(cluster, [image_name(name) for name in build(cluster.engine) if name != BASE])


def tag(cluster: Cluster, another: str) -> None:
    """Give the product images on all nodes a second tag, under which they stand for another version."""
    tags = [
        shlex.join([*_CTR, "images", "tag", "--force", image_name(name), image_name(name, another)])
        for name in names()
        if name != BASE
    ]
    for node in cluster.nodes("running"):
        cluster.engine.output("exec", node, "sh", "-c", " && ".join(tags))


def place(cluster: Cluster, images: list[str]) -> None:
    """Bring images that the engine has onto all nodes that do not have them with this content."""
    wanted = [_Wanted(name, image_id(cluster.engine, name)) for name in images]
    missing = {node: _missing(cluster.engine, node, wanted) for node in cluster.nodes("running")}
    missing = {node: images for node, images in missing.items() if images}
    if not missing:
        say(f"all nodes of {cluster.name} have the {len(wanted)} images")
        return
    needed = [image for image in wanted if any(image in images for images in missing.values())]
    BUILD_DIR.mkdir(exist_ok=True)
    with (
        step(f"load {len(needed)} images onto {len(missing)} nodes of {cluster.name}"),
        tempfile.TemporaryDirectory(prefix="images-", dir=BUILD_DIR) as folder,
    ):
        archive = Path(folder, "images.tar")
        _save(cluster.engine, archive, needed)
        with ThreadPoolExecutor(max_workers=min(len(missing), os.cpu_count() or 1)) as pool:
            jobs = [pool.submit(_import, cluster.engine, node, archive, needed) for node in missing]
            for job in jobs:
                job.result()


def image_id(engine: Engine, name: str) -> str:
    """Content id of an image that the engine has, 64 hexadecimal digits; raises TestBedError."""
    return engine.output("image", "inspect", "--format", "{{.Id}}", name).strip().removeprefix("sha256:")


def _missing(engine: Engine, node: str, wanted: list[_Wanted]) -> list[_Wanted]:
    rows = engine.output("exec", node, *_CTR, "images", "list").splitlines()[1:]
    # The first column is the name, the last one the labels: name=value pairs separated by commas.
    present = {
        (columns[0], label.partition("=")[2])
        for columns in (row.split() for row in rows)
        for label in columns[-1].split(",")
        if label.startswith(f"{LOADED_LABEL}=")
    }
    return [image for image in wanted if (image.name, image.image_id) not in present]


def _save(engine: Engine, archive: Path, images: list[_Wanted]) -> None:
    several = [] if engine.is_docker else ["--quiet", "--multi-image-archive"]
    command: list[Word] = [
        engine.command,
        "save",
        *several,
        "--output",
        archive,
        *(image.name for image in images),
    ]
    run_logged(command, "images-save", env=engine.environment)


def _import(engine: Engine, node: str, archive: Path, images: list[_Wanted]) -> None:
    inside = [engine.command, "exec", "--interactive", node]
    run_logged(
        [*inside, *_CTR, "images", "import", "-"], f"images-{node}", env=engine.environment, stdin=archive
    )
    # The id that the engine knows is not visible on the node, because saving an image writes its parts anew.
    marks = [
        shlex.join([*_CTR, "images", "label", image.name, f"{LOADED_LABEL}={image.image_id}"])
        for image in images
    ]
    script = " && ".join(marks)
    run_logged([*inside, "sh", "-c", script], f"images-{node}", env=engine.environment)
