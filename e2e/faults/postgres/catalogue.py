"""All classes of faults, in the order in which they are tried: from the gentle to the hard."""

from __future__ import annotations

from .. import nodes, pods, watchers
from ..fault import UNNOTICED, Fault, Primary, Target
from . import crashes, data, passwords, planned, sides, volume
from .arena import PostgresArena

# Each target is a row of the service levels in the design document.
PLANNED = Target(2.0, 2.0, errors_allowed=False)
GRACEFUL = Target(3.0, 5.0)
CRASH = Target(6.0, 8.0)
FORCED = Target(12.0, 16.0)
NODE = Target(26.0, 30.0)
ROTATION = Target(1.0, 1.0, errors_allowed=False)
POOLER_UPDATE = Target(1.0, 1.0, errors_allowed=False)

SHARED: tuple[Fault[PostgresArena], ...] = (
    Fault(
        "planned-switchover",
        "planned switchover",
        planned.switchover,
        Primary.MOVES,
        PLANNED,
        came_true=planned.switched_as_asked,
    ),
    Fault(
        "rolling-update",
        "rolling update of the database",
        planned.rolling_update,
        Primary.MOVES,
        PLANNED,
        came_true=pods.all_renewed,
    ),
    Fault(
        "parameter-restart",
        "parameter that needs a restart",
        planned.parameter_restart,
        Primary.MOVES,
        PLANNED,
        came_true=planned.parameter_in_effect,
    ),
    Fault(
        "password-rotation",
        "new passwords for all roles",
        passwords.rotate,
        Primary.STAYS,
        ROTATION,
    ),
    Fault(
        "graceful-delete",
        "graceful delete of the primary pod",
        pods.graceful_delete,
        Primary.MOVES,
        GRACEFUL,
        came_true=pods.primary_renewed,
    ),
    Fault("node-drain", "drain of the primary's node", pods.drain, Primary.MOVES, GRACEFUL),
    Fault(
        "pooler-update",
        "rolling update of the pooler",
        planned.pooler_update,
        Primary.STAYS,
        POOLER_UPDATE,
        came_true=pods.poolers_renewed,
    ),
    Fault(
        "pooler-killed",
        "force delete of a pooler pod",
        pods.force_delete_pooler,
        Primary.STAYS,
        came_true=pods.pooler_replaced,
    ),
    Fault(
        "postmaster-killed",
        "SIGKILL of the primary's postmaster",
        crashes.kill_postmaster,
        Primary.MOVES,
        CRASH,
        aftermath=watchers.failover_told,
    ),
    Fault(
        "patroni-killed",
        "SIGKILL of the primary's Patroni",
        crashes.kill_patroni,
        Primary.STAYS,
        CRASH,
    ),
    Fault("postgres-stopped", "SIGSTOP of the primary's Postgres", crashes.stop_postgres, Primary.MOVES),
    Fault(
        "force-delete",
        "force delete of the primary pod",
        pods.force_delete,
        Primary.MOVES,
        FORCED,
        came_true=pods.primary_renewed,
    ),
    Fault(
        "force-delete-cordoned",
        "the same, and no pod comes back",
        pods.force_delete_for_good,
        Primary.MOVES,
        FORCED,
        came_true=pods.primary_renewed,
    ),
    # Longer than it takes to fail over: clients that vanished must not fill the server, nor its replicas stay behind.
    Fault(
        "node-frozen",
        "primary's node frozen",
        nodes.freeze,
        Primary.MOVES,
        NODE,
        broken_seconds=60,
        aftermath=watchers.failover_told,
    ),
    Fault("node-killed", "primary's node killed", nodes.kill, Primary.MOVES, NODE, broken_seconds=30),
    Fault(
        "node-partitioned",
        "primary's node cut off the network",
        nodes.partition,
        Primary.MOVES,
        broken_seconds=60,
    ),
    Fault(
        "split-brain",
        "the same, with clients and a pooler on both sides",
        sides.cut,
        Primary.MOVES,
        broken_seconds=60,
        aftermath=sides.verdict,
        arrange=planned.beside_a_pooler,
    ),
    Fault(
        "replicas-lost",
        "both replicas frozen and returned",
        pods.lose_replicas,
        Primary.STAYS,
        broken_seconds=30,
    ),
    Fault(
        "majority-lost",
        "primary and its confirming replica frozen and returned",
        pods.lose_majority,
        Primary.MAY_MOVE,
        broken_seconds=45,
        writes_go_on=False,
    ),
    Fault(
        "data-corrupt",
        "a replica's data damaged",
        data.corrupt,
        Primary.STAYS,
    ),
    Fault(
        "volume-lost",
        "a replica's volume lost",
        pods.lose_volume,
        Primary.STAYS,
        came_true=pods.replica_renewed,
    ),
    Fault(
        "all-members-lost",
        "force delete of all members",
        pods.lose_all,
        Primary.MAY_MOVE,
        came_true=pods.all_renewed,
    ),
    Fault(
        watchers.API_SERVER_AWAY,
        "API server away",
        watchers.api_server_away,
        Primary.STAYS,
        UNNOTICED,
        broken_seconds=60,
        api_answers=False,
    ),
    Fault(
        watchers.CONTROL_PLANE_RESTARTED,
        "SIGKILL of the whole control plane",
        watchers.restart_control_plane,
        Primary.STAYS,
        UNNOTICED,
        broken_seconds=30,
        api_answers=False,
    ),
    Fault(
        "operator-away",
        "operator away during a force delete of the primary pod",
        watchers.operator_away,
        Primary.MOVES,
        FORCED,
        came_true=pods.primary_renewed,
        aftermath=watchers.status_right,
    ),
)

# In a cluster of their own, whose volumes can be full.
BOUNDED: tuple[Fault[PostgresArena], ...] = (
    Fault(
        "volume-full",
        "primary's volume full, and space again",
        volume.fill,
        Primary.MAY_MOVE,
        broken_seconds=60,
        writes_go_on=False,
    ),
)
