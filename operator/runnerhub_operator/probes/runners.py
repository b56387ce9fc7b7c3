"""Asks an orchestrator what the pools of runners are sized by, and tells runners to take no more jobs."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from .. import names
from ..errors import ProbeError
from .http import Program

_log = logging.getLogger(__name__)

_ORCHESTRATOR: Final = Program("the orchestrator", names.PORT_ORCHESTRATOR)
_RUNNER: Final = Program("the runner", names.PORT_RUNNER)
# One that hangs must not be the only one that is asked.
_ASKED: Final = 2
# More are as many: all sums of them fit into a status.
MOST_JOBS: Final = 10**9


@dataclass(frozen=True, slots=True)
class Demand:
    """`waiting`: jobs that no runner has, by the labels that they ask for. `busy`: names of runners that have one."""

    waiting: tuple[tuple[frozenset[str], int], ...]
    busy: frozenset[str]


async def read_demand(
    http: aiohttp.ClientSession, hosts: Sequence[str], token: str, *, deadline_seconds: float
) -> Demand:
    """Ask two orchestrators at most, one after the other. ProbeError: none of them tells it.

    Its text is the same whoever was asked, because people are told of it: a text that changes would be written anew at
    each visit.
    """
    asked = random.sample(hosts, min(len(hosts), _ASKED))  # spreads load
    if not asked:
        raise ProbeError("no orchestrator is ready")
    for host in asked:
        try:
            text = await _ORCHESTRATOR.call(
                http,
                "GET",
                host,
                "/api/runners/demand",
                deadline_seconds=deadline_seconds / len(asked),
                bearer=token,
            )
            return parse_demand(json.loads(text))
        except (ProbeError, ValueError) as error:
            _log.debug("demand, asked of %s: %s", host, error)
    raise ProbeError("no orchestrator tells which jobs wait and run (GET /api/runners/demand)")


def parse_demand(body: object) -> Demand:
    """Read an answer. Raises ValueError when it is not what the interface promises, or not all."""
    if not isinstance(body, Mapping) or not isinstance(body.get("running"), list):
        raise ValueError("the answer is none of this interface")  # noqa: TRY004 - it comes from elsewhere
    if body.get("complete") is not True:
        raise ValueError("more jobs run than it can tell")
    waiting = body.get("waiting")
    if not isinstance(waiting, list):
        raise ValueError("the answer has no list of jobs that wait")  # noqa: TRY004 - it comes from elsewhere
    return Demand(
        tuple(_waiting(entry) for entry in waiting),
        frozenset(str(entry["runnerId"]) for entry in body["running"] if _has_runner(entry)),
    )


def _waiting(entry: Any) -> tuple[frozenset[str], int]:
    labels, jobs = (entry.get("labels"), entry.get("jobs")) if isinstance(entry, Mapping) else (None, None)
    if not isinstance(labels, list) or not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 0:
        raise ValueError("an entry of the jobs that wait cannot be read")
    return frozenset(str(label) for label in labels), min(jobs, MOST_JOBS)


def _has_runner(entry: Any) -> bool:
    return isinstance(entry, Mapping) and isinstance(entry.get("runnerId"), str)


async def drain(http: aiohttp.ClientSession, host: str, key: str, *, deadline_seconds: float) -> str:
    """Tell a runner to take no more jobs for a while; the state that it tells: drained, draining or busy.

    ProbeError: it does not answer.
    """
    text = await _RUNNER.call(http, "POST", host, "/drain", deadline_seconds=deadline_seconds, bearer=key)
    try:
        return str(json.loads(text)["state"])
    except (ValueError, KeyError, TypeError) as error:
        raise ProbeError(f"the runner at {host} tells no state") from error
