"""What the environment decides, and where a runner registers."""

from __future__ import annotations

import pytest

from runnerhub_operator import names
from runnerhub_runner import settings as runner_settings
from runnerhub_runner.errors import SettingsError
from runnerhub_runner.github import api_url
from runnerhub_runner.settings import Settings

LEAST = {"ORCHESTRATOR_URL": "http://hub/", "RUNNERHUB_TOKEN_FILE": "/etc/token"}


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({"RUNNER_POLL_SECONDS": "soon", "RUNNER_COMMAND": "'", "RUNNER_PORT": "0"})
    for name in (
        "ORCHESTRATOR_URL",
        "RUNNERHUB_TOKEN_FILE",
        "RUNNER_POLL_SECONDS",
        "RUNNER_COMMAND",
        "RUNNER_PORT",
    ):
        assert name in str(caught.value)


def test_a_token_needs_a_place_to_register() -> None:
    with pytest.raises(SettingsError, match="GITHUB_URL"):
        Settings.from_environment({**LEAST, "GITHUB_TOKEN": "x"})
    assert Settings.from_environment(LEAST).github_token == ""


def test_labels_and_command_are_taken_apart() -> None:
    found = Settings.from_environment({**LEAST, "RUNNER_LABELS": "a, b,", "RUNNER_COMMAND": "run 'a b'"})
    assert found.labels == ("a", "b")
    assert found.command == ("run", "a b")
    assert found.orchestrator_url == "http://hub"
    assert found.port == names.PORT_RUNNER == runner_settings.PORT
    assert "secret" not in repr(
        Settings.from_environment({**LEAST, "GITHUB_TOKEN": "secret", "GITHUB_URL": "https://github.com/x"})
    )


@pytest.mark.parametrize(
    ("url", "api"),
    [
        ("https://github.com/example", "https://api.github.com/orgs/example/actions/runners"),
        ("https://github.com/example/app", "https://api.github.com/repos/example/app/actions/runners"),
        ("https://ghe.test:8443/example", "https://ghe.test:8443/api/v3/orgs/example/actions/runners"),
    ],
)
def test_where_runners_are_in_the_api(url: str, api: str) -> None:
    assert api_url(url) == api


@pytest.mark.parametrize("url", ["https://github.com", "https://github.com/a/b/c", "example"])
def test_an_address_without_owner_is_no_place_to_register(url: str) -> None:
    with pytest.raises(ValueError, match="names no organisation or repository"):
        api_url(url)
