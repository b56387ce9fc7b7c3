"""The orchestrator's error tree: each error has a stable reason word and the HTTP status it becomes."""

from __future__ import annotations

from typing import ClassVar


class OrchestratorError(Exception):
    """Base of all errors of this package."""

    reason: ClassVar[str] = "InternalError"
    http_status: ClassVar[int] = 500


class SettingsError(OrchestratorError):
    """The environment does not describe a working orchestrator."""

    reason = "InvalidSettings"


class MisdirectedError(OrchestratorError):
    """The load balancer of another cluster asked: the address of this pod was that of one of its pods."""

    reason = "Misdirected"
    http_status = 421


class DatabaseUnavailableError(OrchestratorError):
    """No database answered within the deadline of the request."""

    reason = "DatabaseUnavailable"
    http_status = 503


class QueueUnavailableError(OrchestratorError):
    """Redis did not answer within its deadline."""

    reason = "QueueUnavailable"
    http_status = 503


class EntryGoneError(OrchestratorError):
    """The queue's entry is not held under this token any more."""

    reason = "EntryGone"
    http_status = 409


class OverloadedError(OrchestratorError):
    """More requests are in flight than this process is willing to hold."""

    reason = "Overloaded"
    http_status = 503


class NotReplicatedError(OrchestratorError):
    """The commit ended without waiting for a synchronous standby, so it must not be acknowledged."""

    reason = "NotReplicated"
    http_status = 503


class StaleLeaderError(OrchestratorError):
    """A newer leader has written already: this process must stop its singleton work."""

    reason = "StaleLeader"


class JobNotFoundError(OrchestratorError):
    """No job has this id."""

    reason = "JobNotFound"
    http_status = 404


class JobConflictError(OrchestratorError):
    """The same jobId was delegated before with other content."""

    reason = "JobConflict"
    http_status = 409


class LeaseLostError(OrchestratorError):
    """The token is not the one of the job's latest execution."""

    reason = "LeaseLost"
    http_status = 409


class InvalidRequestError(OrchestratorError):
    """The request's content is not what the interface asks for."""

    reason = "InvalidRequest"
    http_status = 400


class UnauthorizedError(OrchestratorError):
    """The request carries no valid token."""

    reason = "Unauthorized"
    http_status = 401
