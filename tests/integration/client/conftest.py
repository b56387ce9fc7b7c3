"""The client's tests use the same real Postgres as the orchestrator's."""

from tests.integration.orchestrator.conftest import postgres_url  # noqa: F401 - a fixture
