"""Patroni's configuration: the part in its store, which all members follow, and the part in their files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .. import names
from ..api import Synchronous
from ..quantities import quantity
from .common import BuildContext

DATA_MOUNT: Final = "/var/lib/postgresql/data"
DATA_DIRECTORY: Final = f"{DATA_MOUNT}/pgdata"
RUN_DIRECTORY: Final = "/run/postgresql"
CONFIG_DIRECTORY: Final = "/etc/patroni"
# What Patroni and patronictl read: the files of CONFIG_DIRECTORY, and the passwords, which change while they run.
EFFECTIVE_CONFIG_DIRECTORY: Final = f"{RUN_DIRECTORY}/patroni"
CREDENTIALS_DIRECTORY: Final = "/etc/runnerhub/credentials"

REST_USER: Final = "patroni"
# In PgBouncer's console and towards the poolers' agents; the password is Patroni's REST password, the one for
# everything that steers the database.
POOLER_ADMIN_USER: Final = "pgbouncer"
SUPERUSER: Final = "postgres"
# The image's name for the user that its processes run as.
OS_USER: Final = "runnerhub"
REPLICATION_ROLE: Final = "replicator"

# Patroni finds its members and its ConfigMaps by one and the same set of labels. The set must leave out
# app.kubernetes.io/managed-by: the operator watches that label, and the leader ConfigMap changes every two
# seconds.
LABEL_PATRONI: Final = f"{names.API_GROUP}/patroni"

# A replica further behind is neither promoted (asynchronous mode) nor given readers. One WAL segment.
MAX_REPLICA_LAG_BYTES: Final = 16 * 1024 * 1024

# Server connections of a pooler beside its pool: statistics, and connections being replaced.
POOL_MARGIN: Final = 5
_SUPERUSER_CONNECTIONS: Final = 10
_MONITORING_CONNECTIONS: Final = 5

_MIB: Final = 1024 * 1024


def patroni_scope(context: BuildContext) -> str:
    """Patroni's name of the cluster, and the prefix of its ConfigMaps."""
    return names.child(context.name, names.POSTGRES)


def leader_key_name(cluster: str) -> str:
    """ConfigMap in which Patroni keeps who leads.

    Source: https://patroni.readthedocs.io/en/latest/kubernetes.html#use-configmaps
    """
    return f"{names.child(cluster, names.POSTGRES)}-leader"


def patroni_labels(context: BuildContext) -> dict[str, str]:
    """Labels that pods and Patroni's ConfigMaps share."""
    return {names.LABEL_CLUSTER: context.name, LABEL_PATRONI: patroni_scope(context)}


def patroni_dynamic_config(context: BuildContext) -> dict[str, Any]:
    """The part that Patroni keeps in its store and every member follows; values of parameters are strings.

    Source of names: https://patroni.readthedocs.io/en/latest/dynamic_configuration.html
    """
    spec = context.cluster.spec.postgres
    return {
        "ttl": 20,
        "loop_wait": 2,
        "retry_timeout": 8,
        # A primary that crashed is not waited for when somebody can take over.
        "primary_start_timeout": 0,
        # A primary that cannot write its last checkpoint in this time is killed; its replicas have all
        # commits.
        "primary_stop_timeout": 60,
        "failsafe_mode": True,
        "check_timeline": True,
        "maximum_lag_on_failover": MAX_REPLICA_LAG_BYTES,
        "synchronous_mode": False if spec.synchronous is Synchronous.DISABLED else "quorum",
        "synchronous_mode_strict": spec.synchronous is Synchronous.REQUIRED,
        "synchronous_node_count": 1,
        "postgresql": {
            "use_pg_rewind": True,
            "use_slots": True,
            # Happens only after the primary answered as such, so there is another copy, and a newer one.
            # Without pg_rewind (diverged_timelines) nothing is removed: that is decided by somebody who sees
            # all members.
            "remove_data_directory_on_rewind_failure": True,
            "remove_data_directory_on_diverged_timelines": False,
            # Patroni gets in whatever the password is at the moment: only its container reaches the socket.
            "pg_ident": [f"container {OS_USER} {SUPERUSER}"],
            "pg_hba": [
                f"local all {SUPERUSER} peer map=container",
                "local all all scram-sha-256",
                f"host replication {REPLICATION_ROLE} all scram-sha-256",
                "host all all all scram-sha-256",
            ],
            "parameters": postgres_parameters(context),
        },
    }


def postgres_parameters(context: BuildContext) -> dict[str, str]:
    """Parameters of the server: those that replication stands on, the user's, and defaults for the rest.

    Source: https://www.postgresql.org/docs/17/runtime-config.html
    """
    spec = context.cluster.spec.postgres
    return {**_defaults(context), **spec.parameters, **_OWNED}


_OWNED: Final = {
    "archive_mode": "off",
    "hot_standby": "on",
    "max_replication_slots": "20",
    "max_wal_senders": "20",
    "password_encryption": "scram-sha-256",
    "track_commit_timestamp": "off",
    "unix_socket_directories": RUN_DIRECTORY,
    "wal_level": "replica",
    "wal_log_hints": "on",
}


def _defaults(context: BuildContext) -> dict[str, str]:
    spec = context.cluster.spec.postgres
    limits = spec.resources.limits
    memory = int(quantity(limits.memory)) if limits is not None and limits.memory is not None else 512 * _MIB
    return {
        **_wal_sizes(_volume_bytes(context)),
        # A quarter of the memory, the documentation's starting point.
        "shared_buffers": f"{min(max(memory // 4 // _MIB, 32), 8192)}MB",
        "max_connections": str(needed_connections(context)),
        # Patroni and pg_rewind, and then monitoring, get in when the application has taken every other slot.
        "superuser_reserved_connections": str(_SUPERUSER_CONNECTIONS),
        "reserved_connections": str(_MONITORING_CONNECTIONS),
        # Clients that vanished: their queries end, and so do connections that nobody acknowledges any more.
        "client_connection_check_interval": "5s",
        "tcp_keepalives_idle": "10",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "3",
        "tcp_user_timeout": "15s",
        # A frozen replica holds up synchronous commits until the primary drops it, a frozen primary its
        # replicas.
        "wal_sender_timeout": "10s",
        "wal_receiver_timeout": "10s",
        "wal_receiver_status_interval": "2s",
        # How soon a replica tries the new primary; until then a synchronous commit waits.
        "wal_retrieve_retry_interval": "500ms",
        "max_standby_streaming_delay": "30s",
        "checkpoint_timeout": "5min",
        "checkpoint_completion_target": "0.9",
        "log_line_prefix": "%m [%p] %q%u@%d ",
        "log_lock_waits": "on",
        # The image brings no compiler for queries.
        "jit": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }


def _volume_bytes(context: BuildContext) -> int:
    """Size of the members' volumes: what the spec says, or less as long as one of them has not grown so far."""
    wanted = int(quantity(context.cluster.spec.postgres.storage.size))
    smallest = context.postgres_volume_bytes
    return wanted if smallest is None else min(wanted, smallest)


def _wal_sizes(volume_bytes: int) -> dict[str, str]:
    """How much of the volume the write-ahead log may take, as a share of its size."""
    volume_mib = volume_bytes // _MIB

    def share(divisor: int, least: int, most: int) -> str:
        return f"{min(max(volume_mib // divisor, least), most)}MB"

    return {
        # Kept for pg_rewind, which needs the log back to where the two histories parted.
        "wal_keep_size": share(20, 64, 2048),
        "max_wal_size": share(10, 128, 4096),
        "min_wal_size": "80MB",
        # A replica that is away holds back the log; beyond this it is made anew rather than fill the volume.
        "max_slot_wal_keep_size": share(5, 256, 65536),
    }


def needed_connections(context: BuildContext) -> int:
    """max_connections: all routes of all poolers (one more during their rolling update), and the reserves.

    In steps of 100, because changing it restarts the members.
    """
    spec = context.cluster.spec.postgres
    pools = 2 * (spec.pooler.replicas + 1) * (spec.pool_size + POOL_MARGIN)
    total = pools + _SUPERUSER_CONNECTIONS + _MONITORING_CONNECTIONS + 5
    return max(100, -(-total // 100) * 100)


def dynamic_config_patch(desired: Mapping[str, Any], observed: Mapping[str, Any]) -> dict[str, Any] | None:
    """JSON merge patch that brings Patroni's dynamic configuration to `desired`, None when nothing differs.

    Settings of Patroni that are not in `desired`, such as `pause`, are left alone. Of Postgres' parameters
    nothing is: one that is no longer desired becomes null.
    """
    return _merge_patch(desired, observed, ()) or None


def _merge_patch(
    desired: Mapping[str, Any], observed: Mapping[str, Any], path: tuple[str, ...]
) -> dict[str, Any]:
    patch: dict[str, Any] = {}
    for key, value in desired.items():
        current = observed.get(key)
        if isinstance(value, Mapping):
            below = current if isinstance(current, Mapping) else {}
            if inner := _merge_patch(value, below, (*path, key)):
                patch[key] = inner
        elif not _same(value, current):
            patch[key] = value
    if path == ("postgresql", "parameters"):
        patch |= {key: None for key in observed if key not in desired}
    return patch


def _same(value: Any, current: Any) -> bool:
    """Equality that tells True from 1, as JSON does."""
    return bool(value == current) and isinstance(value, bool) == isinstance(current, bool)


def patroni_local_config(context: BuildContext) -> dict[str, Any]:
    """The part of patroni.yml that needs a new process: pods are replaced when it changes.

    What differs between members comes from the environment, and the passwords from a file beside it.
    """
    return {
        "scope": patroni_scope(context),
        "kubernetes": {
            "use_endpoints": False,
            # Would read the Endpoints of the API server in another namespace.
            "bypass_api_service": False,
            "labels": {names.LABEL_CLUSTER: context.name},
            "scope_label": LABEL_PATRONI,
            "role_label": names.LABEL_ROLE,
            "leader_label_value": "primary",
            "follower_label_value": "replica",
            "standby_leader_label_value": "replica",
            # An API server that has just started refuses what it will allow a second later.
            "retriable_http_codes": [401, 403, 429, 502],
        },
        "log": {"level": "INFO", "deduplicate_heartbeat_logs": True},
        "restapi": {"listen": f"*:{names.PORT_PATRONI}", "server_tokens": "ProductOnly"},
        "postgresql": {
            "listen": f"*:{names.PORT_POSTGRES}",
            "data_dir": DATA_DIRECTORY,
            "bin_dir": "/usr/lib/postgresql/17/bin",
            "pgpass": f"{RUN_DIRECTORY}/pgpass",
            "use_unix_socket": True,
            "basebackup": [{"checkpoint": "fast"}],
        },
        "watchdog": {"mode": "off"},
    }
