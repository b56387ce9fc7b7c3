"""The shared storage check for a bucket: write an object, read it back."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from ..errors import ProbeError
from .checks import Details
from .settings import BucketSettings

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

# One rule of the bucket's lifecycle can remove what pods that are gone have left there.
PROBE_FOLDER: Final = ".runnerhub-ha-probe"
ACCESS_KEY: Final = "AWS_ACCESS_KEY_ID"
SECRET_KEY: Final = "AWS_SECRET_ACCESS_KEY"  # noqa: S105 - a name
TOKEN: Final = "AWS_SESSION_TOKEN"  # noqa: S105 - a name

# Source: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html#ErrorCodeList
_MEANINGS: Final[Mapping[str, str]] = {
    "AccessDenied": "the credentials may not do this; they need s3:PutObject and s3:GetObject",
    "AuthorizationHeaderMalformed": "the bucket is in another region",
    "ExpiredToken": "the session token has expired",
    "InvalidAccessKeyId": "the store does not know the access key",
    "InvalidToken": "the session token is not valid",
    "NoSuchBucket": "there is no such bucket",
    "PermanentRedirect": "the bucket is in another region, or another endpoint serves it",
    "RequestTimeTooSkewed": "the clocks of node and store differ too much",
    "SignatureDoesNotMatch": "the secret access key is wrong",
}
# Requests for credentials: to a cloud's metadata, or to its service of tokens, whose URL the library does not tell.
_IDENTITY: Final = r"performing \w+ (REDACTED|http://169\.254\.)|token file"
# Some errors the library tells by Python's own classes.
_ERRORS: Final = (BaseError, OSError, ValueError)
# What is found first tells the cause; the rest of such a text is the library's inside.
_CAUSES: Final[Mapping[str, str]] = {
    r"UnknownIssuer": "its certificate is signed by somebody who is not trusted here",
    r"CaUsedAsEndEntity": "its certificate is that of an authority",
    r"NotValidForName": "its certificate is for another host",
    r"Expired": "its certificate has expired",
    r"InvalidContentType|InvalidCertificate|tls|Tls": "no TLS connection comes about",
    r"dns error|failed to lookup": "its name has no address",
    r"ConnectionRefused": "the connection is refused",
    r"TimedOut": "it does not answer in time",
    r"kind: Connect": "it cannot be reached",
}


class BucketProbe:
    """Writes and reads one small object of this node.

    The credentials are read from their files each time, which Kubernetes renews when their Secret changes.
    """

    def __init__(self, node: str, settings: BucketSettings, timeout_seconds: float) -> None:
        self._settings = settings
        self._timeout = timedelta(seconds=timeout_seconds)
        self._name = "/".join(part for part in (settings.prefix, PROBE_FOLDER, node) if part)
        self._store: S3Store | None = None
        self._made_from: object = None

    async def __call__(self) -> Details:
        """Probe once; ProbeError when the object cannot be written and read back."""
        store = await asyncio.to_thread(self._current)
        content = str(time.time_ns()).encode()
        try:
            await obstore.put_async(store, self._name, content, use_multipart=False)
            answer = await obstore.get_async(store, self._name)
            found = bytes(await answer.bytes_async())
        except _ERRORS as error:
            raise ProbeError(f"{self._where()}: {words(error)}") from None
        if found != content:
            raise ProbeError(f"{self._where()}: {self._name} does not read back what was written")
        return {"bucket": self._settings.bucket, "object": self._name}

    def _where(self) -> str:
        endpoint = self._settings.endpoint
        return f"bucket {self._settings.bucket}" + (f" at {endpoint}" if endpoint else "")

    def _current(self) -> S3Store:
        """The store for the credentials and certificates of the moment; a new one when they have changed."""
        given = self._credentials()
        authority = self._authority()
        if self._store is None or self._made_from != (given, authority):
            self._store = self._make(given, authority)
            self._made_from = (given, authority)
        return self._store

    def _make(self, credentials: S3Config, authority: bytes | None) -> S3Store:
        settings = self._settings
        config: S3Config = {**credentials, "virtual_hosted_style_request": not settings.path_style}
        if settings.region is not None:
            config["region"] = settings.region
        if settings.endpoint is not None:
            scheme, _, host = settings.endpoint.partition("://")
            # The library wants the bucket in front, where it is to be there.
            told = settings.endpoint if settings.path_style else f"{scheme}://{settings.bucket}.{host}"
            config["aws_endpoint_url_s3"] = told
        client: ClientConfig = {
            "allow_http": settings.endpoint is not None and settings.endpoint.startswith("http://"),
            "connect_timeout": self._timeout,
            "timeout": self._timeout,
            # A connection that the store closed meanwhile would look like an outage.
            "pool_idle_timeout": timedelta(seconds=1),
        }
        if authority is not None:
            client["root_certificate"] = authority
        try:
            return S3Store(
                settings.bucket,
                config=config,
                client_options=client,
                # Whoever checks has his own retries.
                retry_config={"max_retries": 0},
            )
        except _ERRORS as error:
            raise ProbeError(f"{self._where()}: {words(error)}") from None

    def _credentials(self) -> S3Config:
        folder = self._settings.credentials_folder
        if folder is None:
            return {}
        found: dict[str, str] = {}
        for key in (ACCESS_KEY, SECRET_KEY, TOKEN):
            try:
                found[key] = (folder / key).read_text().strip()
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                raise ProbeError(f"{key} of the credentials' Secret cannot be read: {error}") from None
        lacking = [key for key in (ACCESS_KEY, SECRET_KEY) if not found.get(key)]
        if lacking:
            raise ProbeError(f"the credentials' Secret is missing, or lacks {' and '.join(lacking)}")
        config: S3Config = {"access_key_id": found[ACCESS_KEY], "secret_access_key": found[SECRET_KEY]}
        if found.get(TOKEN):
            config["session_token"] = found[TOKEN]
        return config

    def _authority(self) -> bytes | None:
        if self._settings.ca_file is None:
            return None
        try:
            return self._settings.ca_file.read_bytes()
        except OSError as error:
            raise ProbeError(f"the certificates of the store's authority cannot be read: {error}") from None


def words(error: Exception) -> str:
    """What a person can act on, and nothing else: the texts of stores and libraries may tell keys."""
    text = str(error)
    if re.search(_IDENTITY, text):
        return (
            "no credentials: neither is there a credentialsSecretName, nor gives the cloud the pods' ServiceAccount "
            "an identity"
        )
    if code := re.search(r"<Code>(\w+)</Code>", text):
        return f"{_MEANINGS.get(code[1], 'the store refuses')} ({code[1]})"
    for pattern, meaning in _CAUSES.items():
        if re.search(pattern, text):
            return meaning
    if status := re.search(r"status code: (\d{3}[A-Za-z ]*)", text):
        return f"the store answers {status[1].strip()}"
    return type(error).__name__
