"""Jobs, and the fencing token of the singleton work."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create both tables."""
    op.execute(
        """
        CREATE TABLE jobs (
            job_id         bigint PRIMARY KEY,
            delegation_id  uuid NOT NULL UNIQUE,
            run_id         bigint NOT NULL,
            repository     text NOT NULL,
            workflow       text NOT NULL,
            labels         text[] NOT NULL DEFAULT '{}',
            status         text NOT NULL
                           CHECK (status IN ('pending', 'queued', 'running', 'completed', 'failed')),
            attempt        integer NOT NULL DEFAULT 0,
            requests       integer NOT NULL DEFAULT 1,
            requeues       integer NOT NULL DEFAULT 0,
            completions    integer NOT NULL DEFAULT 0,
            runner_id      text,
            claim_id       uuid,
            lease_token    uuid,
            lease_until    timestamptz,
            result         jsonb,
            failure        text,
            created_at     timestamptz NOT NULL DEFAULT now(),
            updated_at     timestamptz NOT NULL DEFAULT now(),
            enqueued_at    timestamptz,
            started_at     timestamptz,
            finished_at    timestamptz
        )
        """
    )
    op.execute("CREATE INDEX jobs_waiting ON jobs (created_at) WHERE status IN ('pending', 'queued')")
    op.execute("CREATE INDEX jobs_running ON jobs (lease_until) WHERE status = 'running'")
    op.execute("CREATE INDEX jobs_finished ON jobs (finished_at) WHERE status IN ('completed', 'failed')")
    op.execute("CREATE UNIQUE INDEX jobs_claim ON jobs (claim_id) WHERE claim_id IS NOT NULL")
    op.execute(
        """
        CREATE TABLE leadership (
            id             smallint PRIMARY KEY CHECK (id = 1),
            fencing_token  bigint NOT NULL,
            holder         text NOT NULL,
            renewed_at     timestamptz NOT NULL DEFAULT now()
        )
        """
    )
    op.execute("INSERT INTO leadership (id, fencing_token, holder) VALUES (1, 0, '')")


def downgrade() -> None:
    """Remove both tables."""
    op.execute("DROP TABLE leadership")
    op.execute("DROP TABLE jobs")
