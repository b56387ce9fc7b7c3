"""A new password for every role and user of the database at once."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import Any

from ...lab.kubectl import KubectlError, wait_for
from ...lab.load import now
from .. import secrets
from ..arena import Before, let_pass
from ..fault import Break
from .arena import PostgresArena

# Long enough that PgBouncer needs connections to the server that it has to make by the new passwords.
WORK_SECONDS = 10

# In a pod of the database: which copies of the Secret it has, what does not go by them yet, and what still goes by
# the passwords of before.
_LOOK = """
import base64, hashlib, json, os, pathlib, sys, urllib.error, urllib.request
import psycopg
from runnerhub_postgres.passwords import REST_KEY, REST_USER, ROLE_KEYS, read_passwords

passwords = read_passwords(pathlib.Path(os.environ["CREDENTIALS_DIR"]))
before = json.load(sys.stdin)
poolers = sys.argv[1:]


def lets_in(user, password, host, database):
    try:
        psycopg.connect(host=host, user=user, password=password, dbname=database, connect_timeout=5).close()
    except psycopg.OperationalError as error:
        return "password authentication" not in str(error) and "SASL" not in str(error)
    return True


def steers(password):
    login = base64.b64encode(f"{REST_USER}:{password}".encode()).decode()
    request = urllib.request.Request(
        "http://127.0.0.1:8008/config", b"{}", {"Authorization": f"Basic {login}"}, method="PATCH"
    )
    try:
        urllib.request.urlopen(request, timeout=10).close()
    except urllib.error.HTTPError as error:
        return error.code not in (401, 403)
    return True


checks = {f"role {role}": (key, lambda word, role=role: lets_in(role, word, "127.0.0.1", "postgres"))
          for role, key in ROLE_KEYS.items()}
checks["Patroni"] = (REST_KEY, steers)
for pooler in poolers:
    checks[f"pooler {pooler}"] = (
        "app-password", lambda word, pooler=pooler: lets_in("app", word, pooler, "github_runnerhub"))
print(json.dumps({
    "copies": {key: hashlib.sha256(word.encode()).hexdigest() for key, word in passwords.items()},
    "new": [name for name, (key, works) in checks.items() if not works(passwords[key])],
    "old": [name for name, (key, works) in checks.items() if works(before[key])],
}))
"""


@contextmanager
def rotate(arena: PostgresArena, before: Before) -> Break:
    """Have the operator make new passwords; the client's copy of its own is renewed as its owner would see to."""
    hub = arena.hub
    old = secrets.renew_all(hub, "postgres")
    hub.kubectl("annotate", "pod", arena.load.pod, f"example.com/renewed-at={now()}", "--overwrite")
    wait_for("the new passwords to be in effect", lambda: _in_effect(arena, before, old), 120)
    let_pass("work by the new passwords", WORK_SECONDS)
    yield


def _in_effect(arena: PostgresArena, before: Before, old: dict[str, str]) -> bool:
    """Whether all members and poolers go by the Secret, and by nothing else."""
    hashes = secrets.hashes(arena.hub, "postgres")
    poolers = [pod["status"]["podIP"] for pod in arena.hub.pods("pooler")]
    for member in before.members:
        try:
            found: dict[str, Any] = json.loads(
                arena.hub.kubectl(
                    "exec", "-i", member.name, "--", "python3", "-c", _LOOK, *poolers,
                    stdin=json.dumps(old), timeout=60,
                )
            )  # fmt: skip
        except KubectlError:
            return False
        if found["copies"] != hashes or found["new"] or found["old"]:
            return False
    return True
