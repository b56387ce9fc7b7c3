"""Comparing a desired manifest with the live object, so that nothing is written when nothing differs.

The API server adds defaults, so the desired manifest is compared as a subset. A field that the operator no longer
wants is not in the subset; the hash of the last applied manifest, kept as an annotation, tells that case.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from .. import names
from ..quantities import parse_quantity

Manifest = dict[str, Any]

# Lists whose entries the API server may reorder or extend by itself, with the key of an entry.
_LIST_KEYS: Final = ("name", "containerPort", "port", "type", "uid", "mountPath", "topologyKey")


def with_applied_hash(manifest: Manifest) -> Manifest:
    """The manifest with the hash of itself as an annotation."""
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), names.ANNOTATION_APPLIED: digest}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def needs_apply(desired: Manifest, live: Mapping[str, Any] | None) -> bool:
    """Whether the live object differs from the desired manifest (as made by `with_applied_hash`)."""
    return live is None or not is_subset(desired, live)


def is_subset(desired: Any, live: Any) -> bool:
    """Whether everything that `desired` says holds in `live`, which may say more."""
    if isinstance(desired, Mapping):
        return isinstance(live, Mapping) and all(
            is_subset(value, live.get(key)) for key, value in desired.items()
        )
    if isinstance(desired, Sequence) and not isinstance(desired, str):
        return isinstance(live, Sequence) and not isinstance(live, str) and _is_list_subset(desired, live)
    if desired == live and isinstance(desired, bool) == isinstance(live, bool):
        return True
    return isinstance(desired, str) and isinstance(live, str) and _same_quantity(desired, live)


def _is_list_subset(desired: Sequence[Any], live: Sequence[Any]) -> bool:
    key = next(
        (key for key in _LIST_KEYS if desired and all(isinstance(i, Mapping) and key in i for i in desired)),
        None,
    )
    if key is None:
        return len(desired) == len(live) and all(is_subset(d, e) for d, e in zip(desired, live, strict=True))
    if len({json.dumps(item[key]) for item in desired}) < len(desired):
        return len(desired) == len(live) and all(is_subset(d, e) for d, e in zip(desired, live, strict=True))
    by_key = {json.dumps(item.get(key)): item for item in live if isinstance(item, Mapping)}
    return all(is_subset(item, by_key.get(json.dumps(item[key]))) for item in desired)


def _same_quantity(left: str, right: str) -> bool:
    first, second = parse_quantity(left), parse_quantity(right)
    return first is not None and first == second
