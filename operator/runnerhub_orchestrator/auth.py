"""Bearer tokens: JWT, HS256, signed with the installation's secret, with an expiry date."""

from __future__ import annotations

import jwt
from aiohttp import web

from .errors import UnauthorizedError

ALGORITHM = "HS256"
CLOCK_SKEW_SECONDS = 10
# Browsers cannot set a header on a WebSocket; a subprotocol can carry the token without entering any log.
WEBSOCKET_PROTOCOL = "runnerhub.events"
WEBSOCKET_BEARER = "bearer."


class Authenticator:
    """Checks requests."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

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
        try:
            jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                leeway=CLOCK_SKEW_SECONDS,
                options={"require": ["exp"], "verify_aud": False},
            )
        except jwt.InvalidTokenError as error:
            raise UnauthorizedError(f"the token is not valid: {error}") from error
