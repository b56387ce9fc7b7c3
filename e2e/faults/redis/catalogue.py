"""All classes of faults of the queue, in the order in which they are tried: from the gentle to the hard."""

from __future__ import annotations

from .. import nodes, pods, watchers
from ..fault import UNNOTICED, Fault, Primary, Target
from . import network, passwords, planned, processes
from .arena import RedisArena

# Each target is a row of the service levels in the design document.
GRACEFUL = Target(2.0, 3.0)
CRASH = Target(6.0, 10.0)
ROTATION = Target(1.0, 1.0, errors_allowed=False)

SHARED: tuple[Fault[RedisArena], ...] = (
    Fault(
        "rolling-update",
        "rolling update of the queue",
        planned.rolling_update,
        Primary.MOVES,
        GRACEFUL,
        came_true=pods.all_renewed,
        loses_nothing=True,
    ),
    Fault(
        "graceful-delete",
        "graceful delete of the master pod",
        pods.graceful_delete,
        Primary.MOVES,
        GRACEFUL,
        came_true=pods.primary_renewed,
        loses_nothing=True,
    ),
    Fault(
        "node-drain",
        "drain of the master's node",
        pods.drain,
        Primary.MOVES,
        GRACEFUL,
        loses_nothing=True,
    ),
    Fault(
        "password-rotation",
        "new passwords for all users",
        passwords.rotate,
        Primary.STAYS,
        ROTATION,
        loses_nothing=True,
    ),
    Fault(
        "sentinels-killed",
        "SIGKILL of all Sentinels",
        processes.kill_sentinels,
        Primary.STAYS,
        UNNOTICED,
        loses_nothing=True,
    ),
    Fault(
        "sentinels-stopped",
        "SIGSTOP of all Sentinels, which then do nothing for half a minute",
        processes.stop_sentinels,
        Primary.STAYS,
        UNNOTICED,
        broken_seconds=10,
        writes_go_on=False,
        loses_nothing=True,
    ),
    Fault(
        "redis-killed",
        "SIGKILL of the master's Redis",
        processes.kill_redis,
        Primary.MOVES,
        CRASH,
        came_true=processes.container_restarted,
    ),
    Fault(
        "volume-empty",
        "the same, and its volume is empty when it returns",
        processes.kill_redis_and_empty_its_volume,
        Primary.MOVES,
        CRASH,
        came_true=processes.container_restarted,
    ),
    Fault("redis-stopped", "SIGSTOP of the master's Redis", processes.stop_redis, Primary.MOVES, CRASH),
    Fault(
        "force-delete",
        "force delete of the master pod",
        pods.force_delete,
        Primary.MOVES,
        CRASH,
        came_true=pods.primary_renewed,
    ),
    Fault("node-frozen", "master's node frozen", nodes.freeze, Primary.MOVES, CRASH, broken_seconds=60),
    Fault("node-killed", "master's node killed", nodes.kill, Primary.MOVES, CRASH, broken_seconds=30),
    Fault(
        "master-cut-off",
        "master alone cut off the network",
        network.cut_master_off,
        Primary.MOVES,
        CRASH,
        broken_seconds=30,
    ),
    Fault(
        "node-partitioned",
        "master's node, with its Sentinel, cut off the network",
        nodes.partition,
        Primary.MOVES,
        CRASH,
        broken_seconds=60,
    ),
    Fault(
        "replicas-lost",
        "both replicas frozen and returned; writes wait",
        pods.lose_replicas,
        Primary.STAYS,
        broken_seconds=15,
        writes_go_on=False,
    ),
    Fault(
        "volume-lost",
        "a replica's volume lost",
        pods.lose_volume,
        Primary.STAYS,
        UNNOTICED,
        came_true=pods.replica_renewed,
    ),
    Fault(
        "all-pods-lost",
        "force delete of all pods",
        pods.lose_all,
        Primary.MAY_MOVE,
        came_true=pods.all_renewed,
    ),
    # The replicas have forgotten their offsets, and the master does not come back before one of them was promoted.
    Fault(
        "power-off",
        "all nodes killed, the master's returns last",
        nodes.power_off,
        Primary.MOVES,
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
        "operator away during a force delete of the master pod",
        watchers.operator_away,
        Primary.MOVES,
        CRASH,
        came_true=pods.primary_renewed,
        aftermath=watchers.status_right,
    ),
)
