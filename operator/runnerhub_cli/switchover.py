"""Moving the role of the Postgres primary: ask for it by the annotation, wait, tell what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from runnerhub_operator import names
from runnerhub_operator.api import SwitchoverResult, SwitchoverStatus, parse_cluster, parse_status
from runnerhub_operator.errors import InvalidSpecError

from .errors import CliError, Exit
from .kubectl import CLUSTERS, Kubectl, Manifest

POLL_SECONDS: Final = 1.0
# The operator gives up after ten minutes, see plan/switchover.py.
TIMEOUT_SECONDS: Final = 660
# The operator looks at an edited cluster at once; one that has not after so long is not there.
_UNNOTICED_SECONDS: Final = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request. `seconds`: from asking until the result was seen."""

    result: SwitchoverResult
    primary_before: str | None
    primary: str | None
    seconds: float
    message: str

    @property
    def code(self) -> Exit:
        """The exit code."""
        return {
            SwitchoverResult.DONE: Exit.OK,
            SwitchoverResult.REFUSED: Exit.CRITICAL,
            SwitchoverResult.PENDING: Exit.UNKNOWN,
        }[self.result]


def check(body: Mapping[str, Any], wanted: str) -> None:
    """Refuse what the operator would only refuse or ignore; raises CliError."""
    try:
        cluster = parse_cluster(body)
    except InvalidSpecError:
        # A newer operator's spec; the operator will judge.
        return
    members = names.members(cluster.name, names.POSTGRES, cluster.spec.postgres.instances)
    if wanted not in members:
        raise CliError(f"{wanted} is no Postgres member of {cluster.name}; there are: {', '.join(members)}")
    if cluster.spec.paused:
        raise CliError(
            f"{cluster.name} is paused (spec.paused), so no switchover would take place", Exit.CRITICAL
        )


def answer_of(body: Mapping[str, Any], wanted: str) -> SwitchoverStatus | None:
    """What the operator says of this request, None when it has not seen it."""
    found = parse_status(body).postgres.switchover
    return found if found is not None and found.request == wanted else None


class Switchover:
    """One request. `tell` gets a line whenever there is something new to tell."""

    def __init__(self, kubectl: Kubectl, name: str, wanted: str, tell: Callable[[str], None]) -> None:
        self._kubectl = kubectl
        self._name = name
        self._wanted = wanted
        self._tell = tell

    def run(self, body: Manifest, timeout_seconds: float) -> Outcome:
        """Ask and wait."""
        before = parse_status(body).postgres.primary
        began = time.monotonic()
        if before == self._wanted:
            return Outcome(
                SwitchoverResult.DONE, before, before, 0.0, f"{self._wanted} is the primary already"
            )
        deadline = began + timeout_seconds
        # The same request is followed once only; it counts anew when it was away in between.
        annotations = body["metadata"].get("annotations") or {}
        if names.ANNOTATION_SWITCH_PRIMARY in annotations or answer_of(body, self._wanted) is not None:
            self._annotate("-")
            self._wait_until_forgotten(deadline)
        began = time.monotonic()
        self._annotate(f"={self._wanted}")
        return self._wait(before, began, deadline)

    def _annotate(self, ending: str) -> None:
        change = f"{names.ANNOTATION_SWITCH_PRIMARY}{ending}"
        self._kubectl.text("annotate", CLUSTERS, self._name, change, "--overwrite")

    def _read(self) -> Manifest:
        return self._kubectl.json("get", CLUSTERS, self._name)

    def _wait_until_forgotten(self, deadline: float) -> None:
        self._tell("an earlier request is taken back first")
        while answer_of(self._read(), self._wanted) is not None:
            if time.monotonic() > deadline:
                raise CliError(
                    "the operator does not take note of anything; `kubectl runnerhub doctor` tells whether it runs"
                )
            time.sleep(POLL_SECONDS)

    def _wait(self, before: str | None, began: float, deadline: float) -> Outcome:
        told = ""
        while True:
            body = self._read()
            answer, passed = answer_of(body, self._wanted), time.monotonic() - began
            primary = parse_status(body).postgres.primary
            if answer is not None and answer.result is not SwitchoverResult.PENDING:
                return Outcome(answer.result, before, primary, round(passed, 1), answer.message)
            said = answer.message if answer is not None else ""
            if answer is None and passed > _UNNOTICED_SECONDS:
                said = "the operator has not taken note of it yet; `kubectl runnerhub doctor` tells whether it runs"
            if said and said != told:
                self._tell(said)
                told = said
            if time.monotonic() > deadline:
                message = f"not decided in time: {told or 'no word of the operator'}; the request stays"
                return Outcome(SwitchoverResult.PENDING, before, primary, round(passed, 1), message)
            time.sleep(POLL_SECONDS)
