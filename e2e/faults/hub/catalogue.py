"""All classes of faults of the way in and of what is behind it, from the gentle to the hard."""

from __future__ import annotations

from .. import nodes, pods, watchers
from ..fault import UNNOTICED, Primary, Target
from . import balancers, orchestrators, runners, stores
from .arena import HubFault

# Each target is a row of the service levels in the design document.
PLANNED = Target(2.0, 2.0, errors_allowed=False)
# "Requests keep succeeding", and they never fail while one orchestrator is broken.
SERVED = Target(2.0, 2.0, errors_allowed=False)
POSTGRES_FORCED = Target(12.0, 16.0)
# None of its posts may fail where the public application's did.
REDIS_GRACEFUL = Target(2.0, 3.0, errors_allowed=False)
REDIS_CRASH = Target(6.0, 10.0, errors_allowed=False)
LEADER_GRACEFUL = Target(3.0, 3.0)
LEADER_CRASH = Target(17.0, 17.0)

ORCHESTRATORS: tuple[HubFault, ...] = (
    HubFault(
        "rolling-update",
        "rolling update of the orchestrators",
        orchestrators.rolling_update,
        Primary.MOVES,
        PLANNED,
        came_true=pods.all_renewed,
        leader_target=LEADER_GRACEFUL,
    ),
    HubFault(
        "leader-deleted",
        "graceful delete of the leader's pod",
        pods.graceful_delete,
        Primary.MOVES,
        PLANNED,
        came_true=orchestrators.leader_replaced,
        leader_target=LEADER_GRACEFUL,
    ),
    HubFault(
        "follower-deleted",
        "graceful delete of another orchestrator",
        orchestrators.delete_follower,
        Primary.STAYS,
        PLANNED,
        came_true=orchestrators.follower_replaced,
    ),
    HubFault(
        "follower-force-deleted",
        "force delete of another orchestrator",
        orchestrators.force_delete_follower,
        Primary.STAYS,
        SERVED,
        came_true=orchestrators.follower_replaced,
    ),
    HubFault(
        "leader-force-deleted",
        "force delete of the leader's pod",
        pods.force_delete,
        Primary.MOVES,
        SERVED,
        came_true=orchestrators.leader_replaced,
        leader_target=LEADER_CRASH,
    ),
    HubFault(
        "orchestrator-killed",
        "SIGKILL of the leader's orchestrator",
        orchestrators.kill_orchestrator,
        Primary.MAY_MOVE,
        SERVED,
        came_true=orchestrators.orchestrator_restarted,
        leader_target=LEADER_CRASH,
    ),
    HubFault(
        "agent-killed",
        "SIGKILL of the leader's ha-agent",
        orchestrators.kill_agent,
        Primary.MAY_MOVE,
        SERVED,
        broken_seconds=20,
        leader_target=LEADER_CRASH,
    ),
    HubFault(
        "agent-stopped",
        "SIGSTOP of the leader's ha-agent",
        orchestrators.stop_agent,
        Primary.MOVES,
        SERVED,
        broken_seconds=20,
        leader_target=LEADER_CRASH,
    ),
    HubFault(
        "orchestrator-stopped",
        "SIGSTOP of the leader's orchestrator",
        orchestrators.stop_orchestrator,
        Primary.MOVES,
        SERVED,
        broken_seconds=20,
        leader_target=LEADER_CRASH,
    ),
    HubFault(
        "leader-stopped",
        "SIGSTOP of the leader's orchestrator and ha-agent",
        orchestrators.stop_leader,
        Primary.MOVES,
        SERVED,
        broken_seconds=20,
        leader_target=LEADER_CRASH,
    ),
    HubFault(
        orchestrators.TWO_DOWN,
        "two of three orchestrators down, the leader among them",
        orchestrators.two_down,
        Primary.MOVES,
        SERVED,
        broken_seconds=60,
        came_true=orchestrators.leader_replaced,
        leader_target=LEADER_CRASH,
    ),
)

BALANCERS: tuple[HubFault, ...] = (
    HubFault(
        "balancer-reload",
        f"{balancers.RELOADS} reloads of HAProxy's settings",
        balancers.reload,
        Primary.STAYS,
        PLANNED,
        came_true=balancers.same_pods,
    ),
    HubFault(
        "balancer-update",
        "rolling update of the load balancer",
        balancers.rolling_update,
        Primary.STAYS,
        PLANNED,
        came_true=balancers.all_renewed,
    ),
    HubFault(
        "balancer-deleted",
        "graceful delete of an HAProxy pod",
        pods.graceful_delete_pooler,
        Primary.STAYS,
        PLANNED,
        came_true=pods.pooler_replaced,
    ),
    HubFault(
        # Whoever is connected to it has nobody who tries again.
        "balancer-force-deleted",
        "force delete of an HAProxy pod",
        pods.force_delete_pooler,
        Primary.STAYS,
        came_true=pods.pooler_replaced,
    ),
)

# Whoever else runs there goes with it: members of the database and of the queue, and perhaps a load balancer. So errors
# are accepted.
NODES: tuple[HubFault, ...] = (
    HubFault(
        "node-drain",
        "drain of the leader's node",
        pods.drain,
        Primary.MOVES,
        came_true=orchestrators.leader_replaced,
        leader_target=LEADER_GRACEFUL,
    ),
    HubFault(
        "node-frozen",
        "leader's node frozen",
        nodes.freeze,
        Primary.MOVES,
        broken_seconds=60,
        leader_target=LEADER_CRASH,
    ),
    HubFault(
        "node-killed",
        "leader's node killed",
        nodes.kill,
        Primary.MOVES,
        broken_seconds=30,
        leader_target=LEADER_CRASH,
    ),
    HubFault(
        "node-partitioned",
        "leader's node cut off the network",
        nodes.partition,
        Primary.MOVES,
        broken_seconds=60,
        leader_target=LEADER_CRASH,
    ),
)

STORES: tuple[HubFault, ...] = (
    HubFault(
        "postgres-failover",
        "force delete of the Postgres primary",
        stores.fail_postgres_over,
        Primary.MAY_MOVE,
        POSTGRES_FORCED,
    ),
    HubFault(
        "redis-failover",
        "the Sentinels fail over to another master",
        stores.hand_redis_over,
        Primary.MAY_MOVE,
        REDIS_GRACEFUL,
    ),
    HubFault(
        "redis-killed",
        "SIGKILL of the Redis master",
        stores.kill_redis,
        Primary.MAY_MOVE,
        REDIS_CRASH,
    ),
    HubFault(
        "postgres-down",
        f"all of Postgres stopped right after {stores.POSTGRES_BURST} accepted jobs",
        stores.stop_postgres,
        Primary.MAY_MOVE,
        broken_seconds=25,
        writes_go_on=False,
        aftermath=stores.told,
    ),
    HubFault(
        "redis-down",
        "every Redis and Sentinel stopped",
        stores.stop_redis,
        Primary.MAY_MOVE,
        broken_seconds=20,
        writes_go_on=False,
    ),
    HubFault(
        "idle-runners",
        f"no jobs for {stores.IDLE_SECONDS:g} s, then {stores.IDLE_BURST}",
        stores.idle,
        Primary.STAYS,
        writes_go_on=False,
        aftermath=stores.told,
    ),
)

OTHERS: tuple[HubFault, ...] = (
    HubFault(
        "runner-burst",
        f"{runners.JOBS} jobs for a pool without runners, beside one that cannot be scheduled",
        runners.impossible_jobs,
        Primary.STAYS,
        arrange=runners.arrange,
        aftermath=runners.burst,
    ),
    HubFault(
        watchers.API_SERVER_AWAY,
        "API server away",
        watchers.api_server_away,
        Primary.MAY_MOVE,
        UNNOTICED,
        broken_seconds=60,
        api_answers=False,
    ),
    HubFault(
        watchers.CONTROL_PLANE_RESTARTED,
        "SIGKILL of the whole control plane",
        watchers.restart_control_plane,
        Primary.MAY_MOVE,
        UNNOTICED,
        broken_seconds=30,
        api_answers=False,
    ),
)

SHARED: tuple[HubFault, ...] = (*ORCHESTRATORS, *BALANCERS, *NODES, *STORES, *OTHERS)
