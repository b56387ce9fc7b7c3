"""A running Redis follows the operator's part of its configuration."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from images.redis.runnerhub_redis import live
from runnerhub_operator.plan import settings_in_use
from runnerhub_operator.resources import redis as builders
from tests.integration.redis.conftest import Pods, wait_until
from tests.unit.redis.test_redis_manifests import context


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pods: Pods):
    """Writes the ConfigMap's files as Kubernetes does, for a spec; returns the texts."""
    monkeypatch.setattr(live, "PORT_REDIS", pods.port)
    folder = pods.settings().paths.configuration
    folder.mkdir(parents=True, exist_ok=True)

    def write(**spec):
        found = context(**spec)
        data = builders.configuration_config_map(found)["data"]
        for name, text in data.items():
            (folder / name).write_text(text)
        return data

    return write


def hash_of(data: dict[str, str]) -> str:
    return settings_in_use.digest(data["redis.conf"], data["settings.json"])


def test_every_line_of_it_can_be_given_to_a_running_server(pods: Pods, mounted) -> None:
    """A line that CONFIG SET refuses would need a restart that nobody makes."""
    server = pods.start_redis(0)
    data = mounted()
    configuration = live.Configuration(pods.settings())
    configuration.look()
    assert configuration.applied == hash_of(data)
    assert server.config_get("appendfsync")["appendfsync"] == "everysec"
    assert server.config_get("min-replicas-max-lag")["min-replicas-max-lag"] == "3"
    assert server.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"


def test_a_change_takes_effect_and_only_what_changed_is_written(pods: Pods, mounted) -> None:
    server = pods.start_redis(0)
    configuration = live.Configuration(pods.settings())
    before = mounted()
    configuration.begin()
    assert configuration.applied == hash_of(before)
    # Set by this pod for its own reasons, as a former master does.
    server.config_set("min-replicas-to-write", "1000")
    after = mounted(appendFsync="always", downAfterMilliseconds=9000)
    assert configuration.applied != hash_of(after)
    configuration.look()
    assert configuration.applied == hash_of(after)
    assert server.config_get("appendfsync")["appendfsync"] == "always"
    assert server.config_get("min-replicas-max-lag")["min-replicas-max-lag"] == "7"
    assert server.config_get("min-replicas-to-write")["min-replicas-to-write"] == "1000"


def test_a_larger_volume_gives_a_running_server_more_memory(pods: Pods, mounted) -> None:
    server = pods.start_redis(0)
    configuration = live.Configuration(pods.settings())
    mounted(storage={"size": "1Gi"})
    configuration.look()
    assert server.config_get("maxmemory")["maxmemory"] == str(512 * 2**20)
    after = mounted(storage={"size": "2Gi"})
    configuration.look()
    assert configuration.applied == hash_of(after)
    assert server.config_get("maxmemory")["maxmemory"] == str(2**30)


def test_a_container_whose_limit_is_taken_away_keeps_to_it_until_it_is_renewed(pods: Pods, mounted) -> None:
    server = pods.start_redis(0, "--maxmemory", "1000000")
    configuration = live.Configuration(replace(pods.settings(), max_memory_bytes=1000000))
    mounted(resources={"limits": {"memory": "1Gi"}})
    configuration.begin()
    after = mounted()
    configuration.look()
    assert configuration.applied == hash_of(after)
    assert server.config_get("maxmemory")["maxmemory"] == "1000000"


def test_a_snapshot_that_fails_refuses_no_write(pods: Pods, mounted) -> None:
    """The append-only file has everything."""
    server = pods.start_redis(0, "--appendonly", "yes")
    mounted()
    live.Configuration(pods.settings()).look()
    server.config_set("min-replicas-to-write", "0")
    (pods.settings().paths.redis_data / "dump.rdb").mkdir()
    server.bgsave()
    wait_until(lambda: server.info("persistence")["rdb_last_bgsave_status"] == "err")
    assert server.set("key", "value")


def test_times_of_sentinel_alone_are_told_too(pods: Pods, mounted) -> None:
    pods.start_redis(0)
    configuration = live.Configuration(pods.settings())
    mounted()
    configuration.begin()
    after = mounted(downAfterMilliseconds=5500)
    configuration.look()
    assert configuration.applied == hash_of(after)
    assert pods.settings().today().down_after_milliseconds == 5500


def test_what_redis_refuses_is_told_once_and_not_taken_for_done(pods: Pods, mounted, capsys) -> None:
    pods.start_redis(0)
    configuration = live.Configuration(pods.settings())
    data = mounted()
    configuration.begin()
    (pods.settings().paths.configuration / "redis.conf").write_text(
        data["redis.conf"] + "cluster-enabled yes\n"
    )
    configuration.look()
    configuration.look()
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [item["message"] for item in told] == ["Redis refuses a part of its new configuration"]
    assert configuration.applied == hash_of(data)


def test_a_server_that_is_away_is_given_it_later(pods: Pods, mounted) -> None:
    configuration = live.Configuration(pods.settings())
    mounted()
    configuration.begin()
    after = mounted(appendFsync="always")
    with pytest.raises(OSError, match="refused"):
        configuration.look()
    server = pods.start_redis(0)
    configuration.look()
    assert configuration.applied == hash_of(after)
    assert server.config_get("appendfsync")["appendfsync"] == "always"
