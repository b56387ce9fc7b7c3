"""A Sentinel that was told something else is set right."""

from __future__ import annotations

from dataclasses import replace

from images.redis.runnerhub_redis import handover, steward
from tests.integration.redis.conftest import ADDRESSES, NAME, Pods


def test_a_sentinel_that_goes_by_the_settings_is_left_alone(pods: Pods) -> None:
    pods.start_redis(0)
    pods.start_sentinel(0, ADDRESSES[0])
    assert steward.correct(pods.settings())
    masters = [{**found, "name": name} for name, found in pods.sentinel(0).sentinel_masters().items()]
    assert [master["name"] for master in masters] == [NAME]


def test_a_wrong_quorum_wrong_times_and_a_strange_master_are_set_right(pods: Pods) -> None:
    pods.start_redis(0)
    pods.start_sentinel(0, ADDRESSES[0])
    sentinel = pods.sentinel(0)
    for option, value in (("quorum", "1"), ("down-after-milliseconds", "60000"), ("failover-timeout", "1")):
        sentinel.execute_command("SENTINEL", "SET", NAME, option, value)
    sentinel.execute_command("SENTINEL", "MONITOR", "strange", "127.0.0.9", "6379", "1")
    assert steward.correct(pods.settings())
    masters = sentinel.sentinel_masters()
    assert set(masters) == {NAME}
    found = masters[NAME]
    settings = pods.settings()
    assert (found["quorum"], found["down-after-milliseconds"], found["failover-timeout"]) == (
        settings.quorum,
        settings.down_after_milliseconds,
        settings.failover_timeout_milliseconds,
    )


def test_a_master_that_loads_for_long_is_given_up_after_the_time_of_today(pods: Pods) -> None:
    """SENTINEL MASTER does not tell it, what Sentinel writes does."""
    pods.start_redis(0)
    pods.start_sentinel(0, ADDRESSES[0])
    settings = replace(pods.settings(), down_after_milliseconds=2000)
    assert steward.correct(settings)
    written = settings.paths.sentinel_state.read_text().splitlines()
    assert f"sentinel down-after-milliseconds {NAME} 2000" in written
    assert f"sentinel master-reboot-down-after-period {NAME} 2000" in written


def test_a_sentinel_is_given_its_pace_and_one_that_a_hand_over_left_in_a_hurry_slows_down(pods: Pods) -> None:
    pods.start_redis(0)
    pods.start_sentinel(0, ADDRESSES[0])

    def period() -> int:
        return int(pods.sentinel(0).execute_command("SENTINEL", "DEBUG")["INFO-PERIOD"])

    assert not steward.pace(pods.settings(), hurried=False)
    assert period() == handover.INFO_PERIOD
    pods.sentinel(0).execute_command("SENTINEL", "DEBUG", "INFO-PERIOD", handover.INFO_PERIOD_NOW)
    # That may be a hand-over which goes on.
    assert steward.pace(pods.settings(), hurried=False)
    assert period() == handover.INFO_PERIOD_NOW
    assert steward.pace(pods.settings(), hurried=True)
    assert period() == handover.INFO_PERIOD
    assert not steward.pace(pods.settings(), hurried=True)


def test_a_sentinel_that_watches_another_name_is_told(pods: Pods) -> None:
    pods.start_redis(0)
    pods.start_sentinel(0, ADDRESSES[0])
    pods.sentinel(0).execute_command("SENTINEL", "REMOVE", NAME)
    assert not steward.correct(pods.settings())
