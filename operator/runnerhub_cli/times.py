"""Times as people read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

_TIMESTAMP: Final = re.compile(r"since ([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z)")


def parse_time(text: str | None) -> datetime | None:
    """A time of the API; None without one, or when it is none."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def seconds_since(text: str | None, now: datetime) -> float | None:
    """Seconds from a time of the API until now, negative when it lies in the future."""
    moment = parse_time(text)
    return None if moment is None else (now - moment).total_seconds()


def age(text: str | None, now: datetime) -> str:
    """How long ago a time of the API is, "-" when it is not known."""
    seconds = seconds_since(text, now)
    return "-" if seconds is None else span(seconds)


def with_ages(text: str, now: datetime) -> str:
    """A message of the operator with lengths of time instead of times of day."""
    return _TIMESTAMP.sub(lambda found: f"for {age(found[1], now)}", text)


def span(seconds: float) -> str:
    """A length of time, as coarse as kubectl tells it.

    Source: k8s.io/apimachinery/pkg/util/duration
    """
    whole = max(0, int(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < 120:
        return f"{whole}s"
    if minutes < 10:
        return f"{minutes}m{whole % 60}s" if whole % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    return f"{days}d"
