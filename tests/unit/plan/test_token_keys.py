"""A new key for tokens: at each moment every runner's token is accepted by every orchestrator."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from runnerhub_operator import tokens
from runnerhub_operator.plan import credentials, pools
from runnerhub_operator.plan.runners import Memory
from runnerhub_operator.resources.common import BuildContext
from runnerhub_operator.resources.token_keys import SPREAD_SECONDS, TokenKeys, known_keys, token_keys_secret
from runnerhub_operator.snapshot import Children
from tests.generate import IMAGES
from tests.unit.plan.builders import NOW, cluster, snapshot

A, B, C = ("a" * 32, "b" * 32, "c" * 32)
SPEC = {"runnerPools": [{"name": "linux", "labels": ["x"], "minReplicas": 1, "maxReplicas": 3}]}
CONTEXT = BuildContext(cluster(SPEC), IMAGES)
EMPTY = snapshot(pods=(), children={})
# How long the files of a pod may lag behind a Secret.
LAG = timedelta(seconds=120)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def token(key: str, made_at: datetime) -> str:
    return tokens.mint(key, "runner", made_at, tokens.RUNNER_TOKEN_LIFETIME)


def test_the_keys_are_read_back_as_they_were_written() -> None:
    for keys in (TokenKeys((A,)), TokenKeys((B, A), NOW)):
        data = token_keys_secret(CONTEXT, keys)["data"]
        read = {key: base64.b64decode(value).decode() for key, value in data.items()}
        assert known_keys(lambda _, key, read=read: read.get(key), "hub") == keys  # type: ignore[misc]


def test_without_the_secret_the_key_itself_is_the_only_one() -> None:
    def value(secret: str, key: str) -> str | None:
        return A if (secret, key) == ("hub-orchestrator-credentials", "jwt-secret") else None

    assert known_keys(value, "hub") == TokenKeys((A,))
    assert known_keys(lambda *_: None, "hub") is None


def test_the_former_key_signs_until_all_know_the_new_one() -> None:
    keys = TokenKeys((A,)).after(B, token(A, NOW), later(0))
    assert keys.accepted == (B, A)
    assert keys.for_signing(later(SPREAD_SECONDS - 1)) == A
    assert keys.for_signing(later(SPREAD_SECONDS)) == B


def test_a_former_key_goes_when_the_new_token_has_been_everywhere_for_long_enough() -> None:
    keys = TokenKeys((A,)).after(B, token(A, NOW), later(0))
    assert keys.after(B, token(A, NOW), later(9999)) == keys, "runners have the old token still"
    made = token(B, later(1000))
    assert keys.after(B, made, later(1000 + SPREAD_SECONDS - 1)) == keys
    assert keys.after(B, made, later(1000 + SPREAD_SECONDS)) == TokenKeys((B,))
    assert keys.after(B, "", later(2 * SPREAD_SECONDS - 1)) == keys, "others may have tokens too"
    assert keys.after(B, "", later(2 * SPREAD_SECONDS)) == TokenKeys((B,))


def test_a_key_that_is_too_short_is_not_taken_over() -> None:
    assert TokenKeys((A,)).after("short", "", NOW) == TokenKeys((A,))


def test_going_back_to_the_former_key_is_a_change_as_well() -> None:
    keys = TokenKeys((A,)).after(B, "", later(0)).after(A, "", later(10))
    assert set(keys.accepted) == {A, B}
    assert keys.accepted[0] == keys.for_signing(later(10)) == A, "nobody knows the other one for sure"


class World:
    """What the API server has, and what the pods' files have, which follow some time later."""

    def __init__(self) -> None:
        self.now = NOW
        self.key = A
        self.secrets: dict[str, dict[str, Any]] = {}
        self.seen: dict[str, list[tuple[datetime, dict[str, Any]]]] = {}

    def value(self, secret: str, key: str) -> str | None:
        if (secret, key) == ("hub-orchestrator-credentials", "jwt-secret"):
            return self.key
        data = self.secrets.get(secret, {})
        return base64.b64decode(data[key]).decode() if key in data else None

    def visit(self) -> None:
        credentials_secret = {
            "kind": "Secret",
            "metadata": {"name": "hub-orchestrator-credentials"},
            "data": {"jwt-secret": base64.b64encode(self.key.encode()).decode()},
        }
        more = [
            {"kind": "Secret", "metadata": {"name": name, "ownerReferences": []}, "data": data}
            for name, data in self.secrets.items()
        ]
        there = Children.of([credentials_secret, *more])
        # Few objects, so that many histories can be tried.
        seen = replace(EMPTY, now=self.now, children=there)
        keys = credentials.token_keys(CONTEXT, seen, pools.runner_token(CONTEXT, seen))
        for item in (*keys, *pools.look(CONTEXT, seen, Memory()).secrets):
            name = item["metadata"]["name"]
            if self.secrets.get(name) != item["data"]:
                self.secrets[name] = item["data"]
                self.seen.setdefault(name, []).append((self.now, item["data"]))

    def in_files(self, secret: str, key: str) -> Iterator[str]:
        """All that a pod may have in the file now."""
        history = self.seen[secret]
        for number, (_, data) in enumerate(history):
            ended = history[number + 1][0] if number + 1 < len(history) else None
            if ended is None or self.now - ended <= LAG:
                yield base64.b64decode(data[key]).decode()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from((A, B, C)), st.sampled_from((5, 100, 400, 4000))), max_size=8))
def test_whenever_the_key_changes_and_the_operator_looks_all_tokens_are_accepted_everywhere(
    changes: list[tuple[str, int]],
) -> None:
    world = World()
    world.visit()
    for key, seconds in [*changes, (changes[-1][0] if changes else A, 4000)]:
        world.key = key
        # It looks now and then, or comes back after having been away.
        for _ in range(3):
            world.visit()
            for given_token in world.in_files("hub-runner-token", "token"):
                for accepted in world.in_files("hub-token-keys", "keys.json"):
                    assert any(tokens.holds_until(given_token, of) for of in known(accepted))
            world.now += timedelta(seconds=seconds)
    assert known(world.value("hub-token-keys", "keys.json") or "") == (world.key,)


def known(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text or "[]"))
