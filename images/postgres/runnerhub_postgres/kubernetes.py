"""The few requests to the API server that a pod of the database makes by itself, in its own namespace."""

from __future__ import annotations

import http.client
import json
import os
import ssl
from pathlib import Path
from typing import Any, Final

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
REQUEST_SECONDS: Final = 3.0


class RefusedError(Exception):
    """The API server answered with an error status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class Api:
    """The API server, with the token of the pod's ServiceAccount."""

    def __init__(self, namespace: str) -> None:
        self._base = f"/api/v1/namespaces/{namespace}"
        self._host, self._port = (
            os.environ["KUBERNETES_SERVICE_HOST"],
            int(os.environ["KUBERNETES_SERVICE_PORT"]),
        )
        self._tls = ssl.create_default_context(cafile=str(SERVICE_ACCOUNT / "ca.crt"))

    def call(
        self, method: str, path: str, body: object | None = None, content: str = "application/json"
    ) -> Any:
        """One request. Raises RefusedError, or OSError when there is no answer."""
        connection = http.client.HTTPSConnection(
            self._host, self._port, timeout=REQUEST_SECONDS, context=self._tls
        )
        try:
            connection.request(
                method,
                self._base + path,
                body=None if body is None else json.dumps(body),
                headers={
                    "Authorization": "Bearer " + (SERVICE_ACCOUNT / "token").read_text().strip(),
                    "Content-Type": content,
                },
            )
            response = connection.getresponse()
            text = response.read().decode()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()
        if response.status >= 300:
            raise RefusedError(response.status, text[:300])
        return json.loads(text)

    def find(self, path: str) -> Any | None:
        """Read an object, None when it does not exist."""
        try:
            return self.call("GET", path)
        except RefusedError as error:
            if error.status == 404:
                return None
            raise
