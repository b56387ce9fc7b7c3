"""The cache: our objects of every cluster, as the watches last told them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from . import names
from .kube.reflector import Source
from .snapshot import Children, LiveObject, Observed, Pod, Volume

Key = tuple[str, str]
Part = TypeVar("Part", Pod, Volume)


@dataclass(slots=True)
class _Entry:
    objects: dict[tuple[str, str], LiveObject] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)
    volumes: dict[str, Volume] = field(default_factory=dict)
    revision: int = 0


class ObjectCache:
    """Where the reflectors put the objects; `changed(key)` is told each time something of a cluster is news.

    An object belongs to the cluster that its label names, in its own namespace.
    """

    def __init__(self, changed: Callable[[Key], None]) -> None:
        self._changed = changed
        self._entries: dict[Key, _Entry] = {}
        # Never given twice: a cluster that comes back must not look like the one that somebody remembers.
        self._revisions = itertools.count(1)
        # Which cluster each object of a source belonged to, by namespace and name: its label may change.
        self._known: dict[Source, dict[tuple[str, str], Key]] = {}
        # Namespaces, "" for all, whose HTTPRoutes have been listed.
        self._http_routes: set[str] = set()

    def observed(self, key: Key) -> Observed:
        """The objects of a cluster as they are at this moment."""
        entry = self._entries.get(key)
        routes = not self._http_routes.isdisjoint(("", key[0]))
        if entry is None:
            return Observed(http_routes=routes)
        return Observed(
            Children(dict(entry.objects), entry.revision),
            tuple(entry.pods.values()),
            tuple(entry.volumes.values()),
            routes,
        )

    def count(self) -> int:
        """Number of objects in the cache."""
        return sum(len(known) for known in self._known.values())

    def put(self, source: Source, body: Mapping[str, Any]) -> None:
        """An object is there, new or changed."""
        metadata = body["metadata"]
        key = metadata["namespace"], metadata.get("labels", {}).get(names.LABEL_CLUSTER, "")
        known = self._known.setdefault(source, {})
        at = metadata["namespace"], metadata["name"]
        if known.get(at, key) != key:
            self.drop(source, *at)
        known[at] = key
        entry = self._entries.setdefault(key, _Entry())
        match source.kind:
            case "Pod":
                news = _put(entry.pods, Pod.of(body))
            case "PersistentVolumeClaim":
                news = _put(entry.volumes, Volume.of(body))
            case kind:
                news = self._put_object(entry, kind, metadata["name"], LiveObject.of(body))
        if news:
            self._changed(key)

    def drop(self, source: Source, namespace: str, name: str) -> None:
        """An object is gone, or its labels do not match any more."""
        key = self._known.get(source, {}).pop((namespace, name), None)
        if key is None:
            return
        entry = self._entries[key]
        match source.kind:
            case "Pod":
                entry.pods.pop(name, None)
            case "PersistentVolumeClaim":
                entry.volumes.pop(name, None)
            case kind:
                entry.objects.pop((kind, name), None)
        entry.revision = next(self._revisions)
        if not entry.objects and not entry.pods and not entry.volumes:
            del self._entries[key]
        self._changed(key)

    def retain(self, source: Source, present: set[tuple[str, str]]) -> None:
        """Only these objects, by namespace and name, are there: forget all others of the source."""
        for namespace, name in [at for at in self._known.get(source, {}) if at not in present]:
            self.drop(source, namespace, name)
        if source.kind == names.HTTP_ROUTE:
            self._http_routes.add(source.namespace)

    def forget(self, source: Source) -> None:
        """The API server does not have the kind any more."""
        self.retain(source, set())
        self._http_routes.discard(source.namespace)

    def _put_object(self, entry: _Entry, kind: str, name: str, live: LiveObject) -> bool:
        before = entry.objects.get((kind, name))
        entry.objects[kind, name] = live
        if before is None or before.uid != live.uid or before.spec_digest != live.spec_digest:
            entry.revision = next(self._revisions)
            return True
        return before.digest != live.digest


def _put(kept: dict[str, Part], part: Part) -> bool:
    """Keep the parts of an object by its name; False: they are the same as before."""
    if kept.get(part.name) == part:
        return False
    kept[part.name] = part
    return True
