"""What crosses the HTTP interface: requests are validated, answers are rendered from rows."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from .errors import InvalidRequestError
from .jobs import Demand, Job, NewJob

M = TypeVar("M", bound=BaseModel)

BigId = Annotated[int, Field(gt=0, lt=2**63, strict=True)]
Name = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]
Label = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00]*$")]
LONGEST_WAIT_SECONDS = 300.0


class _Request(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class DelegateRequest(_Request):
    """Body of POST /api/jobs/delegate. Unknown fields are ignored, as clients of other versions send some."""

    job_id: BigId
    run_id: BigId
    repository: Name
    workflow: Name
    labels: Annotated[list[Label], Field(max_length=100)] = []

    def new_job(self) -> NewJob:
        """The job to store; labels are a set, so their order must not make two requests differ."""
        return NewJob(
            self.job_id, self.run_id, self.repository, self.workflow, tuple(sorted(set(self.labels)))
        )


class ClaimRequest(_Request):
    """Body of POST /api/runners/claim. A repeated claimId gets the same job again."""

    runner_id: Name
    labels: Annotated[list[Label], Field(max_length=100)] = []
    wait_seconds: Annotated[float, Field(ge=0, le=LONGEST_WAIT_SECONDS)] = 10.0
    claim_id: uuid.UUID | None = None


class HeartbeatRequest(_Request):
    """Body of POST /api/jobs/{id}/heartbeat."""

    token: uuid.UUID


class CompleteRequest(_Request):
    """Body of POST /api/jobs/{id}/complete."""

    token: uuid.UUID
    result: dict[str, Any] = {}

    @field_validator("result")
    @classmethod
    def _storable(cls, value: dict[str, Any]) -> dict[str, Any]:
        if _has_null_character(value):
            raise ValueError("text must not contain the null character")
        return value


async def parse(request: web.Request, model: type[M]) -> M:
    """Read and validate a JSON body; raises InvalidRequestError with all mistakes in one sentence."""
    try:
        return model.model_validate_json(await request.read())
    except ValidationError as error:
        mistakes = (
            f"{'.'.join(str(part) for part in item['loc']) or 'body'}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise InvalidRequestError("; ".join(mistakes)) from error


def render(job: Job) -> dict[str, Any]:
    """A job as clients see it. The lease token belongs to the runner alone and is not part of it."""
    return {
        "jobId": job.job_id,
        "delegationId": str(job.delegation_id),
        "runId": job.run_id,
        "repository": job.repository,
        "workflow": job.workflow,
        "labels": list(job.labels),
        "status": job.status,
        "attempt": job.attempt,
        "requeues": job.requeues,
        "runnerId": job.runner_id,
        "result": job.result,
        "failure": job.failure,
        "createdAt": job.created_at.isoformat(),
        "startedAt": job.started_at.isoformat() if job.started_at else None,
        "finishedAt": job.finished_at.isoformat() if job.finished_at else None,
    }


def render_claim(job: Job, lease_seconds: float) -> dict[str, Any]:
    """A claimed job as its runner sees it, with the lease."""
    return {**render(job), "token": str(job.lease_token), "leaseSeconds": lease_seconds}


def render_demand(demand: Demand) -> dict[str, Any]:
    """The answer of GET /api/runners/demand."""
    return {
        "waiting": [{"labels": list(labels), "jobs": jobs} for labels, jobs in demand.waiting],
        "running": [
            {
                "runnerId": job.runner_id,
                "jobId": job.job_id,
                "leaseUntil": job.lease_until.isoformat() if job.lease_until else None,
            }
            for job in demand.running
        ],
        "complete": demand.complete,
    }


def _has_null_character(value: Any) -> bool:
    """Postgres cannot store it in jsonb."""
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(_has_null_character(part) for item in value.items() for part in item)
    return isinstance(value, list) and any(_has_null_character(item) for item in value)
