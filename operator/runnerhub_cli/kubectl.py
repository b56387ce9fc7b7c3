"""All access to Kubernetes: kubectl itself as a child process.

It is there, because this is its plugin, and it knows the user's kubeconfig with everything that may be in it: plugins
that log in, proxies, contexts. So one way for reading, for exec and for logs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final, NoReturn, Self, TypeVar

from runnerhub_operator import names

from .errors import CliError

Manifest = dict[str, Any]
T = TypeVar("T")

CLUSTERS: Final = f"{names.PLURAL}.{names.API_GROUP}"
REQUEST_SECONDS: Final = 15
# Starting kubectl and logging in by a plugin come on top of the request itself.
_MARGIN_SECONDS: Final = 30
_AT_ONCE: Final = 6


class KubectlError(CliError):
    """kubectl did not succeed. `kind`: forbidden, notfound, unreachable, refused or other."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Unknown:
    """Stands for what could not be read; `why` is a clause."""

    why: str


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl for one target; None leaves the choice to the kubeconfig."""

    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None

    def in_namespace(self, namespace: str) -> Self:
        """The same with another namespace."""
        return replace(self, namespace=namespace)

    def arguments(self, *words: str, everywhere: bool = False) -> list[str]:
        """The command line; `everywhere`: without a namespace, for what is asked of all of them or has none."""
        target = []
        if self.kubeconfig is not None:
            target += ["--kubeconfig", self.kubeconfig]
        if self.context is not None:
            target += ["--context", self.context]
        if self.namespace is not None and not everywhere:
            target += ["--namespace", self.namespace]
        # What follows "--" belongs to a program in a pod.
        own = words.index("--") if "--" in words else len(words)
        return ["kubectl", *words[:own], *target, *words[own:]]

    def text(
        self,
        *words: str,
        everywhere: bool = False,
        stdin: str | None = None,
        seconds: int = REQUEST_SECONDS,
    ) -> str:
        """Standard output of a command; raises KubectlError."""
        arguments = self.arguments(*words, everywhere=everywhere)
        try:
            done = subprocess.run(
                [_program(), *arguments[1:]],
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=seconds + _MARGIN_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise KubectlError(
                f"kubectl {words[0]} gave no answer within {seconds + _MARGIN_SECONDS} s", "unreachable"
            ) from error
        if done.returncode != 0:
            raise explain(done.stderr)
        return done.stdout

    def json(self, *words: str, everywhere: bool = False) -> Manifest:
        """What a command answers as JSON."""
        return self.documents(*words, everywhere=everywhere)[0]

    def documents(self, *words: str, everywhere: bool = False, stdin: str | None = None) -> list[Manifest]:
        """What a command answers as JSON, one document after the other."""
        limit = f"--request-timeout={REQUEST_SECONDS}s"
        return _documents(self.text(*words, "--output", "json", limit, everywhere=everywhere, stdin=stdin))

    def items(
        self,
        kind: str,
        *,
        selector: str = "",
        fields: str = "",
        everywhere: bool = False,
        options: Sequence[str] = (),
    ) -> list[Manifest]:
        """Objects of a kind in the namespace, or in all of them."""
        words = ["get", kind, *options]
        words += ["--selector", selector] if selector else []
        words += ["--field-selector", fields] if fields else []
        words += ["--all-namespaces"] if everywhere else []
        found: list[Manifest] = self.json(*words, everywhere=everywhere).get("items", [])
        return found

    def current_namespace(self) -> str:
        """The namespace that is meant when none is named."""
        if self.namespace is not None:
            return self.namespace
        told = self.text("config", "view", "--minify", "--output", "jsonpath={..namespace}").strip()
        return told or "default"

    def become(self, *words: str) -> NoReturn:
        """Let kubectl take the place of this program, with the terminal; its exit code is the program's."""
        arguments = self.arguments(*words)
        program = _program()
        sys.stdout.flush()
        sys.stderr.flush()
        if os.name == "nt":
            raise SystemExit(subprocess.run([program, *arguments[1:]], check=False).returncode)
        os.execv(program, arguments)  # noqa: S606 - no shell is wanted


def _documents(text: str) -> list[Manifest]:
    decoder, position, found = json.JSONDecoder(), 0, []
    while position < len(text):
        document, position = decoder.raw_decode(text, position)
        found.append(document)
        position += len(text[position:]) - len(text[position:].lstrip())
    if not found:
        raise KubectlError("kubectl answered nothing", "other")
    return found


def _program() -> str:
    found = shutil.which("kubectl")
    if found is None:
        raise CliError("kubectl is not on PATH; install it: https://kubernetes.io/docs/tasks/tools/")
    return found


_NOISE: Final = re.compile(r"^(error: |Error from server(?: \((?P<reason>\w+)\))?: )")
_UNREACHABLE: Final = (
    "connection refused",
    "was refused",
    "no such host",
    "i/o timeout",
    "deadline exceeded",
    "Timeout exceeded",
    "network is unreachable",
    "no route to host",
    "TLS handshake timeout",
    "ServiceUnavailable",
    "EOF",
)


def explain(stderr: str) -> KubectlError:
    """The error that kubectl's last words tell, as one sentence."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    # Discovery tells its troubles before the error itself, one line for each try.
    lines = [line for line in lines if not re.match(r"^[EWI][0-9]{4} ", line)] or lines
    told = lines[-1] if lines else "kubectl failed without a word"
    # A list of several errors has a head line; the first one says enough.
    found = _NOISE.match(told)
    reason = (found["reason"] or "") if found else ""
    sentence = _NOISE.sub("", told)
    if "the server doesn't have a resource type" in told and names.PLURAL in told:
        return KubectlError(
            "RunnerHub is not installed in this Kubernetes cluster: it does not know RunnerHubClusters; "
            "`kubectl runnerhub doctor` tells what is missing",
            "notfound",
        )
    if reason == "Forbidden" or "(Forbidden)" in told:
        return KubectlError(f"no permission: {sentence}", "forbidden")
    if reason == "NotFound":
        return KubectlError(sentence, "notfound")
    if reason == "Unauthorized" or "must be logged in" in told or "Unauthorized" in told:
        return KubectlError(
            "the API server does not know you: log in again, or name another --context", "refused"
        )
    if any(word in stderr for word in _UNREACHABLE):
        return KubectlError(f"the API server does not answer: {sentence}", "unreachable")
    kind = "refused" if reason in ("Invalid", "BadRequest", "Conflict", "AlreadyExists") else "other"
    return KubectlError(sentence, kind)


def known(read: Callable[[], T]) -> T | Unknown:
    """What a reading gives, or why there is nothing; only an API server that does not answer ends the program."""
    try:
        return read()
    except KubectlError as error:
        if error.kind == "unreachable":
            raise
        return Unknown(str(error))


def at_once(readings: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Several readings at a time; the first error counts."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        running = {name: pool.submit(read) for name, read in readings.items()}
        return {name: future.result() for name, future in running.items()}
