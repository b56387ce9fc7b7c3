"""The keys by which orchestrators judge tokens: that of today and, for a while after a change, those before.

Pods get to know a change of a Secret one after the other, within two minutes. So for a while all of them accept old
and new, then new tokens are made, and only when those are everywhere the old keys go. All of it is in the Secret
itself, so an operator that was away or dies in between goes on where it ended.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from .. import names
from ..tokens import RUNNER_TOKEN_LIFETIME, holds_until
from .common import BuildContext, Manifest, metadata

# RFC 7518 section 3.2: an HS256 key has at least the size of the hash. Orchestrators use no shorter one.
MINIMUM_KEY_BYTES: Final = 32
# Until the files of all pods have followed a Secret.
SPREAD_SECONDS: Final = 180.0
KEYS_FILE: Final = "keys.json"
_CHANGED_AT: Final = "changed-at"


@dataclass(frozen=True, slots=True)
class TokenKeys:
    """`accepted` by the orchestrators: the newest first, the one that signed before it last.

    `changed_at`: when the newest came, None when it is the only one.
    """

    accepted: tuple[str, ...] = field(repr=False)
    changed_at: datetime | None = None

    def for_signing(self, now: datetime) -> str:
        """The key that every orchestrator knows."""
        if self.changed_at is not None and (now - self.changed_at).total_seconds() < SPREAD_SECONDS:
            return self.accepted[-1]
        return self.accepted[0]

    def after(self, key: str, token: str, now: datetime) -> TokenKeys:
        """The keys to accept when the Secret has this one and runners log in with this token, "" for none."""
        newest = self.accepted[0]
        if key != newest and len(key.encode()) >= MINIMUM_KEY_BYTES:
            signing = self.for_signing(now)
            return TokenKeys((key, *(of for of in self.accepted if of not in (key, signing)), signing), now)
        if self.changed_at is None:
            return self
        made_at = holds_until(token, newest) - RUNNER_TOKEN_LIFETIME.total_seconds() if token else 0.0
        last = max(self.changed_at.timestamp() + SPREAD_SECONDS, made_at)
        replaced = not token or holds_until(token, newest) > 0
        return TokenKeys((newest,)) if replaced and now.timestamp() >= last + SPREAD_SECONDS else self


def known_keys(secret_value: Callable[[str, str], str | None], cluster: str) -> TokenKeys | None:
    """The keys that orchestrators accept now, from a value of a Secret by name and key; None while there is none."""
    secret = names.token_keys(cluster)
    try:
        accepted = json.loads(secret_value(secret, KEYS_FILE) or "null")
    except ValueError:
        accepted = None
    if isinstance(accepted, list) and accepted and all(isinstance(key, str) for key in accepted):
        return TokenKeys(tuple(accepted), _moment(secret_value(secret, _CHANGED_AT) or ""))
    key = secret_value(names.credentials(cluster, names.ORCHESTRATOR), "jwt-secret")
    return TokenKeys((key,)) if key else None


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def token_keys_secret(context: BuildContext, keys: TokenKeys) -> Manifest:
    """Secret with the keys, for the orchestrators' pods."""
    values = {
        KEYS_FILE: json.dumps(keys.accepted),
        _CHANGED_AT: keys.changed_at.isoformat() if keys.changed_at is not None else "",
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(context, names.token_keys(context.name), names.ORCHESTRATOR),
        "type": "Opaque",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()},
    }
