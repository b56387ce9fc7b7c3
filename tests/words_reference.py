"""The references of conditions' reasons and of Events as pages, from the words that the operator uses."""

from __future__ import annotations

from runnerhub_operator.api.events import EVENTS
from runnerhub_operator.api.meanings import REASONS

_REASONS = """\
# Reference: reasons of conditions

Made by `make generate` from `operator/runnerhub_operator/api/meanings.py`. A condition tells why it is as it is by one
of these words, for programs, and by a message, for people. What the conditions themselves mean:
[the API](api.md#conditions).

Components are PostgresReady, RedisReady, OrchestratorsReady and LoadBalancerReady; runners have the same reasons where
they are named. Longer stories, such as how to get a broken member back: [back in from trouble](../how-to/trouble.md).
"""

_EVENTS = """\
# Reference: Events

Made by `make generate` from `operator/runnerhub_operator/api/events.py`. The operator writes them on the
RunnerHubCluster: `kubectl describe rhc hub`, or
`kubectl get events --field-selector involvedObject.kind=RunnerHubCluster`. Kubernetes forgets Events after an hour or
so; what is true now is in the conditions, and the last ten elections are in `status.failovers`.

An Event can also have the [reason of a condition](reasons.md), and then means the same:
[InvalidSpec](reasons.md#invalidspec), [NameTaken](reasons.md#nametaken) and
[RefusedByApiServer](reasons.md#refusedbyapiserver) when Accepted has become False,
[VolumeGrowthRefused](reasons.md#volumegrowthrefused), [MigrationFailed](reasons.md#migrationfailed), and
[WorkersDeaf](reasons.md#workersdeaf).
"""


def reasons_reference() -> str:
    """The page of the reasons."""
    entries = (
        _entry(reason.value, f"Reason of: {item.of}.", item.text, item.look, item.remedy)
        for reason, item in REASONS.items()
    )
    return "\n".join([_REASONS, *entries])


def events_reference() -> str:
    """The page of the Events."""
    entries = (
        _entry(reason, f"Type: {item.type}.", item.text, item.look, item.remedy)
        for reason, item in EVENTS.items()
    )
    return "\n".join([_EVENTS, *entries])


def _entry(word: str, kind: str, text: str, look: str, remedy: str) -> str:
    return f"## {word}\n\n{kind} {text}\n\n- **Look at:** {look}\n- **Do:** {remedy}\n"
