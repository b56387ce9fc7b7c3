"""The commands of the quick start and of the how-tos, run as they stand there, before there is any other cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.lab.bed import OPERATOR_NAMESPACE, Bed
from kindbed import gotools, paths
from tests import doc_commands
from tests.doc_commands import Block

NAMESPACE = "builds"
BLOCK_SECONDS = 900.0
# The images are there.
QUICK_START_SECONDS = 300.0


class Reader:
    """Somebody who types what a page says."""

    def __init__(self, bed: Bed, folder: Path) -> None:
        # A copy, because a page changes the context's namespace.
        kubeconfig = folder / "kubeconfig"
        shutil.copyfile(bed.cluster.kubeconfig, kubeconfig)
        tools = {str(path.parent) for path in gotools.ensure("kubectl", "helm").values()}
        # Commands name files of the checkout, and what they write must not get into it.
        self._checkout = folder / "checkout"
        self._checkout.mkdir()
        for entry in paths.REPOSITORY.iterdir():
            (self._checkout / entry.name).symlink_to(entry)
        # As the quick start says it for the plugin that it builds: each block has a shell of its own here.
        path = os.pathsep.join([str(self._checkout / "build"), *sorted(tools), os.environ["PATH"]])
        self._environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            "KUBECONFIG": str(kubeconfig),
            "PATH": path,
            "NO_COLOR": "1",
            # Where the plugin unpacks itself.
            "SHIV_ROOT": str(folder / "shiv"),
        }

    def follow(self, page: str) -> None:
        """Run the blocks of a page."""
        for block in doc_commands.runnable(page):
            self._run(block)

    def _run(self, block: Block) -> None:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=self._checkout,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=BLOCK_SECONDS,
        )
        print(f"{block.place}\n{block.text}\n{done.stdout}")
        assert done.returncode == 0, f"{block.place} ended with {done.returncode}:\n{done.stdout[-3000:]}"


@pytest.fixture(scope="module")
def reader(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Reader, float]]:
    """Somebody who has done what the quick start says, and how many seconds that took."""
    found = Reader(bed, tmp_path_factory.mktemp("reader"))
    # Of a run that was cut off.
    bed.delete_namespace(NAMESPACE)
    # The quick start installs it.
    bed.helm(
        "uninstall", "runnerhub-operator", "--namespace", OPERATOR_NAMESPACE, "--wait", "--ignore-not-found"
    )
    started = time.monotonic()
    try:
        found.follow(doc_commands.QUICK_START)
        yield found, time.monotonic() - started
    finally:
        bed.delete_namespace(NAMESPACE)
        # The pages install the operator by the chart's defaults; the other tests want the mark of its image.
        bed.install_operator()


def test_the_quick_start_takes_less_than_five_minutes(reader: tuple[Reader, float]) -> None:
    assert reader[1] < QUICK_START_SECONDS


@pytest.mark.parametrize(
    "page", [page for page in doc_commands.runnable_pages() if page != doc_commands.QUICK_START]
)
def test_the_commands_of_a_how_to_work(reader: tuple[Reader, float], page: str) -> None:
    reader[0].follow(page)
