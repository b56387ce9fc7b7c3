"""Bearer tokens for the orchestrators: JWT, HS256, signed with the key of the orchestrators' Secret."""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta
from typing import Final

import jwt

_ALGORITHM: Final = "HS256"
# Runners go on for half of it while the operator is away.
RUNNER_TOKEN_LIFETIME: Final = timedelta(days=30)
# Of one request.
REQUEST_TOKEN_LIFETIME: Final = timedelta(minutes=2)


def mint(key: str, subject: str, now: datetime, lifetime: timedelta) -> str:
    """A token that holds for a while."""
    return jwt.encode({"sub": subject, "exp": int((now + lifetime).timestamp())}, key, algorithm=_ALGORITHM)


def holds_until(token: str, key: str) -> float:
    """When a token ends, in seconds since 1970; 0 for one that was not made with this key."""
    try:
        claims = jwt.decode(
            token, key, algorithms=[_ALGORITHM], options={"require": ["exp"], "verify_exp": False}
        )
    except jwt.InvalidTokenError:
        return 0.0
    ends = claims["exp"]
    return float(ends) if isinstance(ends, int) else 0.0


def control_key(key: str) -> str:
    """What opens the runners' endpoint for the operator; it tells nothing of the key that it is derived from."""
    return hmac.digest(key.encode(), b"runner-control", "sha256").hex()
