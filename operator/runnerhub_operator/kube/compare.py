"""Comparing a desired manifest with the live object, so that nothing is written when nothing differs.

The API server adds defaults, so the desired manifest is compared as a subset. A field that the operator no longer
wants is not in the subset; the hash of the last applied manifest, kept as an annotation, tells that case.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from .. import names
from ..quantities import parse_quantity

Manifest = dict[str, Any]

# Lists whose entries the API server may reorder or extend by itself, with the key of an entry.
_LIST_KEYS: Final = ("name", "containerPort", "port", "type", "uid", "mountPath", "topologyKey")

_AMOUNT_PATH: Final = re.compile(r"(^|\.)(requests|limits)\.[^.]+$|\.sizeLimit$")


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
    return next(differences(desired, live), None) is None


def differences(desired: Any, live: Any, path: str = "") -> Iterator[str]:
    """Paths, such as spec.replicas, at which `live` does not hold what `desired` says."""
    # Plain dictionaries and lists, as JSON gives them: half of a visit after an edit is spent here.
    if isinstance(desired, dict) and isinstance(live, dict):
        for key, value in desired.items():
            found = live.get(key)
            if isinstance(value, str) and value == found:
                continue
            yield from differences(value, found, f"{path}.{key}" if path else key)
    elif isinstance(desired, (list, tuple)) and isinstance(live, list):
        yield from _list_differences(desired, live, path)
    elif not _same(desired, live, path):
        yield path


def _list_differences(desired: Sequence[Any], live: list[Any], path: str) -> Iterator[str]:
    key = _key_of(desired)
    if key is not None:
        by_key = {item.get(key): item for item in live if isinstance(item, dict)}
        for item in desired:
            yield from differences(item, by_key.get(item[key]), f"{path}[{item[key]}]")
    elif len(desired) != len(live):
        yield path
    else:
        for index, (wanted, found) in enumerate(zip(desired, live, strict=True)):
            yield from differences(wanted, found, f"{path}[{index}]")


def _key_of(desired: Sequence[Any]) -> str | None:
    """The key that tells the entries apart; None: only their order does."""
    if not desired or not isinstance(desired[0], dict):
        return None
    key = next((key for key in _LIST_KEYS if all(isinstance(i, dict) and key in i for i in desired)), None)
    distinct = key is not None and len({item[key] for item in desired}) == len(desired)
    return key if distinct else None


def _same(desired: Any, live: Any, path: str) -> bool:
    if desired == live and isinstance(desired, bool) == isinstance(live, bool):
        return True
    # The API server writes amounts in its own way; elsewhere "1" and "1.0" are two texts.
    amounts = isinstance(desired, str) and isinstance(live, str) and _AMOUNT_PATH.search(path) is not None
    return amounts and _same_quantity(desired, live)


def _same_quantity(left: str, right: str) -> bool:
    first, second = parse_quantity(left), parse_quantity(right)
    return first is not None and first == second
