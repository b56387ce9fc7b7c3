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


@pytest.mark.parametrize(
    "token",
    [
        sign(),
        sign(exp=int(time.time()) - 3600),
        sign(secret="x" * 32, exp=soon()),
        jwt.encode({"exp": soon()}, None, algorithm="none"),
        sign(secret="k" * 64, algorithm="HS512", exp=soon()),
        "",
        "not.a.token",
    ],
    ids=["endless", "expired", "other secret", "unsigned", "other algorithm", "empty", "nonsense"],
)
def test_no_other_token_does(authenticator, token):
    with pytest.raises(UnauthorizedError):
        authenticator.check_token(token)


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
