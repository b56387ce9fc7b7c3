"""kubectl as a Python object: JSON in, JSON out, waiting with a deadline."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class KubectlError(RuntimeError):
    """kubectl ended with an error; the text is what it said."""


class WaitTimeoutError(AssertionError):
    """A state did not come within its deadline."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl with one kubeconfig and one namespace."""

    binary: Path
    kubeconfig: Path
    namespace: str = "default"

    def in_namespace(self, namespace: str) -> Kubectl:
        """The same kubectl for another namespace."""
        return Kubectl(self.binary, self.kubeconfig, namespace)

    def __call__(self, *arguments: str, stdin: str | None = None, timeout: float = 120.0) -> str:
        """Run kubectl; its output. Raises KubectlError."""
        command = [
            str(self.binary),
            f"--kubeconfig={self.kubeconfig}",
            f"--namespace={self.namespace}",
            *arguments,
        ]
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def apply(self, *manifests: dict[str, Any]) -> str:
        """Apply manifests."""
        return self(
            "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        )

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """An object, None when there is none."""
        text = self("get", kind, name, "--ignore-not-found", "-o", "json")
        return json.loads(text) if text.strip() else None

    def items(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        """All objects of a kind in the namespace that match a label selector."""
        chosen = ["-l", selector] if selector else []
        found: list[dict[str, Any]] = json.loads(self("get", kind, *chosen, "-o", "json"))["items"]
        return found

    def await_definition(self, name: str) -> None:
        """Wait until a CustomResourceDefinition is served."""
        command = ("wait", f"crd/{name}", "--for=condition=Established", "--timeout=30s")
        # For a moment after it was made it has no conditions at all, which `kubectl wait` takes for an error.
        wait_for(f"{name} to be served", lambda: self(*command), 30)

    def delete_pod_now(self, name: str) -> None:
        """Delete a pod without grace: what a crashed node or an impatient person does."""
        self("delete", "pod", name, "--force", "--grace-period=0", "--wait=false")


def wait_for(what: str, look: Callable[[], T | None], seconds: float, every: float = 0.5) -> T:
    """Poll until `look` gives something true; it. Raises WaitTimeoutError with the last thing seen."""
    deadline = time.monotonic() + seconds
    last: object = None
    while True:
        try:
            found = look()
        except (KubectlError, subprocess.TimeoutExpired, ValueError) as error:
            last, found = error, None
        else:
            if found:
                return found
            last = found
        if time.monotonic() > deadline:
            raise WaitTimeoutError(f"{what}: not within {seconds:.0f} s; last seen: {last!r}")
        time.sleep(every)
