"""The ha-agent's look at a bucket against a real S3 server: Versity's gateway on a folder."""

import asyncio
import contextlib
import subprocess
import time
from pathlib import Path

import pytest

from kindbed import gotools
from runnerhub_operator.agent.bucket import PROBE_FOLDER, BucketProbe
from runnerhub_operator.agent.settings import BucketSettings
from runnerhub_operator.errors import ProbeError
from tests.integration.orchestrator.conftest import running
from tests.share import free_port

NODE, BUCKET = "hub-orchestrator-a", "runnerhub"
ACCESS, SECRET = "anaccesskey", "open sesame"


class Store:
    """One server at a time on the same port and folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.buckets = folder / "buckets"
        for name in ("buckets", "metadata", "credentials"):
            (folder / name).mkdir()
        (self.buckets / BUCKET).mkdir()
        self.give(ACCESS, SECRET)

    def give(self, access: str, secret: str) -> None:
        """What the Secret has, as the kubelet would write it."""
        (self.folder / "credentials" / "AWS_ACCESS_KEY_ID").write_text(access)
        (self.folder / "credentials" / "AWS_SECRET_ACCESS_KEY").write_text(f"{secret}\n")

    def serve(self, *more: str, secret: str = SECRET):
        arguments = {
            "-root": self.buckets,
            "-metadata": self.folder / "metadata",
            "-listen": f"127.0.0.1:{self.port}",
            "-access": ACCESS,
            "-secret": secret,
        }
        words = [str(word) for pair in arguments.items() for word in pair]
        binary = gotools.ensure("s3-server")["s3-server"]
        return running([str(binary), *words, *more], self.port, cwd=self.folder)

    def probe(self, timeout_seconds: float = 3, **changed) -> BucketProbe:
        given = {
            "bucket": BUCKET,
            "region": "us-east-1",
            "endpoint": f"http://127.0.0.1:{self.port}",
            "path_style": True,
            "credentials_folder": self.folder / "credentials",
        }
        return BucketProbe(NODE, BucketSettings(**(given | changed)), timeout_seconds)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


async def failure(probe: BucketProbe) -> str:
    with pytest.raises(ProbeError) as caught:
        await probe()
    told = str(caught.value)
    assert SECRET not in told
    assert ACCESS not in told
    assert len(told) < 200, told
    return told


async def test_each_node_writes_and_reads_an_object_of_its_own(store):
    with store.serve():
        for prefix, name in (("", f"{PROBE_FOLDER}/{NODE}"), ("ci/hub", f"ci/hub/{PROBE_FOLDER}/{NODE}")):
            probe = store.probe(prefix=prefix)
            first = time.time_ns()
            assert await probe() == {"bucket": BUCKET, "object": name}
            written = int((store.buckets / BUCKET / name).read_text())
            assert first < written < time.time_ns()
            await probe()
            assert int((store.buckets / BUCKET / name).read_text()) > written, "it writes each time"


async def test_the_bucket_can_stand_before_the_host(store, monkeypatch):
    # No name below another leads to loopback on every machine, so the server is told to be the proxy as well.
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{store.port}")
    with store.serve("-domain", "store.test"):
        probe = store.probe(path_style=False, endpoint="http://store.test")
        assert (await probe())["bucket"] == BUCKET
    assert (store.buckets / BUCKET / PROBE_FOLDER / NODE).exists()


async def test_new_credentials_count_without_a_restart(store):
    probe = store.probe()
    with store.serve():
        await probe()
    with store.serve(secret="another"):
        assert "the secret access key is wrong" in await failure(probe)
        store.give(ACCESS, "another")
        await probe()


async def test_what_is_wrong_is_told_in_words_without_keys(store):
    with store.serve():
        assert "there is no such bucket (NoSuchBucket)" in await failure(store.probe(bucket="another"))
        store.give("somebody-else", SECRET)
        # This server has a code of its own for it.
        assert "the store refuses (XAdminUserNotFound)" in await failure(store.probe())
        (store.folder / "credentials" / "AWS_ACCESS_KEY_ID").unlink()
        assert await failure(store.probe()) == (
            "the credentials' Secret is missing, or lacks AWS_ACCESS_KEY_ID"
        )
        store.give(ACCESS, SECRET)
        assert "another region" in await failure(store.probe(region="eu-central-1"))
        # A name server that is away takes its time.
        nowhere = store.probe(endpoint=f"http://no-such-host.invalid:{store.port}", timeout_seconds=60)
        assert "its name has no address" in await failure(nowhere)
    assert "the connection is refused" in await failure(store.probe())


async def test_an_object_that_somebody_else_changes_meanwhile_is_not_taken_for_ones_own(store):
    """A store that gives back what it was not given: here another writer, quick enough in one of many tries."""
    target = store.buckets / BUCKET / PROBE_FOLDER / NODE
    probe = store.probe()
    stop = asyncio.Event()

    async def disturb() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                target.write_text("not mine")
            await asyncio.sleep(0)

    with store.serve():
        task = asyncio.create_task(disturb())
        async with asyncio.timeout(20):
            while True:
                try:
                    await probe()
                except ProbeError as error:
                    if "does not read back what was written" in str(error):
                        break
        stop.set()
        await task


async def test_a_store_that_hangs_is_given_up_in_time_and_does_not_block_the_loop(store):
    async def never_answer(_reader, writer):
        await asyncio.Event().wait()

    server = await asyncio.start_server(never_answer, "127.0.0.1", store.port)
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - before)

    ticking = asyncio.create_task(tick())
    started = time.monotonic()
    assert "it does not answer in time" in await failure(store.probe(timeout_seconds=12))
    assert 11.9 < time.monotonic() - started < 40
    assert longest < 8
    ticking.cancel()
    server.close()


async def test_an_answer_can_be_cancelled(store):
    async def never_answer(_reader, writer):
        await asyncio.Event().wait()

    server = await asyncio.start_server(never_answer, "127.0.0.1", store.port)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(store.probe(timeout_seconds=60)(), 0.3)
    assert time.monotonic() - started < 30
    server.close()


@pytest.fixture
def authority(tmp_path):
    """An authority's certificate, and certificate and key for 127.0.0.1 that it has signed."""
    ca, ca_key, server, key = (tmp_path / name for name in ("ca.crt", "ca.key", "server.crt", "server.key"))
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for words in (
        ["-subj", "/CN=authority", "-keyout", ca_key, "-out", ca],
        [
            "-subj", "/CN=store", "-addext", "subjectAltName=IP:127.0.0.1",
            "-addext", "basicConstraints=critical,CA:FALSE",
            "-CA", ca, "-CAkey", ca_key, "-keyout", key, "-out", server,
        ],
    ):  # fmt: skip
        subprocess.run([*new, "-days", "1", *words], check=True, capture_output=True)
    return ca, server, key


async def test_a_private_authority_is_trusted_when_its_certificate_is_given(store, authority):
    ca, server, key = authority
    endpoint = f"https://127.0.0.1:{store.port}"
    with store.serve("-cert", str(server), "-key", str(key)):
        assert (await store.probe(endpoint=endpoint, ca_file=ca)())["bucket"] == BUCKET
        assert "signed by somebody who is not trusted" in await failure(store.probe(endpoint=endpoint))
        broken = store.folder / "broken.crt"
        broken.write_text("-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n")
        assert "bucket runnerhub at https" in await failure(store.probe(endpoint=endpoint, ca_file=broken))
        missing = store.probe(endpoint=endpoint, ca_file=store.folder / "gone")
        assert "certificates of the store's authority cannot be read" in await failure(missing)
