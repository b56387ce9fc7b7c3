"""Bearer tokens: JWT, HS256, signed with the installation's secret, with an expiry date."""

from __future__ import annotations

import json
from pathlib import Path

import jwt
from aiohttp import web

from .errors import UnauthorizedError
from .settings import MINIMUM_SECRET_BYTES

ALGORITHM = "HS256"
CLOCK_SKEW_SECONDS = 10
# Browsers cannot set a header on a WebSocket; a subprotocol can carry the token without entering any log.
WEBSOCKET_PROTOCOL = "runnerhub.events"
WEBSOCKET_BEARER = "bearer."


class Authenticator:
    """Checks requests.

    With a file the keys in it count, a JSON list that is read each time: while a key changes, those before hold too.
    Without one, or one that cannot be read, the fixed secret does.
    """

    def __init__(self, secret: str, keys_file: Path | None = None) -> None:
        self._secret = secret
        self._keys_file = keys_file

    def check_request(self, request: web.Request) -> None:
        """Raise UnauthorizedError unless the Authorization header carries a valid token."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise UnauthorizedError("the header 'Authorization: Bearer <token>' is missing")
        self.check_token(token.strip())

    def check_websocket(self, request: web.Request) -> None:
        """The same, and the token may also come as subprotocol `bearer.<token>`."""
        for protocol in request.headers.get("Sec-WebSocket-Protocol", "").split(","):
            if protocol.strip().startswith(WEBSOCKET_BEARER):
                return self.check_token(protocol.strip().removeprefix(WEBSOCKET_BEARER))
        return self.check_request(request)

    def check_token(self, token: str) -> None:
        """Raise UnauthorizedError unless the token is ours and has not expired."""
        failure = jwt.InvalidTokenError("no key is known")
        for key in self._keys():
            try:
                jwt.decode(
                    token,
                    key,
                    algorithms=[ALGORITHM],
                    leeway=CLOCK_SKEW_SECONDS,
                    options={"require": ["exp"], "verify_aud": False},
                )
            except jwt.InvalidSignatureError as error:
                failure = error
            except jwt.InvalidTokenError as error:
                raise UnauthorizedError(f"the token is not valid: {error}") from error
            else:
                return
        raise UnauthorizedError(f"the token is not valid: {failure}")

    def _keys(self) -> list[str]:
        try:
            found: list[object] = (
                json.loads(self._keys_file.read_text()) if self._keys_file is not None else []
            )
        except (OSError, ValueError):
            found = []
        keys = [key for key in found if isinstance(key, str) and len(key.encode()) >= MINIMUM_SECRET_BYTES]
        return keys or [self._secret]
