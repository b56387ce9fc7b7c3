"""Patroni's configuration: synchronous modes, parameters, and the patch that follows a changed spec."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerhub_operator.api.spec import OPERATOR_OWNED_PARAMETERS
from runnerhub_operator.resources.patroni import (
    POOL_MARGIN,
    dynamic_config_patch,
    needed_connections,
    patroni_dynamic_config,
    patroni_labels,
    patroni_local_config,
    postgres_parameters,
)
from runnerhub_operator.resources.pooler import pooler_configuration

from .contexts import context


@pytest.mark.parametrize(
    ("synchronous", "mode", "strict"),
    [("preferred", "quorum", False), ("required", "quorum", True), ("disabled", False, False)],
)
def test_synchronous_modes(synchronous: str, mode: object, strict: bool) -> None:
    config = patroni_dynamic_config(context(synchronous=synchronous))
    assert config["synchronous_mode"] == mode
    assert config["synchronous_mode_strict"] is strict


def test_timing_leaves_room_for_two_retries_within_the_leader_key() -> None:
    config = patroni_dynamic_config(context())
    assert config["loop_wait"] + 2 * config["retry_timeout"] <= config["ttl"]


def test_parameters_of_the_user_win_over_defaults() -> None:
    parameters = postgres_parameters(context(parameters={"shared_buffers": "1GB", "work_mem": "8MB"}))
    assert parameters["shared_buffers"] == "1GB"
    assert parameters["work_mem"] == "8MB"
    assert parameters["wal_level"] == "replica"


def test_no_parameter_that_we_own_can_be_given() -> None:
    owned_by_us = {"wal_level", "hot_standby", "max_wal_senders", "unix_socket_directories", "wal_log_hints"}
    assert owned_by_us <= set(OPERATOR_OWNED_PARAMETERS)


def test_every_value_is_text_so_that_it_compares_with_what_the_user_writes() -> None:
    assert all(isinstance(value, str) for value in postgres_parameters(context()).values())


def test_log_sizes_follow_the_volume() -> None:
    small = postgres_parameters(context(storage={"size": "1Gi"}))
    large = postgres_parameters(context(storage={"size": "1Ti"}))
    assert (small["max_wal_size"], small["max_slot_wal_keep_size"]) == ("128MB", "256MB")
    assert (large["max_wal_size"], large["max_slot_wal_keep_size"]) == ("4096MB", "65536MB")


def test_the_write_ahead_log_grows_only_when_the_last_volume_has_grown() -> None:
    asked = context(storage={"size": "1Ti"})
    growing = replace(asked, postgres_volume_bytes=2**30)
    assert postgres_parameters(growing)["max_slot_wal_keep_size"] == "256MB"
    rounded_up = replace(asked, postgres_volume_bytes=2**41)
    assert postgres_parameters(rounded_up) == postgres_parameters(asked)


def test_buffers_follow_the_memory_limit() -> None:
    assert postgres_parameters(context())["shared_buffers"] == "128MB"
    limited = context(resources={"limits": {"memory": "4Gi"}})
    assert postgres_parameters(limited)["shared_buffers"] == "1024MB"


@given(replicas=st.integers(1, 20), pool_size=st.integers(1, 500))
def test_connections_suffice_for_all_poolers_during_their_update(replicas: int, pool_size: int) -> None:
    needed = needed_connections(context(pooler={"replicas": replicas, "poolSize": pool_size}))
    parameters = postgres_parameters(context(pooler={"replicas": replicas, "poolSize": pool_size}))
    reserved = int(parameters["superuser_reserved_connections"]) + int(parameters["reserved_connections"])
    assert needed - reserved >= 2 * (replicas + 1) * pool_size
    assert needed % 100 == 0


@given(replicas=st.integers(1, 20), room=st.integers(1070, 99_999))
def test_the_pools_are_as_large_as_max_connections_has_room_for(replicas: int, room: int) -> None:
    asked = {"pooler": {"replicas": replicas}, "parameters": {"max_connections": str(room)}}
    size = context(**asked).cluster.spec.postgres.pool_size
    parameters = postgres_parameters(context(**asked))
    assert parameters["max_connections"] == str(room)
    reserved = int(parameters["superuser_reserved_connections"]) + int(parameters["reserved_connections"])
    assert 2 * (replicas + 1) * (size + POOL_MARGIN) + reserved <= room
    assert size == 500 or 2 * (replicas + 1) * (size + 1 + POOL_MARGIN) + 20 > room


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({}, 20),
        ({"pooler": {"replicas": 5}}, 20),
        ({"parameters": {"work_mem": "8MB"}}, 20),
        ({"parameters": {"max_connections": "170"}}, 20),
        ({"parameters": {"max_connections": "1000"}}, 158),
        ({"parameters": {"max_connections": "1000"}, "pooler": {"poolSize": 20}}, 20),
        ({"parameters": {"max_connections": "200000"}}, 500),
    ],
)
def test_pools_are_of_the_size_told_or_else_follow_max_connections(asked: dict[str, Any], size: int) -> None:
    made = context(**asked)
    assert made.cluster.spec.postgres.pool_size == size
    assert f"default_pool_size = {size}\n" in pooler_configuration(made)["pgbouncer-rw.ini"]


def test_pods_restart_for_the_local_part_only() -> None:
    assert patroni_local_config(context()) == patroni_local_config(context(parameters={"work_mem": "8MB"}))


def test_labels_of_the_store_stay_out_of_the_operators_watch() -> None:
    assert "app.kubernetes.io/managed-by" not in patroni_labels(context())
    kubernetes = patroni_local_config(context())["kubernetes"]
    scope = patroni_local_config(context())["scope"]
    assert {**kubernetes["labels"], kubernetes["scope_label"]: scope} == patroni_labels(context())


def test_no_password_in_any_file() -> None:
    text = json.dumps([patroni_local_config(context()), patroni_dynamic_config(context())])
    assert "password" not in text.replace("password_encryption", "")


# --- dynamic_config_patch ---

_SCALARS = st.one_of(st.booleans(), st.integers(0, 3), st.sampled_from(["on", "off", "quorum"]))
_PARAMETERS = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from(["1", "2"]))


def _configs() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"ttl": _SCALARS, "synchronous_mode": _SCALARS},
        optional={
            "pause": st.just(True),
            "postgresql": st.fixed_dictionaries(
                {"parameters": _PARAMETERS},
                optional={"use_slots": _SCALARS, "pg_hba": st.lists(st.just("x"))},
            ),
        },
    )


def _merge(target: Any, patch: Any) -> Any:
    """JSON merge patch, RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge(result.get(key), value)
    return result


@given(desired=_configs(), observed=_configs())
def test_applying_the_patch_ends_the_difference(desired: dict[str, Any], observed: dict[str, Any]) -> None:
    desired.pop("pause", None)
    patch = dynamic_config_patch(desired, observed)
    after = _merge(observed, patch) if patch is not None else observed
    assert dynamic_config_patch(desired, after) is None
    for key, value in desired.items():
        if key != "postgresql":
            assert after[key] == value
    if "postgresql" in desired:
        assert after.get("postgresql", {}).get("parameters", {}) == desired["postgresql"]["parameters"]


@given(desired=_configs(), observed=_configs())
def test_settings_of_others_are_left_alone(desired: dict[str, Any], observed: dict[str, Any]) -> None:
    desired.pop("pause", None)
    assert "pause" not in (dynamic_config_patch(desired, observed) or {})


def test_nothing_to_do_is_none() -> None:
    config = patroni_dynamic_config(context())
    assert dynamic_config_patch(config, json.loads(json.dumps(config))) is None


def test_a_removed_parameter_becomes_null() -> None:
    before = patroni_dynamic_config(context(parameters={"work_mem": "8MB"}))
    after = patroni_dynamic_config(context())
    assert dynamic_config_patch(after, before) == {"postgresql": {"parameters": {"work_mem": None}}}


def test_a_changed_mode_is_patched_alone() -> None:
    before, after = patroni_dynamic_config(context()), patroni_dynamic_config(context(synchronous="disabled"))
    assert dynamic_config_patch(after, before) == {"synchronous_mode": False}
