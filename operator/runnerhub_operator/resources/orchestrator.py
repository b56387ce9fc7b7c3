"""The orchestrators: the RunnerHub service, each pod with an ha-agent beside it."""

from __future__ import annotations

from typing import Final

from .. import names
from ..api import CheckTimingSpec
from .additions import (
    TEMPORARY_MOUNT,
    account_name,
    container_additions,
    dump,
    init_containers,
    placement,
    template_metadata,
    variables,
    volumes,
)
from .autoscaler import autoscaler_manifests
from .common import (
    BuildContext,
    Manifest,
    container_security_context,
    disruption_budget,
    field_env,
    metadata,
    resource_requirements,
    role_with_binding,
    secret_env,
    secret_volume,
    service_account,
)
from .loadbalancer import inside_url, orchestrator_pods_service
from .storage import storage_environment, storage_mounts, storage_volumes
from .token_keys import KEYS_FILE

# Balancers need this long to see that the pod is going, so that no new request meets a closed port.
DRAIN_SECONDS: Final = 5
# The public application needs 24 s to end with a WebSocket open.
STOP_SECONDS: Final = 35
TERMINATION_GRACE_SECONDS: Final = DRAIN_SECONDS + STOP_SECONDS + 5
READINESS_PERIOD_SECONDS: Final = 2
# The longest of the service levels: the primary's node is lost.
FAILOVER_SECONDS: Final = 30

RUN_FOLDER: Final = "/run/runnerhub"
CREDENTIALS_FOLDER: Final = "/etc/runnerhub/credentials"
_DATABASE_KEY: Final = "app-password"
QUEUE_CREDENTIALS_FOLDER: Final = "/etc/runnerhub/queue-credentials"
_QUEUE_KEY: Final = "password"
_SENTINEL_KEY: Final = "sentinel-password"
TOKEN_KEYS_FOLDER: Final = "/etc/runnerhub/token-keys"  # noqa: S105 - a place
GITHUB_TOKEN: Final = "GITHUB_TOKEN"  # noqa: S105 - a name
LEADER_FILE: Final = f"{RUN_FOLDER}/leader.json"
SERVICE_ACCOUNT_FOLDER: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
# What the kubelet itself asks for when it mounts a token by default.
TOKEN_LIFETIME_SECONDS: Final = 3607

_PORTS: Final = {"http": names.PORT_ORCHESTRATOR, "ws": names.PORT_WEBSOCKET}
_AGENT_PORT: Final = "agent"
_CREDENTIALS_MOUNTS: Final = (
    {"name": "credentials", "mountPath": CREDENTIALS_FOLDER, "readOnly": True},
    {"name": "queue-credentials", "mountPath": QUEUE_CREDENTIALS_FOLDER, "readOnly": True},
)


def orchestrator_manifests(context: BuildContext) -> list[Manifest]:
    """All objects of the orchestrators, in the order of their application."""
    return [
        *_own_account(context),
        *role_with_binding(
            context, names.ORCHESTRATOR, agent_rules(context.name), account=account_name(context)
        ),
        pods_service(context),
        leader_service(context),
        disruption_budget(context, names.ORCHESTRATOR),
        deployment(context),
        *autoscaler_manifests(context),
    ]


def _own_account(context: BuildContext) -> list[Manifest]:
    given = context.cluster.spec.orchestrator.pod_template.service_account_name
    return [service_account(context, names.ORCHESTRATOR)] if given is None else []


def agent_rules(cluster: str) -> list[Manifest]:
    """What the ha-agent may do: hold the leader Lease, and move the leader label.

    RBAC cannot restrict `create` to a name, nor pods to a label.
    """
    return [
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": [names.leader_lease(cluster)],
            "verbs": ["get", "update"],
        },
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "patch"]},
    ]


def pods_service(context: BuildContext) -> Manifest:
    """Headless Service: the addresses of the orchestrators that are ready, for the load balancer and the
    agents.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(context, orchestrator_pods_service(context.name), names.ORCHESTRATOR),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "selector": names.selector_labels(context.name, names.ORCHESTRATOR),
            "ports": [
                {"name": name, "port": port, "protocol": "TCP", "targetPort": name}
                for name, port in {**_PORTS, _AGENT_PORT: names.PORT_AGENT}.items()
            ],
        },
    }


def leader_service(context: BuildContext) -> Manifest:
    """Service with the pod of the leading orchestrator: what only the leader answers goes there."""
    selector = {**names.selector_labels(context.name, names.ORCHESTRATOR), names.LABEL_LEADER: "true"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(context, names.leader_service(context.name), names.ORCHESTRATOR),
        "spec": {
            "type": "ClusterIP",
            "selector": selector,
            "ports": [
                {"name": name, "port": port, "protocol": "TCP", "targetPort": name}
                for name, port in {**_PORTS, _AGENT_PORT: names.PORT_AGENT}.items()
            ],
        },
    }


def deployment(context: BuildContext) -> Manifest:
    """The pods; a new one is ready before an old one goes."""
    spec = context.cluster.spec.orchestrator
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(
            context,
            names.child(context.name, names.ORCHESTRATOR),
            names.ORCHESTRATOR,
            annotations=None if spec.autoscaling is None else {names.ANNOTATION_AUTOSCALED: "true"},
        ),
        "spec": {
            **context.replicas_field(names.ORCHESTRATOR, _replicas(context)),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": names.selector_labels(context.name, names.ORCHESTRATOR)},
            "template": {
                "metadata": template_metadata(
                    context,
                    {
                        "labels": names.labels(context.name, names.ORCHESTRATOR),
                        "annotations": {
                            "kubectl.kubernetes.io/default-container": names.ORCHESTRATOR,
                            # All pods must know the same key, also after somebody deleted the Secret.
                            names.ANNOTATION_CREDENTIALS: context.credentials_hash or "",
                        },
                    },
                ),
                "spec": _pod_spec(context),
            },
        },
    }


def _replicas(context: BuildContext) -> int:
    """The size to write. Until an autoscaler has set one, it is what is there.

    A field that is left out before somebody else has set it falls back to one pod.
    """
    spec = context.cluster.spec.orchestrator
    if spec.autoscaling is None:
        return spec.replicas
    return context.autoscaled or spec.autoscaling.min_replicas


def dependency_environment(context: BuildContext, *, reads_files: bool) -> list[Manifest]:
    """How orchestrator and agent find each other, database and queue; names as the architecture document has
    them.

    Passwords stay in their Secrets. `reads_files`: the program takes them from files, which may change; otherwise
    Kubernetes puts them into the variables when it starts the container.
    """
    cluster, spec = context.name, context.cluster.spec
    database = names.child(cluster, names.POSTGRES)
    login = names.APP_ROLE if reads_files else f"{names.APP_ROLE}:$(DATABASE_PASSWORD)"
    password = secret_env("DATABASE_PASSWORD", names.credentials(cluster, names.POSTGRES), _DATABASE_KEY)
    address = f"postgresql://{login}@{database}"
    primary = f"{address}:{names.PORT_POSTGRES}/{names.DATABASE_NAME}"
    replica = f"{address}:{names.PORT_POSTGRES_READ_ONLY}/{names.DATABASE_NAME}"
    sentinels = ",".join(
        f"{pod}:{names.PORT_SENTINEL}" for pod in names.members(cluster, names.REDIS, spec.redis.replicas)
    )
    queue = names.credentials(cluster, names.REDIS)
    checks, election = spec.health_checks, spec.leader_election
    return [
        field_env("HA_NODE_ID", "metadata.name"),
        # Pods of a Deployment have no lasting names: one name stands for all of them.
        _env("HA_CLUSTER_NODES", orchestrator_pods_service(cluster)),
        *([] if reads_files else [password]),
        _env("DATABASE_PASSWORD_FILE", f"{CREDENTIALS_FOLDER}/{_DATABASE_KEY}"),
        _env("DATABASE_PRIMARY_URL", primary),
        _env("DATABASE_REPLICA_URL", replica),
        _env("REDIS_SENTINEL_HOSTS", sentinels),
        _env("REDIS_MASTER_NAME", names.REDIS_MASTER_NAME),
        # For parts of images that know no Sentinel.
        _env("REDIS_HOST", names.redis_master_service(cluster)),
        _env("REDIS_PORT", str(names.PORT_REDIS)),
        _env("REDIS_USER", names.REDIS_APPLICATION_USER),
        *(
            []
            if reads_files
            else [
                secret_env("REDIS_PASSWORD", queue, _QUEUE_KEY),
                secret_env("REDIS_SENTINEL_PASSWORD", queue, _SENTINEL_KEY),
            ]
        ),
        _env("REDIS_PASSWORD_FILE", f"{QUEUE_CREDENTIALS_FOLDER}/{_QUEUE_KEY}"),
        _env("REDIS_SENTINEL_PASSWORD_FILE", f"{QUEUE_CREDENTIALS_FOLDER}/{_SENTINEL_KEY}"),
        _env("LEADER_ELECTION_TIMEOUT", str(election.lease_duration_seconds * 1000)),
        _env("LEADER_ELECTION_RENEWAL", str(election.retry_period_seconds * 1000)),
        _env("HEALTH_CHECK_INTERVAL", str(checks.interval_seconds * 1000)),
        _env("HEALTH_CHECK_TIMEOUT", str(checks.timeout_seconds * 1000)),
        _env("HEALTH_CHECK_RETRIES", str(checks.retries)),
        _env("RUNNERHUB_LEADER_FILE", LEADER_FILE),
    ]


def orchestrator_environment(context: BuildContext) -> list[Manifest]:
    """Environment of the orchestrator container: the document's names, and those that the public application
    reads.
    """
    cluster = context.name
    return [
        # An image of somebody else may know the variable only.
        *dependency_environment(context, reads_files=context.cluster.spec.orchestrator.image is None),
        _env("HA_ENABLED", "true"),
        _env("PORT", str(names.PORT_ORCHESTRATOR)),
        _env("WEBSOCKET_PORT", str(names.PORT_WEBSOCKET)),
        _env("DATABASE_URL", "$(DATABASE_PRIMARY_URL)"),
        _env("DATABASE_CONNECTION_POOL_SIZE", "20"),
        _env("DATABASE_MAX_CONNECTIONS", "100"),
        _env("REDIS_ENABLE_SENTINEL", "true"),
        secret_env("JWT_SECRET", names.credentials(cluster, names.ORCHESTRATOR), "jwt-secret"),
        # What counts where there is the file; the variable is for images that know no other.
        _env("RUNNERHUB_TOKEN_KEYS_FILE", f"{TOKEN_KEYS_FOLDER}/{KEYS_FILE}"),
        _env("LEADER_ELECTION_ENABLED", "true"),
        _env("LOAD_BALANCER_URL", inside_url(context.cluster, names.load_balancer_service(cluster))),
        _env("LOAD_BALANCER_HEALTH_CHECK", "/health"),
        *_identity(context),
        _env("LOG_DIR", "/tmp"),  # noqa: S108 - the pod's own emptyDir
        _env("RUNNERHUB_AGENT_URL", f"http://127.0.0.1:{names.PORT_AGENT}"),
        *_github_token(context),
    ]


def _github_token(context: BuildContext) -> list[Manifest]:
    """For an image that talks to GitHub itself, as the public application does; our own has no use for it.

    What envFrom brings is not known, and would be replaced by this.
    """
    spec, secret = context.cluster.spec.orchestrator, context.cluster.spec.github.token_secret_name
    given = spec.env_from or any(variable.name == GITHUB_TOKEN for variable in spec.env)
    if spec.image is None or secret is None or given:
        return []
    return [secret_env(GITHUB_TOKEN, secret, "token", optional=True)]


def agent_environment(context: BuildContext) -> list[Manifest]:
    """Environment of the ha-agent container."""
    election = context.cluster.spec.leader_election
    return [
        *dependency_environment(context, reads_files=True),
        *_identity(context),
        _env("RUNNERHUB_CLUSTER_UID", context.cluster.uid),
        *_own_timings(context),
        _env("LEADER_ELECTION_RENEW_DEADLINE", str(election.renew_deadline_seconds * 1000)),
    ]


def _identity(context: BuildContext) -> list[Manifest]:
    """What a request must be for, where the load balancer says whom it is for."""
    return [field_env("RUNNERHUB_NAMESPACE", "metadata.namespace"), _env("RUNNERHUB_CLUSTER", context.name)]


def _own_timings(context: BuildContext) -> list[Manifest]:
    """Variables for the checks whose timing is not that of all."""
    checks = context.cluster.spec.health_checks
    found = []
    for name in ("database", "redis", "storage", "canary"):
        own: CheckTimingSpec = getattr(checks, name)
        for what, value in (
            ("INTERVAL", own.interval_seconds and own.interval_seconds * 1000),
            ("TIMEOUT", own.timeout_seconds and own.timeout_seconds * 1000),
            ("RETRIES", own.retries),
        ):
            if value is not None:
                found.append(_env(f"HEALTH_CHECK_{name.upper()}_{what}", str(value)))
    return found


def _env(name: str, value: str) -> Manifest:
    return {"name": name, "value": value}


def _pod_spec(context: BuildContext) -> Manifest:
    return {
        **placement(context),
        # Only the agent talks to the API server; its container mounts the token by itself.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": TERMINATION_GRACE_SECONDS,
        **init_containers(context),
        "containers": [_orchestrator(context), _agent(context)],
        "volumes": [
            {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
            secret_volume("credentials", names.credentials(context.name, names.POSTGRES), (_DATABASE_KEY,)),
            secret_volume(
                "queue-credentials",
                names.credentials(context.name, names.REDIS),
                (_QUEUE_KEY, _SENTINEL_KEY),
            ),
            # Optional: the key itself may just be about to be made.
            secret_volume("token-keys", names.token_keys(context.name), optional=True),
            _token_volume(),
            *storage_volumes(context),
            *volumes(context.cluster.spec.orchestrator.volumes),
        ],
    }


def _orchestrator(context: BuildContext) -> Manifest:
    spec = context.cluster.spec.orchestrator
    listening = {"tcpSocket": {"port": "http"}, "timeoutSeconds": 5}
    return {
        "name": names.ORCHESTRATOR,
        "image": spec.image or context.images.orchestrator,
        **{key: list(words) for key, words in (("command", spec.command), ("args", spec.args)) if words},
        "env": [
            *orchestrator_environment(context),
            *storage_environment(context, reads_files=False),
            *variables(spec.env),
        ],
        **container_additions(spec),
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in _PORTS.items()],
        "lifecycle": {"preStop": {"sleep": {"seconds": DRAIN_SECONDS}}},
        # A restart heals no dependency: an image may wait for its database before it listens, for ten minutes
        # here, and later only a process that does not even accept connections is restarted.
        "startupProbe": {**listening, "periodSeconds": 2, "failureThreshold": 300},
        "livenessProbe": {**listening, "periodSeconds": 10, "failureThreshold": 6},
        "readinessProbe": {
            "httpGet": {"path": "/health", "port": "http"},
            "periodSeconds": READINESS_PERIOD_SECONDS,
            "timeoutSeconds": READINESS_PERIOD_SECONDS,
            # The load balancer's own checks are faster; this one decides about addresses and rollouts. An image may
            # answer 503 while the database fails over: all pods would lose their addresses, and so their WebSockets.
            "failureThreshold": FAILOVER_SECONDS // READINESS_PERIOD_SECONDS,
        },
        "resources": resource_requirements(spec.resources, cpu="50m", memory="128Mi"),
        "securityContext": container_security_context(),
        "volumeMounts": [
            {"name": "run", "mountPath": RUN_FOLDER, "readOnly": True},
            *_CREDENTIALS_MOUNTS,
            {"name": "token-keys", "mountPath": TOKEN_KEYS_FOLDER, "readOnly": True},
            TEMPORARY_MOUNT,
            *storage_mounts(context, reads_files=False),
            *(dump(mount) for mount in spec.volume_mounts),
        ],
    }


def _agent(context: BuildContext) -> Manifest:
    return {
        "name": "ha-agent",
        "image": context.images.operator,
        "command": ["tini", "--", "python", "-m", "runnerhub_operator.agent"],
        "env": [*agent_environment(context), *storage_environment(context, reads_files=True)],
        "ports": [{"name": _AGENT_PORT, "containerPort": names.PORT_AGENT, "protocol": "TCP"}],
        # No preStop hook: leadership is given back at the very beginning of the end.
        # On a busy machine the start alone may take longer than the patience of the liveness probe.
        "startupProbe": {
            "httpGet": {"path": "/readyz", "port": _AGENT_PORT},
            "periodSeconds": 2,
            "timeoutSeconds": 2,
            "failureThreshold": 60,
        },
        # No readiness probe: an agent that stands still for a while would take the address, and with it the WebSockets,
        # from an orchestrator that is well. The load balancer asks the agent itself before it sends requests.
        "livenessProbe": {
            "httpGet": {"path": "/livez", "port": _AGENT_PORT},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": container_security_context(),
        "volumeMounts": [
            {"name": "run", "mountPath": RUN_FOLDER},
            *_CREDENTIALS_MOUNTS,
            *storage_mounts(context, reads_files=True),
            {"name": "kubernetes-api", "mountPath": SERVICE_ACCOUNT_FOLDER, "readOnly": True},
        ],
    }


def _token_volume() -> Manifest:
    """What Kubernetes would mount into every container of the pod, as a volume of its own."""
    return {
        "name": "kubernetes-api",
        "projected": {
            "defaultMode": 0o440,
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_LIFETIME_SECONDS}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            ],
        },
    }
