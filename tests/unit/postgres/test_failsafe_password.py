"""Members that agree in failsafe mode although not all of them have the new REST password: Patroni's own classes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from kindbed.paths import REPOSITORY

LAUNCHER = REPOSITORY / "images" / "postgres" / "bin" / "patroni-daemon"
# In a process of its own: Patroni changes the umask of whoever imports it.
_LOOK = """
import base64, http.server, json, runpy, sys, threading, types
launcher = runpy.run_path(sys.argv[1])
from patroni.api import RestApiServer
from patroni.request import PatroniRequest
from runnerhub_postgres.passwords import authorization

class Server:
    # As Patroni's own is after the change; what it has no lists and certificates for is left out.
    _RestApiServer__allowlist_include_members, _RestApiServer__allowlist = False, ()
    _RestApiServer__protocol = "http"
    _RestApiServer__auth_key = authorization("new").removeprefix("Basic ").encode()
    patroni = None
    check_auth_header = RestApiServer.check_auth_header
    check_basic_auth_key = RestApiServer.check_basic_auth_key

def lets_in(path, password):
    handler = types.SimpleNamespace(
        path=path, headers={"Authorization": authorization(password)}, request=None,
        write_response=lambda status, *_, **__: None,
    )
    return RestApiServer.check_access(Server(), handler) is True

class Member(http.server.BaseHTTPRequestHandler):
    # A member that has the former password only.
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200 if self.headers["Authorization"] == authorization("old") else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Member)
threading.Thread(target=server.serve_forever, daemon=True).start()
member = types.SimpleNamespace(
    get_endpoint_url=lambda endpoint: f"http://127.0.0.1:{server.server_port}/{endpoint}")

def agrees(endpoint):
    request = PatroniRequest({"restapi": {"auth": "patroni:new"}})
    return request(member, "post", endpoint, {"name": "me"}, timeout=5, retries=1).status == 200

def seen():
    return {
        "failsafe_former": lets_in("/failsafe", "old"), "failsafe_new": lets_in("/failsafe", "new"),
        "failsafe_wrong": lets_in("/failsafe", "wrong"), "config_former": lets_in("/config", "old"),
        "asked": agrees("failsafe"), "asked_otherwise": agrees("switchover"),
    }

patronis = seen()
keeper = types.SimpleNamespace(former_authorization=None)
launcher["agree_by_either_password"](keeper)
unchanged = seen()
keeper.former_authorization = authorization("old")
print(json.dumps({"patronis": patronis, "unchanged": unchanged, "changed": seen()}))
"""


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What a member with the new password allows, and what it is allowed by one with the former."""
    done = subprocess.run(
        [sys.executable, "-c", _LOOK, str(LAUNCHER)],
        env={**os.environ, "PYTHONPATH": str(LAUNCHER.parents[1])},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_patroni_alone_turns_the_former_password_away(seen: dict[str, Any]) -> None:
    assert seen["patronis"]["failsafe_new"]
    assert not seen["patronis"]["failsafe_former"]
    assert not seen["patronis"]["asked"]


def test_without_a_change_nothing_differs(seen: dict[str, Any]) -> None:
    assert seen["unchanged"] == seen["patronis"]


def test_members_agree_by_either_password_in_both_directions(seen: dict[str, Any]) -> None:
    assert seen["changed"]["failsafe_former"]
    assert seen["changed"]["failsafe_new"]
    assert seen["changed"]["asked"]


def test_the_former_password_opens_nothing_else(seen: dict[str, Any]) -> None:
    assert not seen["changed"]["failsafe_wrong"]
    assert not seen["changed"]["config_former"]
    assert not seen["changed"]["asked_otherwise"]
