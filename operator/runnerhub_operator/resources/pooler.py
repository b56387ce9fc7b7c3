"""The connection pooler: PgBouncer for each route, and beside it an HAProxy that follows Patroni's election.

Clients reach PgBouncer through the Service `<cluster>-postgres`; PgBouncer reaches the primary, or the
replicas, through the HAProxy of its own pod. Which member is which is asked of each member's Patroni, so a
primary that lost the role cannot be mistaken for the new one, as a Service's label selector would while a
node is frozen.

Beside them runs a small agent (`runnerhub_pooler` in the image). It holds the clients of the read-write route back
while the primary changes on purpose, and lets them go on as soon as the new one takes writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from .. import names
from ..api import ResourceRequirements
from .additions import node_placement
from .common import (
    BuildContext,
    Manifest,
    config_hash,
    container_security_context,
    disruption_budget,
    metadata,
    pod_security_context,
    pull_secrets,
    resource_requirements,
    secret_volume,
    service_account,
    spread,
)
from .patroni import MAX_REPLICA_LAG_BYTES, POOL_MARGIN, POOLER_ADMIN_USER, postgres_parameters
from .postgres import member_names

STATISTICS_USER: Final = "monitoring"

_PROXY_READ_WRITE: Final = 6432
_PROXY_READ_ONLY: Final = 6433
_PORT_STATISTICS: Final = 8404
_PORT_PROXY_RUNTIME: Final = 8405

_RUN_DIRECTORY: Final = "/run/pooler"
_USER_LIST: Final = "userlist.txt"
_ROUTES: Final = ("pgbouncer-rw", "pgbouncer-ro")
_CREDENTIALS_DIRECTORY: Final = "/etc/runnerhub/credentials"
_CONFIG_DIRECTORY: Final = "/etc/pooler"
_CREDENTIAL_KEYS: Final = ("app-password", "monitoring-password", "restapi-password")

# Time for clients to move to another pooler and for their transactions, and for the last ones afterwards. Together no
# longer than a member of the database has: Kubernetes looks at a namespace that is deleted again after half of the
# longest, also when all pods have long ended.
_DRAIN_SECONDS: Final = 85
_GRACE_SECONDS: Final = _DRAIN_SECONDS + 35


def pooler_manifests(context: BuildContext) -> list[Manifest]:
    """All objects of the pooler, in the order in which they are applied."""
    configuration = pooler_configuration(context)
    return [
        service_account(context, names.POOLER),
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata(context, names.child(context.name, names.POOLER), names.POOLER),
            "data": configuration,
        },
        _service(context),
        _pods_service(context),
        disruption_budget(context, names.POOLER),
        _deployment(context, configuration),
    ]


def pooler_configuration(context: BuildContext) -> dict[str, str]:
    """The configuration files by name."""
    return {
        "haproxy.cfg": _haproxy(context),
        "pgbouncer-rw.ini": _pgbouncer(context, names.PORT_POSTGRES, _PROXY_READ_WRITE, {}),
        # While no replica is there the primary serves this route, and it must not take writes then either.
        "pgbouncer-ro.ini": _pgbouncer(
            context,
            names.PORT_POSTGRES_READ_ONLY,
            _PROXY_READ_ONLY,
            {"connect_query": "'SET default_transaction_read_only = on'"},
        ),
    }


# --- PgBouncer ---


def _pgbouncer(context: BuildContext, port: int, upstream_port: int, options: Mapping[str, str]) -> str:
    """One route's pgbouncer.ini. Source of names: https://www.pgbouncer.org/config.html; plain numbers are
    seconds.
    """
    pooler, pool_size = context.cluster.spec.postgres.pooler, context.cluster.spec.postgres.pool_size
    database = {"host": "127.0.0.1", "port": str(upstream_port), "dbname": names.DATABASE_NAME, **options}
    settings = {
        "listen_addr": "*",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "scram-sha-256",
        "auth_file": f"{_RUN_DIRECTORY}/{_USER_LIST}",
        "admin_users": POOLER_ADMIN_USER,
        "stats_users": STATISTICS_USER,
        "pool_mode": "transaction",
        "max_prepared_statements": 200,
        "max_client_conn": pooler.max_client_connections,
        "default_pool_size": pool_size,
        "max_db_connections": pool_size + POOL_MARGIN,
        # Keeps trying for waiting clients, and clears the mark of a failed login before the next client
        # comes.
        "min_pool_size": 1,
        # JDBC sets this at every login; transaction pooling cannot keep it, and nobody needs it.
        "ignore_startup_parameters": "extra_float_digits",
        # Through a failover, then an error rather than a hanging client.
        "query_wait_timeout": 30,
        # To the proxy in the same pod a connection takes no time; what takes time is a frozen primary behind
        # it.
        "server_connect_timeout": 3,
        "server_login_retry": 0.3,
        "server_check_delay": 10,
        "server_idle_timeout": 600,
        # The read-only route comes back to replicas that have recovered.
        "server_lifetime": 600,
        "tcp_keepalive": 1,
        "tcp_keepidle": 10,
        "tcp_keepintvl": 5,
        "tcp_keepcnt": 3,
        "tcp_user_timeout": 15000,
        "log_connections": 0,
        "log_disconnections": 0,
        "log_stats": 0,
    }
    # The agent waits for it before it has a change be read.
    room = postgres_parameters(context)["max_connections"]
    return f"; Postgres needs max_connections = {room}\n" + _ini(
        {
            "databases": {names.DATABASE_NAME: " ".join(f"{key}={value}" for key, value in database.items())},
            "pgbouncer": {key: str(value) for key, value in settings.items()},
        }
    )


def _ini(sections: Mapping[str, Mapping[str, str]]) -> str:
    blocks = (
        "\n".join((f"[{title}]", *(f"{key} = {value}".rstrip() for key, value in entries.items())))
        for title, entries in sections.items()
    )
    return "\n\n".join(blocks) + "\n"


# --- HAProxy ---

_PRIMARY: Final = "primary"
_REPLICAS: Final = "replicas"
# Both routes with the largest pool that the API allows, and as many again while PgBouncer makes its connections anew.
_PROXY_CONNECTIONS: Final = 4 * (500 + POOL_MARGIN) + 100


def _haproxy(context: BuildContext) -> str:
    """haproxy.cfg. Source of names: https://docs.haproxy.org/3.0/configuration.html.

    Of the spec nothing is in it: HAProxy has no way to change it that keeps connections and checks them on.
    """
    members = member_names(context)
    sections: list[tuple[str, Sequence[str]]] = [
        # Changes of a server's state are told on standard error without any log being set.
        (
            "global",
            (
                f"maxconn {_PROXY_CONNECTIONS}",
                "nbthread 1",
                # For the agent: nobody outside the pod reaches it.
                f"stats socket ipv4@127.0.0.1:{_PORT_PROXY_RUNTIME} level admin",
            ),
        ),
        (
            "resolvers cluster",
            (
                "parse-resolv-conf",
                "resolve_retries 3",
                # As many questions as three members asked every second: addresses of Services stay as they are.
                "timeout resolve 3s",
                "timeout retry 1s",
                "hold valid 10s",
                # A name server that is away changes nothing: the last address stays.
                *(f"hold {answer} 24h" for answer in ("other", "refused", "nx", "timeout", "obsolete")),
            ),
        ),
        (
            "defaults",
            (
                "mode tcp",
                "timeout connect 1s",
                "timeout check 2s",
                # PgBouncer decides how long a connection may be idle.
                "timeout client 24h",
                "timeout server 24h",
                "retries 2",
                "option redispatch 1",
                "option srvtcpka",
                "srvtcpka-idle 5s",
                "srvtcpka-intvl 2s",
                "srvtcpka-cnt 3",
                # Two bad answers in at most a second and a half: Patroni answers at once when it gives up the
                # role, and a machine that is short of time for a moment must not cost all connections.
                "default-server "
                f"check port {names.PORT_PATRONI} inter 1s fastinter 500ms downinter 1s fall 2 rise 1 "
                "observe layer4 error-limit 1 on-error fastinter "
                "on-marked-down shutdown-sessions tcp-ut 10s resolvers cluster init-addr none",
            ),
        ),
        (
            "frontend read-write",
            (f"bind 127.0.0.1:{_PROXY_READ_WRITE}", f"default_backend {_PRIMARY}"),
        ),
        (
            "frontend read-only",
            (
                f"bind 127.0.0.1:{_PROXY_READ_ONLY}",
                f"use_backend {_REPLICAS} if {{ nbsrv({_REPLICAS}) gt 0 }}",
                f"default_backend {_PRIMARY}",
            ),
        ),
        (
            f"backend {_PRIMARY}",
            (
                "option httpchk OPTIONS /primary",
                "http-check expect status 200",
                *(_server(context, member) for member in members),
            ),
        ),
        (
            f"backend {_REPLICAS}",
            (
                "balance leastconn",
                f"option httpchk OPTIONS /replica?lag={MAX_REPLICA_LAG_BYTES}",
                "http-check expect status 200",
                *(_server(context, member) for member in members),
            ),
        ),
        (
            "frontend statistics",
            (
                "mode http",
                f"bind :{_PORT_STATISTICS}",
                "timeout client 10s",
                "timeout http-request 5s",
                "monitor-uri /healthz",
                "http-request use-service prometheus-exporter if { path /metrics }",
                "stats enable",
                "stats uri /stats",
                "stats hide-version",
            ),
        ),
    ]
    return (
        "\n\n".join("\n".join((title, *(f"    {line}" for line in lines))) for title, lines in sections)
        + "\n"
    )


def _address(context: BuildContext, member: str) -> str:
    # The resolver knows no search domains; the entrypoint reads the cluster's domain from the pod's
    # resolv.conf.
    return f'"{member}.{context.cluster.namespace}.svc.${{CLUSTER_DOMAIN}}:{names.PORT_POSTGRES}"'


def _server(context: BuildContext, member: str) -> str:
    return f"server {member} {_address(context, member)}"


# --- Kubernetes objects ---


def _service(context: BuildContext) -> Manifest:
    """The address of the database for all clients; named after the database, selecting the poolers."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(context, names.child(context.name, names.POSTGRES), names.POOLER),
        "spec": {
            "type": "ClusterIP",
            "selector": names.selector_labels(context.name, names.POOLER),
            "ports": [
                {"name": name, "port": port, "protocol": "TCP", "targetPort": name}
                for name, port in (
                    ("postgres", names.PORT_POSTGRES),
                    ("postgres-ro", names.PORT_POSTGRES_READ_ONLY),
                )
            ],
        },
    }


def _pods_service(context: BuildContext) -> Manifest:
    """Headless Service by which a Postgres pod that stops finds the agents of all poolers, also of those that drain."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(context, names.pooler_pods_service(context.name), names.POOLER),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": names.selector_labels(context.name, names.POOLER),
            "ports": [
                {"name": "agent", "port": names.PORT_POOLER_AGENT, "protocol": "TCP", "targetPort": "agent"}
            ],
        },
    }


def _deployment(context: BuildContext, configuration: Mapping[str, str]) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(context, names.child(context.name, names.POOLER), names.POOLER),
        "spec": {
            **context.replicas_field(names.POOLER, context.cluster.spec.postgres.pooler.replicas),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": names.selector_labels(context.name, names.POOLER)},
            "template": {
                "metadata": {
                    "labels": names.labels(context.name, names.POOLER),
                    "annotations": {names.ANNOTATION_CONFIG: _needs_new_pods(context, configuration)},
                },
                "spec": _pod_spec(context),
            },
        },
    }


def _pod_spec(context: BuildContext) -> Manifest:
    pooler = context.cluster.spec.postgres.pooler
    return {
        "serviceAccountName": names.child(context.name, names.POOLER),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security_context(),
        **pull_secrets(context),
        **node_placement(pooler.pod_template),
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "topologySpreadConstraints": spread(context.name, names.POOLER),
        # Sidecars: they are there before PgBouncer starts and until PgBouncer has ended.
        "initContainers": [_haproxy_container(context), _agent_container(context)],
        "containers": [
            _pgbouncer_container(
                context, "pgbouncer-rw", "postgres", names.PORT_POSTGRES, "pgbouncer-rw.ini", pooler.resources
            ),
            _pgbouncer_container(
                context,
                "pgbouncer-ro",
                "postgres-ro",
                names.PORT_POSTGRES_READ_ONLY,
                "pgbouncer-ro.ini",
                ResourceRequirements(),
            ),
        ],
        "volumes": [
            {"name": "config", "configMap": {"name": names.child(context.name, names.POOLER)}},
            secret_volume("credentials", names.credentials(context.name, names.POSTGRES), _CREDENTIAL_KEYS),
            {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        ],
    }


def _needs_new_pods(context: BuildContext, configuration: Mapping[str, str]) -> str:
    """Hash of what reaches no running pod: the agent has PgBouncer's files be read again when they change.

    That of an image that the cluster names may be too old for it.
    """
    if context.cluster.spec.postgres.pooler.image:
        return config_hash(configuration)
    return config_hash(configuration["haproxy.cfg"])


def _image(context: BuildContext) -> str:
    return context.cluster.spec.postgres.pooler.image or context.images.pooler


def _pgbouncer_container(
    context: BuildContext, name: str, port_name: str, port: int, ini: str, resources: ResourceRequirements
) -> Manifest:
    return {
        "name": name,
        "image": _image(context),
        "imagePullPolicy": "IfNotPresent",
        "args": ["pgbouncer", f"{_CONFIG_DIRECTORY}/{ini}"],
        "env": [
            {"name": "CREDENTIALS_DIR", "value": _CREDENTIALS_DIRECTORY},
            {"name": "AUTH_FILE", "value": f"{_RUN_DIRECTORY}/{_USER_LIST}"},
        ],
        "ports": [{"name": port_name, "containerPort": port, "protocol": "TCP"}],
        "resources": resource_requirements(resources, cpu="50m", memory="32Mi"),
        "securityContext": container_security_context(),
        "readinessProbe": {
            "tcpSocket": {"port": port_name},
            "periodSeconds": 5,
            "timeoutSeconds": 2,
            "failureThreshold": 3,
        },
        "lifecycle": {"preStop": {"exec": {"command": ["/usr/local/bin/pooler-drain", str(_DRAIN_SECONDS)]}}},
        "volumeMounts": [
            {"name": "config", "mountPath": _CONFIG_DIRECTORY, "readOnly": True},
            {"name": "credentials", "mountPath": _CREDENTIALS_DIRECTORY, "readOnly": True},
            # A folder for each, both write a user list of the same name.
            {"name": "run", "mountPath": _RUN_DIRECTORY, "subPath": name},
        ],
    }


def _haproxy_container(context: BuildContext) -> Manifest:
    return {
        "name": "haproxy",
        "image": _image(context),
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "args": ["haproxy", f"{_CONFIG_DIRECTORY}/haproxy.cfg"],
        "ports": [{"name": "statistics", "containerPort": _PORT_STATISTICS, "protocol": "TCP"}],
        "resources": resource_requirements(ResourceRequirements(), cpu="50m", memory="64Mi"),
        "securityContext": container_security_context(),
        # A server counts as up until its first check, within a second; no connection is made before.
        "startupProbe": {**_health_probe(period=1, failures=60), "initialDelaySeconds": 3},
        "livenessProbe": _health_probe(period=10, failures=3),
        "volumeMounts": [{"name": "config", "mountPath": _CONFIG_DIRECTORY, "readOnly": True}],
    }


def _agent_container(context: BuildContext) -> Manifest:
    return {
        "name": "agent",
        "image": _image(context),
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "args": ["agent"],
        "env": [
            {"name": "CREDENTIALS_DIR", "value": _CREDENTIALS_DIRECTORY},
            {"name": "POOLER_AGENT_PORT", "value": str(names.PORT_POOLER_AGENT)},
            {"name": "POOLER_DATABASE", "value": names.DATABASE_NAME},
            {"name": "POOLER_PORT", "value": str(names.PORT_POSTGRES)},
            {"name": "POOLER_READ_ONLY_PORT", "value": str(names.PORT_POSTGRES_READ_ONLY)},
            {
                "name": "POOLER_USER_LISTS",
                "value": ":".join(f"{_RUN_DIRECTORY}/{route}/{_USER_LIST}" for route in _ROUTES),
            },
            {"name": "POOLER_PROXY_PORT", "value": str(_PORT_PROXY_RUNTIME)},
            {
                "name": "POOLER_CONFIGURATIONS",
                "value": ":".join(f"{_CONFIG_DIRECTORY}/{route}.ini" for route in _ROUTES),
            },
        ],
        "ports": [{"name": "agent", "containerPort": names.PORT_POOLER_AGENT, "protocol": "TCP"}],
        # The same share of a busy node's CPU as the programs that it pauses: clients wait for it.
        "resources": resource_requirements(ResourceRequirements(), cpu="50m", memory="48Mi"),
        "securityContext": container_security_context(),
        "livenessProbe": _health_probe(port="agent", period=10, failures=3),
        # A PgBouncer or a HAProxy that hangs still has connections made to it, by the kernel.
        "readinessProbe": _health_probe("/readyz", port="agent", period=3, failures=4),
        "volumeMounts": [
            {"name": "config", "mountPath": _CONFIG_DIRECTORY, "readOnly": True},
            {"name": "credentials", "mountPath": _CREDENTIALS_DIRECTORY, "readOnly": True},
            # The folders of both PgBouncers, whose user lists it renews.
            {"name": "run", "mountPath": _RUN_DIRECTORY},
        ],
    }


def _health_probe(
    path: str = "/healthz", *, period: int, failures: int, port: str = "statistics"
) -> Manifest:
    return {
        "httpGet": {"path": path, "port": port, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 3,
        "failureThreshold": failures,
    }
