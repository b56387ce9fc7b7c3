import json
import time

import jwt
import pytest
from aiohttp.test_utils import make_mocked_request

from runnerhub_orchestrator.auth import Authenticator
from runnerhub_orchestrator.errors import UnauthorizedError

SECRET = "k" * 32


def sign(secret=SECRET, algorithm="HS256", **claims):
    return jwt.encode({"sub": "test", **claims}, secret, algorithm=algorithm)


def soon():
    return int(time.time()) + 60


@pytest.fixture
def authenticator():
    return Authenticator(SECRET)


def test_a_token_of_ours_opens(authenticator):
    token = sign(exp=soon())
    authenticator.check_request(make_mocked_request("GET", "/", headers={"Authorization": f"Bearer {token}"}))


# Made when the test runs: one that was to be refused for its key would be refused for its age some time later.
@pytest.mark.parametrize(
    "make",
    [
        sign,
        lambda: sign(exp=int(time.time()) - 3600),
        lambda: sign(secret="x" * 32, exp=soon()),
        lambda: jwt.encode({"exp": soon()}, None, algorithm="none"),
        lambda: sign(secret="k" * 64, algorithm="HS512", exp=soon()),
        lambda: "",
        lambda: "not.a.token",
    ],
    ids=["endless", "expired", "other secret", "unsigned", "other algorithm", "empty", "nonsense"],
)
def test_no_other_token_does(authenticator, make):
    with pytest.raises(UnauthorizedError):
        authenticator.check_token(make())


def test_the_keys_of_the_file_count_each_time_and_the_fixed_one_without_it(tmp_path):
    file = tmp_path / "keys.json"
    authenticator = Authenticator(SECRET, file)
    ours, former, other = (sign(secret=key, exp=soon()) for key in (SECRET, "f" * 32, "n" * 32))
    authenticator.check_token(ours)
    file.write_text(json.dumps(["n" * 32, "f" * 32]))
    authenticator.check_token(former)
    authenticator.check_token(other)
    with pytest.raises(UnauthorizedError):
        authenticator.check_token(ours)
    with pytest.raises(UnauthorizedError, match="expired"):
        authenticator.check_token(sign(secret="f" * 32, exp=int(time.time()) - 3600))
    file.write_text(json.dumps(["n" * 32]))
    with pytest.raises(UnauthorizedError):
        authenticator.check_token(former)
    file.write_text(json.dumps(["short"]))
    with pytest.raises(UnauthorizedError):
        authenticator.check_token(jwt.encode({"exp": soon()}, "short", algorithm="HS256"))
    file.write_text("half of ")
    authenticator.check_token(ours)


def test_no_header_no_entry(authenticator):
    for headers in ({}, {"Authorization": "Basic abc"}, {"Authorization": "Bearer "}):
        with pytest.raises(UnauthorizedError):
            authenticator.check_request(make_mocked_request("GET", "/", headers=headers))


def test_a_websocket_may_carry_the_token_as_subprotocol(authenticator):
    protocols = f"runnerhub.events, bearer.{sign(exp=soon())}"
    authenticator.check_websocket(
        make_mocked_request("GET", "/ws", headers={"Sec-WebSocket-Protocol": protocols})
    )
    with pytest.raises(UnauthorizedError):
        authenticator.check_websocket(
            make_mocked_request("GET", "/ws", headers={"Sec-WebSocket-Protocol": "bearer.wrong"})
        )
