#!/usr/bin/env python3
"""A real API server without nodes: etcd and kube-apiserver on loopback, for the integration tests.

Storage, validation, admission, RBAC and watches are real; no controllers run, so nothing is created or removed
on its own (deleted namespaces stay Terminating, pods stay Pending).
"""

import ctypes
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent))

from kindbed import gotools
from kindbed.console import TestBedError
from kindbed.paths import BUILD_DIR

READY_DEADLINE_SECONDS = 60
STOP_DEADLINE_SECONDS = 10
_LOG_TAIL_LINES = 20
# Memory for time: these servers share the cores with what is tested, where a real installation has machines for them.
# With Go's default of 100 the API server needs a third more of them.
_GARBAGE_PERCENT = "800"
_PR_SET_PDEATHSIG = 1  # prctl(2)


class ApiServer:
    """Owns two processes and those that spawn() adds, and a folder.

    Use it as a context manager, or call start() and stop().

    `kubeconfig` is valid after start() and makes its user a member of system:masters; other users are reached
    by impersonation (`kubectl --as`). Start it from a thread that lives as long as the server is needed, such as
    the main one: the kernel ends the servers together with it.

    `service_range` is where ClusterIPs come from (a RunnerHubCluster takes some fifteen); `flags` are further
    ones of kube-apiserver.
    """

    def __init__(
        self, folder: Path | None = None, *, service_range: str = "10.0.0.0/16", flags: Sequence[str] = ()
    ) -> None:
        self._given_folder = folder
        self._service_range = service_range
        self._flags = flags
        self._folder = Path()
        self._processes: list[subprocess.Popen[bytes]] = []
        self.url = ""
        self.token = ""

    @property
    def folder(self) -> Path:
        """Where data, logs and the kubeconfig are; valid after start()."""
        return self._folder

    @property
    def kubeconfig(self) -> Path:
        """File with the server's address, its certificate authority and an administrator's token."""
        return self._folder / "kubeconfig"

    @property
    def certificate_authority(self) -> Path:
        """PEM file that verifies the server's certificate."""
        return self._folder / "certificates" / "apiserver.crt"

    def start(self) -> Path:
        """Start both processes and wait until the server is ready; returns the kubeconfig file.

        Raises TestBedError with the end of the log when one of them ends or is not ready in time.
        """
        binaries = gotools.ensure("etcd", "kube-apiserver")
        BUILD_DIR.mkdir(exist_ok=True)
        self._folder = self._given_folder or Path(tempfile.mkdtemp(prefix="apiserver-", dir=BUILD_DIR))
        self._folder.mkdir(parents=True, exist_ok=True)
        self.token = secrets.token_urlsafe(32)
        try:
            etcd_url = self._start_etcd(binaries["etcd"])
            self._start_server(binaries["kube-apiserver"], etcd_url)
            self._wait_ready()
        except BaseException:
            self.stop()
            raise
        self._write_kubeconfig()
        return self.kubeconfig

    def stop(self) -> None:
        """End the processes and remove their folder (one that the caller gave is left to the caller)."""
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(STOP_DEADLINE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        if not self._given_folder and self._folder != Path():
            shutil.rmtree(self._folder, ignore_errors=True)

    def spawn(self, name: str, *command: str | Path) -> subprocess.Popen[bytes]:
        """Run a process beside the server, with its log in the folder; stop() ends it first."""
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "GOGC": _GARBAGE_PERCENT},
                # Ctrl-C in the terminal is for the tests; they stop the server afterwards.
                start_new_session=True,
                preexec_fn=end_with_parent,  # noqa: PLW1509 - one prctl call, before any thread matters
            )
        self._processes.append(process)
        return process

    def __enter__(self) -> "ApiServer":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start_etcd(self, binary: Path) -> str:
        client, peer = (f"http://127.0.0.1:{port}" for port in _free_ports(2))
        self.spawn(
            "etcd", binary, f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}", "--log-level=warn",
            # The data is thrown away anyway; waiting for the disk would only slow the tests down.
            "--unsafe-no-fsync",
        )  # fmt: skip
        return client

    def _start_server(self, binary: Path, etcd_url: str) -> None:
        (port,) = _free_ports(1)
        self.url = f"https://127.0.0.1:{port}"
        tokens = self._folder / "tokens.csv"
        tokens.touch(0o600)
        tokens.write_text(f'{self.token},admin,admin,"system:masters"\n')
        certificates = self._folder / "certificates"
        # The server makes its own certificate with this key; the same key signs service account tokens.
        key = certificates / "apiserver.key"
        self.spawn(
            "kube-apiserver", binary, f"--etcd-servers={etcd_url}",
            "--bind-address=127.0.0.1", f"--secure-port={port}", f"--cert-dir={certificates}",
            f"--token-auth-file={tokens}", "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={key}", f"--service-account-key-file={key}",
            f"--service-cluster-ip-range={self._service_range}",
            # No controller makes the service account that each pod would have to have.
            "--disable-admission-plugins=ServiceAccount",
            # The address is a loopback one, which the Service "kubernetes" may not point to.
            "--endpoint-reconciler-type=none", "--profiling=false", *self._flags,
        )  # fmt: skip

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + READY_DEADLINE_SECONDS
        while time.monotonic() < deadline:
            ended = [process for process in self._processes if process.poll() is not None]
            if ended:
                break
            if self._answers("/readyz"):
                return
            time.sleep(0.1)
        tails = [
            "\n".join(path.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:])
            for path in sorted(self._folder.glob("*.log"))
        ]
        raise TestBedError("the API server did not become ready:\n" + "\n".join(tails))

    def _answers(self, path: str) -> bool:
        try:
            trust = ssl.create_default_context(cafile=str(self.certificate_authority))
            request = urllib.request.Request(  # noqa: S310 - always https
                self.url + path, headers={"Authorization": f"Bearer {self.token}"}
            )
            with urllib.request.urlopen(request, context=trust, timeout=2) as answer:  # noqa: S310 - as above
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False  # no certificate yet, nobody listens yet, or not ready yet

    def _write_kubeconfig(self) -> None:
        # JSON is YAML too.
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "integration",
            "clusters": [
                {
                    "name": "integration",
                    "cluster": {
                        "server": self.url,
                        "certificate-authority": str(self.certificate_authority),
                    },
                }
            ],
            "users": [{"name": "admin", "user": {"token": self.token}}],
            "contexts": [{"name": "integration", "context": {"cluster": "integration", "user": "admin"}}],
        }
        self.kubeconfig.touch(0o600)
        self.kubeconfig.write_text(json.dumps(config, indent=2) + "\n")


def end_with_parent() -> None:
    """For Popen's preexec_fn: a killed test run must not leave processes behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on; all are held until the last is found, so they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for candidate in sockets:
            candidate.bind(("127.0.0.1", 0))
        return [int(candidate.getsockname()[1]) for candidate in sockets]
    finally:
        for candidate in sockets:
            candidate.close()


def main() -> int:
    """Run a server until Ctrl-C."""
    started = time.monotonic()
    with ApiServer() as server:
        print(
            f"ready after {time.monotonic() - started:.1f} s: export KUBECONFIG={server.kubeconfig}",
            flush=True,
        )
        try:
            signal.pause()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
