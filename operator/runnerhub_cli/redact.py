"""Taking passwords out of texts and objects that leave the cluster. Pure.

Two ways at once: the values of the cluster's Secrets, wherever they turn up, and whatever looks like a credential, for
the case that the Secrets could not be read.
"""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from collections.abc import Container, Iterable, Mapping
from typing import Any, Final

MARK: Final = "<***>"
# A shorter value is part of ordinary words, so it counts only where it stands alone.
_SHORT: Final = 6
# One that is still shorter is no credential, unless its key says so.
_TINY: Final = 3

_NAME: Final = (
    r"(?:pass(?:word|wd|phrase)?|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|authorization|requirepass|"
    r"masterauth|auth[-_]pass|sentinel[-_]pass|credential)"
)
# Names of fields that speak of a credential without being one.
_HARMLESS: Final = re.compile(
    r"(?i)(secretname|secretkeyref|secretref|^secrets$|imagepullsecrets|credentials?[-_]?(hash|dir|secret)|secret[-_]version|"
    r"automountserviceaccounttoken|serviceaccounttoken|password[-_]?(encryption|file)|[-_](file|dir|path)$|hash$|"
    r"tokenexpiration|passwordsfile)"
)
_SECRET_NAME: Final = re.compile(rf"(?i){_NAME}")
_PATTERNS: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    # The whole key, over its lines.
    (
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
        ),
        MARK,
    ),
    # user:password@ of an address.
    (re.compile(r"(?P<head>\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s:/@]*):[^\s@/]+@"), rf"\g<head>:{MARK}@"),
    (re.compile(r"(?i)(?P<head>\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}"), rf"\g<head>{MARK}"),
    # JSON Web Tokens, and the tokens of GitHub.
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"), MARK),
    (re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{16,})"), MARK),
    # SCRAM verifiers and md5 of Postgres: enough to guess from.
    (re.compile(r"SCRAM-SHA-256\$[^\s'\"]+"), MARK),
    (re.compile(r"\bmd5[0-9a-f]{32}\b"), MARK),
    (
        re.compile(r"(?i)(?P<head>\b(?:requirepass|masterauth|auth-pass \S+|sentinel-pass)\s+)\S+"),
        rf"\g<head>{MARK}",
    ),
)

# Keys of a Secret that hold no credential, also with a prefix as in DB_HOST; and keys that may hold one.
_PLAIN_KEY: Final = re.compile(
    r"(?i)(?:(?:.*[-_.])?(?:pg)?(?:host|port|user|username|database|dbname|namespace)|ca\.crt|tls\.crt)"
)
_DOUBTFUL_KEY: Final = re.compile(rf"(?i){_NAME}|pass|pw|psk|pin|key|auth|salt|sign|cookie|session")
# Names and addresses, without a run of characters as in a token: long, or with letters and digits in it.
_PLAIN_VALUE: Final = re.compile(r"[A-Za-z0-9_.-]+")
_OPAQUE: Final = re.compile(r"[A-Za-z0-9]{20}|[0-9]{6}|(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{8}")
_CERTIFICATES: Final = re.compile(
    r"(?:\s*-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----)+\s*"
)
# Words of settings, which no credential consists of.
_SETTINGS: Final = ("true", "false", "yes", "no", "on", "off", "none", "null")


def is_plain(key: str, value: str, public: Container[str]) -> bool:
    """Whether what a Secret has under a key may be read by others.

    `public`: names that are all over the cluster's objects, such as those of its namespace, pods and Services.
    """
    if _DOUBTFUL_KEY.search(key):
        return False
    text = value.strip()
    if len(text) < _TINY or text.lower() in _SETTINGS or all(part in public for part in text.split(".")):
        return True
    if not _PLAIN_KEY.fullmatch(key):
        return False
    if key.endswith(".crt"):
        return bool(_CERTIFICATES.fullmatch(value))
    return bool(_PLAIN_VALUE.fullmatch(text)) and not _OPAQUE.search(text)


# name=value, name: value, "name": "value", and SQL's PASSWORD 'value'; on one line, so that a head alone takes nothing.
_NAMED: Final = re.compile(
    rf"(?i)(?P<name>\b[\w.-]*{_NAME}[\w.-]*)(?P<between>[\"']?[ \t]*(?:=|:(?!//))[ \t]*|[ \t]+(?=['\"]))"
    r"(?P<value>\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'|[^\s,;&\"'}\]]+)"
)


def _unnamed(found: re.Match[str]) -> str:
    return found[0] if _HARMLESS.search(found["name"]) else f"{found['name']}{found['between']}{MARK}"


class Redactor:
    """Knows the values that must not leave."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        variants = {variant for value in secrets for variant in _variants(value)}
        # The longest first: one that is part of another must not leave the rest of it.
        ordered = sorted(variants, key=lambda value: (-len(value), value))
        parts = [
            re.escape(value)
            if len(value) >= _SHORT
            else rf"(?<![A-Za-z0-9]){re.escape(value)}(?![A-Za-z0-9])"
            for value in ordered
        ]
        self._known = re.compile("|".join(parts)) if parts else None

    def text(self, text: str) -> str:
        """A text without credentials."""
        text = self.values(text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return _NAMED.sub(_unnamed, text)

    def values(self, text: str) -> str:
        """A text without the known values; of what was made from objects that were looked through before."""
        return self._known.sub(MARK, text) if self._known is not None else text

    def object(self, value: Any, name: str = "") -> Any:
        """An object without credentials: in each of its strings and keys, and in fields whose name says so."""
        if isinstance(value, Mapping):
            pair = value.get("name"), value.get("value")
            if isinstance(pair[0], str) and isinstance(pair[1], str) and is_secret_name(pair[0]):
                # An environment variable.
                value = {**value, "value": MARK}
            return {self.values(str(key)): self.object(item, str(key)) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.object(item, name) for item in value]
        if isinstance(value, str):
            return MARK if value and is_secret_name(name) else self.text(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return MARK if self.values(str(value)) != str(value) else value
        return value


def is_secret_name(name: str) -> bool:
    """Whether a field or variable of this name holds a credential."""
    return bool(_SECRET_NAME.search(name)) and not _HARMLESS.search(name)


def _variants(value: str) -> Iterable[str]:
    """A value as it may be written: itself, in base64, in an address, in JSON, and each of its lines."""
    # Of a file, no lines such as a brace alone.
    lines = {line.strip() for line in value.splitlines() if any(char.isalnum() for char in line)}
    for text in {value, value.strip(), *lines}:
        if not text:
            continue
        yield text
        yield urllib.parse.quote(text, safe="")
        yield json.dumps(text)[1:-1]
        yield json.dumps(text, ensure_ascii=False)[1:-1]
        yield base64.b64encode(text.encode()).decode()
        yield base64.urlsafe_b64encode(text.encode()).decode()
    if value:
        yield base64.b64encode(value.encode()).decode()
