"""The runner's own errors."""

from __future__ import annotations


class SettingsError(Exception):
    """The environment does not describe a runner; the text names every mistake."""


class GithubError(Exception):
    """GitHub refused, or did not answer.

    `status`: the HTTP status, 0 without an answer. `retry_after_seconds`: how long GitHub wants to be left alone.
    """

    def __init__(self, message: str, status: int = 0, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_seconds = retry_after_seconds
