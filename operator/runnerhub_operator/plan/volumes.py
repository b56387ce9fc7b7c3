"""Volumes that grow: their claims one after the other, and the StatefulSet around them anew.

A claim asks for more, and Kubernetes enlarges the volume while it is in use. The claim template of a StatefulSet cannot
be changed, so the StatefulSet is deleted without its pods and made again; it takes the running pods over. No pod
stops for either, so neither waits for the other, for a healthy member or for the disruption Lease: a full volume must
be able to grow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from .. import names
from ..actions import GrowVolume
from ..api import FULL_PERCENT, RunnerHubCluster
from ..quantities import parse_quantity, quantity
from ..resources.common import Manifest
from ..snapshot import RESIZE_FAILURES, Snapshot, Volume
from .fullness import fullest

# Somebody may have changed the StorageClass or a quota, which the operator does not watch.
RETRY_SECONDS: Final = 30.0
# Source: k8s.io/kubernetes/plugin/pkg/admission/storage/persistentvolume/resize
_CLASS_REFUSES: Final = "must support resize"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the API server did not let a claim grow to a size, for people."""

    size: str
    message: str
    at: datetime


# By the name of the claim.
Refusals = Mapping[str, Refusal]


@dataclass(frozen=True, slots=True)
class Growth:
    """`steps`: claims to enlarge now. `under_way`, `refused`: what to tell people, "" when there is nothing.

    `refusals`: those that still hold.
    """

    steps: tuple[GrowVolume, ...] = ()
    under_way: str = ""
    refused: str = ""
    refusals: Refusals = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Member:
    """A pod's volume; `placed`: the pod is on a node that lives, which can enlarge the file system.

    `ready`: it is well there. `full`: what uses the volume stops, or is about to.
    """

    pod: str
    volume: Volume
    placed: bool
    ready: bool = True
    full: bool = False


@dataclass(frozen=True, slots=True)
class _Component:
    """The members with a volume, in the order in which those grow, and the size that the spec asks for."""

    name: str
    size: str
    members: tuple[_Member, ...]

    @property
    def wanted(self) -> int:
        """The size in bytes."""
        return int(quantity(self.size))

    def behind(self) -> list[_Member]:
        """Members whose claims ask for less."""
        wanted = self.wanted
        return [item for item in self.members if (item.volume.requested or wanted) < wanted]

    def growing(self) -> list[_Member]:
        """Members whose claims ask for enough, but whose volumes are not as large yet."""
        wanted, behind = self.wanted, self.behind()
        small = (item for item in self.members if (item.volume.capacity or wanted) < wanted)
        return [item for item in small if item not in behind]


def plan_growth(
    cluster: RunnerHubCluster, snapshot: Snapshot, holders: Mapping[str, str | None], refusals: Refusals
) -> Growth:
    """The claims to enlarge now; `holders` are the Postgres primary and the Redis master, whose turn comes last.

    Full volumes come first all the same: that of a primary is what stops the writes.
    """
    found = [
        _of_component(component, snapshot.now, refusals)
        for component in _components(cluster, snapshot, holders)
    ]
    return Growth(
        steps=tuple(step for growth in found for step in growth.steps),
        under_way="; ".join(growth.under_way for growth in found if growth.under_way),
        refused="; ".join(growth.refused for growth in found if growth.refused),
        refusals={name: refusal for growth in found for name, refusal in growth.refusals.items()},
    )


def small_claims(cluster: RunnerHubCluster, snapshot: Snapshot) -> list[str]:
    """Names of the claims that ask for less than the spec."""
    components = _components(cluster, snapshot, {})
    return [item.volume.name for component in components for item in component.behind()]


def smallest_postgres_volume(cluster: RunnerHubCluster, snapshot: Snapshot) -> int | None:
    """Size in bytes of the smallest volume of a Postgres member; None while there is none."""
    return _smallest(cluster, snapshot, names.POSTGRES, cluster.spec.postgres.instances)


def smallest_redis_volume(cluster: RunnerHubCluster, snapshot: Snapshot) -> int | None:
    """The same of a Redis pod."""
    return _smallest(cluster, snapshot, names.REDIS, cluster.spec.redis.replicas)


def _smallest(cluster: RunnerHubCluster, snapshot: Snapshot, component: str, count: int) -> int | None:
    volumes = (snapshot.volume(names.claim(cluster.name, component, ordinal)) for ordinal in range(count))
    return min((item.capacity for item in volumes if item is not None and item.capacity), default=None)


def is_outgrown(manifest: Mapping[str, Any], snapshot: Snapshot) -> bool:
    """Whether a StatefulSet must be made anew, because its claim template is to ask for more."""
    if manifest["kind"] != "StatefulSet":
        return False
    live = snapshot.child("StatefulSet", manifest["metadata"]["name"])
    wanted, found = _template_bytes(manifest), _template_bytes(live or {})
    return wanted is not None and found is not None and found < wanted


def is_in_the_way(manifest: Manifest, snapshot: Snapshot) -> bool:
    """Whether our StatefulSet that is there must go before this one can be written: outgrown, or going already."""
    if manifest["kind"] != "StatefulSet":
        return False
    live = snapshot.child("StatefulSet", manifest["metadata"]["name"])
    if live is None or not _owners(live) & _owners(manifest):
        return False
    return "deletionTimestamp" in live["metadata"] or is_outgrown(manifest, snapshot)


def _owners(manifest: Mapping[str, Any]) -> set[str]:
    return {owner["uid"] for owner in manifest["metadata"].get("ownerReferences", ())}


def refusal_of(step: GrowVolume, answer: str, now: datetime) -> Refusal:
    """What a refusal of the API server means for people."""
    message = f"the API server refused it: {answer}"
    if _CLASS_REFUSES in answer:
        message = (
            f"StorageClass {step.storage_class or 'of its claim'} does not let volumes grow; set "
            "allowVolumeExpansion: true in it if its driver can enlarge volumes, or replace the volumes one at a time"
        )
    return Refusal(step.size, message, now)


def refusal_text(pod: str, refusal: Refusal) -> str:
    """The sentence of condition and Event."""
    return f"the volume of {pod} cannot grow to {refusal.size}: {refusal.message}"


def _components(
    cluster: RunnerHubCluster, snapshot: Snapshot, holders: Mapping[str, str | None]
) -> list[_Component]:
    postgres, redis, seen = cluster.spec.postgres, cluster.spec.redis, cluster.status
    sizes = (
        (names.POSTGRES, postgres.instances, postgres.storage.size, seen.postgres.instances),
        (names.REDIS, redis.replicas, redis.storage.size, seen.redis.instances),
    )
    found = [
        _Component(
            name,
            size,
            tuple(
                _members(cluster.name, snapshot, name, count, holders.get(name), fullest(pods, FULL_PERCENT))
            ),
        )
        for name, count, size, pods in sizes
    ]
    shared = cluster.spec.shared_storage
    if shared is not None and shared.claim is not None and shared.claim.size is not None:
        claim = names.shared_claim(cluster.name)
        volume = snapshot.volume(claim)
        members = () if volume is None else (_Member(claim, volume, placed=False),)
        found.append(_Component("the shared storage", shared.claim.size, members))
    return found


def _members(
    cluster: str,
    snapshot: Snapshot,
    component: str,
    count: int,
    holder: str | None,
    full: Mapping[str, int],
) -> list[_Member]:
    found = []
    for ordinal in range(count):
        pod = names.member(cluster, component, ordinal)
        volume = snapshot.volume(names.claim(cluster, component, ordinal))
        if volume is not None:
            running = snapshot.pod(pod)
            placed = running is not None and bool(running.node) and not running.on_dead_node(snapshot.now)
            ready = running is not None and running.ready
            found.append(_Member(pod, volume, placed=placed, ready=ready, full=pod in full))
    return sorted(found, key=lambda item: (-full.get(item.pod, 0), item.pod == holder))


def _of_component(component: _Component, now: datetime, refusals: Refusals) -> Growth:
    behind, growing = component.behind(), component.growing()
    if not behind and not growing:
        return Growth()
    held = {
        item.volume.name: refusals[item.volume.name]
        for item in behind
        if item.volume.name in refusals and refusals[item.volume.name].size == component.size
    }
    recent = any((now - refusal.at).total_seconds() < RETRY_SECONDS for refusal in held.values())
    steps = () if recent else _next_step(component, behind, growing)
    told = [refusal_text(item.pod, held[item.volume.name]) for item in behind if item.volume.name in held]
    under_way = _under_way(component, behind, growing) if growing or not held else ""
    return Growth(steps, under_way, "; ".join(told), held)


def _next_step(
    component: _Component, behind: list[_Member], growing: list[_Member]
) -> tuple[GrowVolume, ...]:
    # The API server refuses it for a claim without a volume.
    item = next((item for item in behind if item.volume.bound), None)
    if item is None or any(_holds_up(other, item) for other in growing):
        return ()
    volume = item.volume
    return (GrowVolume(item.pod, volume.name, volume.uid, component.size, volume.storage_class),)


def _holds_up(growing: _Member, waiting: _Member) -> bool:
    """Whether one waits for another: not for one that may wait for its node for ever.

    Where growing fails, the others are better left as they are, except one that is full.
    """
    hangs = not growing.ready or growing.volume.resize in RESIZE_FAILURES
    return growing.placed and not (waiting.full and hangs)


def _under_way(component: _Component, behind: list[_Member], growing: list[_Member]) -> str:
    done = len(component.members) - len(behind) - len(growing)
    parts = [
        f"the volumes of {component.name} grow to {component.size}: {done} of {len(component.members)} done",
        *(f"{item.pod} {_state(item)}" for item in growing),
        *(f"{item.pod} has no volume yet" for item in behind if not item.volume.bound),
    ]
    return ", ".join(parts)


def _state(member: _Member) -> str:
    volume = member.volume
    if volume.resize in RESIZE_FAILURES:
        return f"does not grow ({volume.resize}: {volume.message[:300]})"
    if volume.resize == "FileSystemResizePending":
        waits_for = (
            "its node to enlarge the file system" if member.placed else "its pod to run on a node that lives"
        )
        return f"waits for {waits_for}"
    return "is being enlarged"


def _template_bytes(manifest: Mapping[str, Any]) -> int | None:
    """What the claim template of a StatefulSet asks for, None when it has none."""
    template: Mapping[str, Any] = next(iter(manifest.get("spec", {}).get("volumeClaimTemplates") or ()), {})
    requests = template.get("spec", {}).get("resources", {}).get("requests", {})
    amount = parse_quantity(requests.get("storage", ""))
    return int(amount) if amount is not None else None
