import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerhub_orchestrator.errors import SettingsError
from runnerhub_orchestrator.settings import Settings

SECRET = "s3cr3t" * 8
MINIMAL = {"DATABASE_URL": "postgresql://app:hidden-pw@db:5432/hub", "JWT_SECRET": SECRET}


def test_two_variables_are_enough():
    settings = Settings.from_environment(MINIMAL)
    assert (settings.port, settings.websocket_port) == (3001, 3002)
    assert settings.redis.master_name == "github-runnerhub-redis"
    assert settings.drain_seconds == 5
    assert settings.stop_seconds == 20
    assert settings.database.deadline_seconds == 15


def test_the_operators_environment_is_understood():
    settings = Settings.from_environment(
        {
            **MINIMAL,
            "HA_ENABLED": "true",
            "HA_NODE_ID": "hub-orchestrator-0",
            "REDIS_ENABLE_SENTINEL": "true",
            "REDIS_SENTINEL_HOSTS": "hub-redis-0:26379,hub-redis-1:26380, hub-redis-2",
            "LEADER_ELECTION_TIMEOUT": "15000",
            "LEADER_ELECTION_RENEWAL": "2000",
            "RUNNERHUB_LEADER_FILE": "/run/runnerhub/leader.json",
        }
    )
    assert settings.node_id == "hub-orchestrator-0"
    assert settings.redis.sentinels == (
        ("hub-redis-0", 26379),
        ("hub-redis-1", 26380),
        ("hub-redis-2", 26379),
    )
    assert settings.leader.lease_seconds == 15
    assert settings.leader.poll_seconds == 1
    assert str(settings.leader.leader_file) == "/run/runnerhub/leader.json"


def test_leadership_is_asked_for_each_second_however_seldom_it_is_renewed():
    settings = Settings.from_environment({**MINIMAL, "LEADER_ELECTION_RENEWAL": "60000"})
    assert settings.leader.poll_seconds == 1
    settings = Settings.from_environment({**MINIMAL, "LEADER_ELECTION_RENEWAL": "500"})
    assert settings.leader.poll_seconds == 0.25


def test_the_documents_name_of_the_database_serves_too():
    environment = {"DATABASE_PRIMARY_URL": MINIMAL["DATABASE_URL"], "JWT_SECRET": SECRET}
    assert Settings.from_environment(environment).database.url == MINIMAL["DATABASE_URL"]


def test_all_mistakes_are_named_at_once():
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(
            {
                "DATABASE_URL": "mysql://db",
                "JWT_SECRET": "short",
                "PORT": "99999",
                "REDIS_ENABLE_SENTINEL": "yes",
                "REDIS_SENTINEL_HOSTS": "a:b",
                "JOB_LEASE_SECONDS": "nan",
                "LOG_LEVEL": "loud",
            }
        )
    for name in ("DATABASE_URL", "JWT_SECRET", "PORT", "REDIS_ENABLE_SENTINEL", "REDIS_SENTINEL_HOSTS"):
        assert name in str(caught.value)
    assert "JOB_LEASE_SECONDS must be a number of seconds from 1 to 3600, not 'nan'" in str(caught.value)
    assert "LOG_LEVEL must be one of DEBUG, INFO, WARNING, ERROR" in str(caught.value)


def test_sentinel_without_hosts_is_refused():
    with pytest.raises(SettingsError, match="REDIS_SENTINEL_HOSTS"):
        Settings.from_environment({**MINIMAL, "REDIS_ENABLE_SENTINEL": "true"})


def test_draining_must_fit_into_stopping():
    environment = {**MINIMAL, "ORCHESTRATOR_DRAIN_SECONDS": "20", "ORCHESTRATOR_STOP_SECONDS": "10"}
    with pytest.raises(SettingsError, match="ORCHESTRATOR_DRAIN_SECONDS"):
        Settings.from_environment(environment)


def test_no_secret_is_printed():
    settings = Settings.from_environment(
        {**MINIMAL, "REDIS_PASSWORD": "redis-pw", "REDIS_SENTINEL_PASSWORD": "s-pw"}
    )
    for secret in (SECRET, "hidden-pw", "redis-pw", "s-pw"):
        assert secret not in repr(settings)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "PORT",
                "REDIS_PORT",
                "JOB_LEASE_SECONDS",
                "REDIS_SENTINEL_HOSTS",
                "DATABASE_URL",
                "HEALTH_CHECK_INTERVAL",
            ]
        ),
        st.text(),
    )
)
def test_any_text_is_settings_or_a_settings_error(environment):
    with contextlib.suppress(SettingsError):
        assert Settings.from_environment({**MINIMAL, **environment}).port
