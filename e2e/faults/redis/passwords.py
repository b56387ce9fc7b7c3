"""A new password for every user of Redis and of Sentinel at once."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import Any

from ...lab.kubectl import KubectlError, wait_for
from ...lab.load import now
from .. import secrets
from ..arena import Before, let_pass
from ..fault import Break
from .arena import RedisArena

# Members go over to the new passwords among themselves 100 s after they have them (images/redis/.../access.py).
USE_SECONDS = 110
ACCEPT_SECONDS = 60

# In a pod of the queue: which copies of the Secret it has, and which users do not get in by them yet.
_LOOK = """
import hashlib, json
from runnerhub_redis import access
from runnerhub_redis.access import Login
from runnerhub_redis.resp import Connection, RespError
from runnerhub_redis.settings import PORT_REDIS, PORT_SENTINEL, Paths


def lets_in(port, user, word):
    try:
        with Connection("127.0.0.1", port, Login(user, (word,)), deadline_seconds=5) as connection:
            connection.call("PING")
    except RespError as error:
        return error.code not in ("WRONGPASS", "NOAUTH")
    return True


folder = Paths().credentials
words = {path.name: path.read_text().strip() for path in folder.iterdir() if path.is_file()}
tries = [(PORT_REDIS, user, key) for user, key in access.KEYS.items()]
tries += [(PORT_SENTINEL, access.DEFAULT, access.SENTINEL_CLIENTS_KEY)]
tries += [(PORT_SENTINEL, access.OPERATOR, access.KEYS[access.OPERATOR])]
print(json.dumps({
    "copies": {key: hashlib.sha256(word.encode()).hexdigest() for key, word in words.items()},
    "new": [f"{port} {user}" for port, user, key in tries if not lets_in(port, user, words[key])],
}))
"""


@contextmanager
def rotate(arena: RedisArena, before: Before) -> Break:
    """Have the operator make new passwords; the client's copies are renewed as their owner would see to.

    Every connection that is there goes on. It lasts until the members use the new ones among themselves; that the old
    ones are let in no more, minutes later, the tests of the image show.
    """
    secrets.renew_all(arena.hub, "redis")
    arena.hub.kubectl("annotate", "pod", arena.load.pod, f"example.com/renewed-at={now()}", "--overwrite")
    wait_for("the new passwords to be let in", lambda: _let_in(arena, before), ACCEPT_SECONDS)
    let_pass("the members to use the new passwords", USE_SECONDS)
    yield


def _let_in(arena: RedisArena, before: Before) -> bool:
    """Whether all members have the Secret's passwords and let in by them."""
    wanted = secrets.hashes(arena.hub, "redis")
    for member in before.members:
        try:
            found: dict[str, Any] = json.loads(
                arena.hub.kubectl(
                    "exec", "-i", member.name, "-c", "redis", "--", "python3", "-", stdin=_LOOK, timeout=60
                )
            )
        except KubectlError:
            return False
        if found["copies"] != wanted or found["new"]:
            return False
    return True
