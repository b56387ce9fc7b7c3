"""The operator's one error tree; each class has a stable reason for conditions and Events."""

from __future__ import annotations


class OperatorError(Exception):
    """Base of all errors that the operator raises itself."""

    reason = "InternalError"


class InvalidSpecError(OperatorError):
    """The resource passed the schema of the API server but not the operator's own validation."""

    reason = "InvalidSpec"


class ForeignObjectError(OperatorError):
    """An object with the name of a child exists and belongs to somebody else."""

    reason = "NameTaken"


class LostLeadershipError(OperatorError):
    """This process no longer holds the operator's Lease and must not write."""

    reason = "LostLeadership"


class ProbeError(OperatorError):
    """A database, queue or proxy did not answer a probe within its deadline."""

    reason = "ProbeFailed"


class UnauthorizedProbeError(ProbeError):
    """A program answers, but does not know the key with which it was asked, maybe not yet."""


class UnknownPathError(ProbeError):
    """A program answers, but does not know what it is asked, as one of an older image."""


class SwitchoverPostponedError(ProbeError):
    """A planned switchover did not take place: clients could not be held back, or Patroni refused."""

    reason = "SwitchoverPostponed"


class KubeError(OperatorError):
    """The API server refused a request or could not be reached.

    `status` is the HTTP status code, 0 when there was no answer.
    """

    reason = "KubernetesError"

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class NotFoundError(KubeError):
    """The object does not exist (404)."""

    reason = "NotFound"


class ConflictError(KubeError):
    """The object changed meanwhile, exists already, or a field has another owner (409)."""

    reason = "Conflict"


class ExpiredError(KubeError):
    """The API server no longer remembers the version that a list or a watch wanted to go on from (410)."""

    reason = "Expired"


class RefusedError(KubeError):
    """The API server refused the request for good: 400, 403, 413, 422."""

    reason = "RefusedByApiServer"


class UnavailableError(KubeError):
    """The API server cannot answer now: connection lost, timeout, 429, 5xx.

    `retry_after_seconds`: how long it asks to be left alone, 0 when it does not say.
    """

    reason = "ApiServerUnavailable"

    def __init__(self, message: str, status: int = 0, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message, status)
        self.retry_after_seconds = retry_after_seconds
