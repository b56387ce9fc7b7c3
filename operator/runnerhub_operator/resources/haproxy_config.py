"""The load balancer's HAProxy configuration, section by section.

The pod's program (images/haproxy) checks a new one and has it reloaded, so nothing here renews a pod.
Source of the directives: https://docs.haproxy.org/3.0/configuration.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .. import names
from ..api import LoadBalancerSpec, ServiceType

# Idempotent by its jobId, so a second try of the same request is the same job.
DELEGATE_PATH: Final = "/api/jobs/delegate"
# The numbers of all jobs may take their time, as they do while the database is slow.
JOB_PATHS: Final = "^/api/jobs/[^/]+$"
METRICS_PATH: Final = "/api/jobs/metrics"
# Above the 2.5 s that it takes to accept a job while Redis fails over, and well below the 5 s for which clients wait.
PATIENCE_SECONDS: Final = 3
# So many tries last as long as an orchestrator looks for its database.
TRIES: Final = 5

SLOT_STEP: Final = 10
MAX_SLOTS: Final = 100

# Readiness probes of a worker in which DNS and the first checks may not have answered.
STARTING_PROBES: Final = 3

# Beyond those of clients: probes, metrics and the stats page must be answered when clients have taken all theirs.
SPARE_CONNECTIONS: Final = 100
# To the queue, whose clients keep theirs for days; they must not take those of HTTP.
QUEUE_CONNECTIONS: Final = 1000
# A worker that WebSockets keep alive outlives so many reloads, each about 20 MB of memory.
MAX_RELOADS: Final = 10
# For connections that last: they end with the server, and not because one new connection to it failed.
_UNTIL_DEATH: Final = "on-error fastinter on-marked-down shutdown-sessions"
FORWARDED_HEADERS: Final = (
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Proto",
    "X-Real-IP",
)


def server_slots(replicas: int) -> int:
    """Servers that the template prepares: room for a rollout and for names that DNS still has.

    In steps, because HAProxy reads them only at its start and most changes of size should not reload it.
    """
    return min(MAX_SLOTS, -(-2 * replicas // SLOT_STEP) * SLOT_STEP)


def render(
    spec: LoadBalancerSpec,
    *,
    cluster: str,
    pods_service: str,
    replicas: int,
    queue_services: Sequence[str],
    default_image: bool = True,
) -> str:
    """The whole configuration.

    `cluster` is namespace/name, which pods compare with their own; `pods_service` is the headless Service of the
    orchestrators, `replicas` their number; `queue_services`: the Services of the single Redis pods; `default_image`:
    whether the orchestrators are our own, of which is known what answers soon.
    """

    def servers(port: int) -> str:
        # Quoted, or HAProxy would not put the variable's value in.
        return f'server-template pod {server_slots(replicas)} "{pods_service}.${{SERVICE_DOMAIN}}:{port}"'

    most = spec.max_connections_per_orchestrator
    # slowstart would let the limit grow from one request as well.
    slowly = f" slowstart {spec.slow_start_seconds}s" if spec.slow_start_seconds and not most else ""
    at_most = f" maxconn {most}" if most else ""
    orchestrators = f"{servers(names.PORT_ORCHESTRATOR)}{slowly}{at_most}"
    sections = [
        _global(spec),
        _defaults(spec),
        _resolvers(),
        _stats(),
        _frontend(spec, cluster),
        _orchestrators(spec, orchestrators, cluster, _quick(spec) if default_image else []),
        _any_orchestrator(spec, orchestrators, cluster),
        _websockets(servers(names.PORT_WEBSOCKET), cluster),
        _agents(servers(names.PORT_AGENT), cluster),
        _queue_frontend(),
        _queue_master(queue_services),
    ]
    return "\n\n".join("\n    ".join(section) for section in sections) + "\n"


def trusted_proxies(spec: LoadBalancerSpec) -> Sequence[str] | None:
    """Networks whose X-Forwarded-* headers are believed; None: everybody's are."""
    if spec.trusted_proxies is None and spec.service.type is not ServiceType.CLUSTER_IP:
        return ()
    return spec.trusted_proxies


def _global(spec: LoadBalancerSpec) -> list[str]:
    return [
        "global",
        "log stdout format raw local0 info",
        f"maxconn {spec.max_connections + QUEUE_CONNECTIONS + SPARE_CONNECTIONS}",
        f"mworker-max-reloads {MAX_RELOADS}",
        "stats socket /run/haproxy/haproxy.sock mode 600 level admin",
        # Where the pods are and how they were, written before a reload: the new worker need not wait for DNS.
        "server-state-base /run/haproxy",
        "server-state-file server-state",
        # Two threads serve far more than an orchestrator; one per core of a big node would only cost memory.
        "nbthread 2",
        "set-var proc.asked int(0)",
        *(["ssl-default-bind-options ssl-min-ver TLSv1.2", "ssl-load-extra-del-ext"] if spec.tls else []),
    ]


def _defaults(spec: LoadBalancerSpec) -> list[str]:
    timeouts = spec.timeouts
    return [
        "defaults",
        "mode http",
        "log global",
        "option httplog",
        "option dontlognull",
        # Only what went wrong is logged; the metrics have the rest.
        "option dontlog-normal",
        f"timeout connect {timeouts.connect_seconds}s",
        f"timeout client {timeouts.client_seconds}s",
        f"timeout server {timeouts.server_seconds}s",
        f"timeout tunnel {timeouts.tunnel_seconds}s",
        "timeout http-request 10s",
        "timeout http-keep-alive 30s",
        f"timeout queue {timeouts.queue_seconds}s",
        "timeout check 1s",
        "option redispatch 1",
        "retries 3",
        "retry-on conn-failure",
        "load-server-state-from-file global",
        # Where CoreDNS caches, it names dead pods for 30 s, so the checks must be quick, and one failed
        # connection takes a pod out until its next good check.
        "default-server resolvers cluster resolve-prefer ipv4 init-addr last,none check inter 1s fastinter 500ms "
        "downinter 1s fall 2 rise 1 observe layer4 error-limit 1 on-error mark-down",
    ]


def _resolvers() -> list[str]:
    return [
        "resolvers cluster",
        "parse-resolv-conf",
        "accepted_payload_size 8192",
        "resolve_retries 3",
        "timeout resolve 1s",
        "timeout retry 500ms",
        "hold valid 1s",
        # A pod that left DNS is leaving; the second look guards against a torn answer.
        "hold obsolete 1s",
        # While DNS does not answer, the last addresses are the best there are. The checks judge them: one may belong
        # to a pod of another cluster by now, which refuses them.
        *(f"hold {status} 24h" for status in ("nx", "other", "refused", "timeout")),
    ]


def _stats() -> list[str]:
    return [
        "frontend stats",
        f"bind *:{names.PORT_LB_STATS}",
        "option dontlog-normal",
        "monitor-uri /healthz",
        # Ready is who has somebody to send to: after a start, when DNS and the first checks have answered. But whoever
        # reaches the queue's master and no orchestrator is not to blame: all of them are away, perhaps because they
        # wait for that master, to which clients that know no Sentinel come by here only.
        "acl ready path /readyz",
        "http-request set-var(proc.asked) var(proc.asked),add(1) if ready",
        f"acl starting var(proc.asked) -m int le {STARTING_PROBES}",
        "acl nowhere nbsrv(queue_master) eq 0",
        "acl alone nbsrv(any_orchestrator) eq 0",
        "http-request return status 503 if ready alone starting or ready alone nowhere",
        "http-request return status 200 if ready",
        "http-request use-service prometheus-exporter if { path /metrics }",
        "stats enable",
        "stats uri /stats",
        "stats refresh 5s",
        "stats hide-version",
    ]


def _forwarded(spec: LoadBalancerSpec) -> list[str]:
    """What the pods learn of the client, and what stickiness goes by."""
    trusted = trusted_proxies(spec)
    believed = [] if trusted is None else [f"acl trusted src {network}" for network in trusted]
    if trusted is not None:
        unless = " unless trusted" if trusted else ""
        believed += [f"http-request del-header {name}{unless}" for name in FORWARDED_HEADERS]
    return [
        *believed,
        # Behind a proxy all connections come from few addresses: the client is the first in the list.
        "http-request set-var(txn.client) src",
        "acl forwarded req.hdr(x-forwarded-for) -m found",
        "http-request set-var(txn.client) req.hdr(x-forwarded-for,1) if forwarded",
        *(_redirect() if spec.tls else []),
        "acl told_proto req.hdr(x-forwarded-proto) -m found",
        "http-request set-header X-Forwarded-Proto https if { ssl_fc } !told_proto",
        "http-request set-header X-Forwarded-Proto http if !{ ssl_fc } !told_proto",
        "http-request set-header X-Forwarded-Host %[req.hdr(host)] unless { req.hdr(x-forwarded-host) -m found }",
        "option forwardfor",
    ]


def _redirect() -> list[str]:
    """From port 80 to TLS, but for probes and for what a trusted proxy got by TLS already. 308 keeps the method."""
    return [
        "acl secure req.hdr(x-forwarded-proto) -i https",
        "acl health path /health",
        "acl health path_beg /health/",
        "http-request redirect scheme https code 308 if { so_name -m str http } !secure !health",
    ]


def _frontend(spec: LoadBalancerSpec, cluster: str) -> list[str]:
    secure = f'bind *:{names.PORT_LB_HTTPS} name https ssl crt "${{CONFIG_DIR}}/tls.crt" alpn h2,http/1.1'
    return [
        "frontend http",
        f"bind *:{names.PORT_LB_HTTP} name http",
        *([secure] if spec.tls else []),
        f"bind *:{names.PORT_ORCHESTRATOR} name api",
        f"bind *:{names.PORT_WEBSOCKET} name ws",
        f"maxconn {spec.max_connections}",
        # At a reload, connections that wait for their next request end with its answer, not in its way.
        "option idle-close-on-response",
        # A client that vanished without a word is noticed also where no data is due, as on a WebSocket.
        *_keep_alive("cli"),
        *_forwarded(spec),
        f"http-request set-header {names.HEADER_CLUSTER} {cluster}",
        "acl agent path /health /metrics /leader",
        "acl agent path_beg /health/",
        "acl websocket so_name -m str ws",
        "acl websocket req.hdr(upgrade) -i websocket",
        # socket.io polls by plain HTTP first, and both must reach the same pod.
        "acl websocket path_beg /socket.io/",
        "use_backend agents if agent !{ so_name -m str ws }",
        "use_backend websockets if websocket",
        # When no pod calls itself healthy the database is failing over: a pod that waits is better than 503.
        "use_backend any_orchestrator if { nbsrv(orchestrators) eq 0 }",
        "default_backend orchestrators",
    ]


def _keep_alive(side: str) -> list[str]:
    """TCP keep-alive of the clients' ("cli") or servers' ("srv") side: a peer that is gone is noticed in a minute."""
    return [
        f"option {side}tcpka",
        f"{side}tcpka-idle 30s",
        f"{side}tcpka-intvl 10s",
        f"{side}tcpka-cnt 3",
    ]


def _request_retries(spec: LoadBalancerSpec, *more: str) -> list[str]:
    """A request that reached a pod is tried again only where twice is the same as once; `more`: on what else.

    One that reached none, because the connection failed, is always tried again, at another pod.
    Source of the methods: RFC 9110, 9.2.2
    """
    whole = "{ method POST } delegate or { method PUT }"
    return [
        " ".join(("retry-on conn-failure empty-response 503", *more)),
        f"acl delegate path {DELEGATE_PATH}",
        "acl repeatable method GET HEAD OPTIONS PUT DELETE",
        # Only a request that is here as a whole can be sent again, and bodies come after their headers.
        f"http-request wait-for-body time {spec.timeouts.client_seconds}s if {whole}",
        "http-request disable-l7-retry unless repeatable or { method POST } delegate",
    ]


def _alive_check(path: str, cluster: str) -> list[str]:
    """Any answer counts but that of another cluster's pod: it lives, even when what it depends on does not."""
    return [
        f"option httpchk GET {path}",
        f"http-check send hdr {names.HEADER_CLUSTER} {cluster}",
        "http-check expect status 200-420,422-599",
    ]


def _quick(spec: LoadBalancerSpec) -> list[str]:
    """What is answered soon is asked of another sooner than two checks find out that a pod stands still."""
    patience = min(PATIENCE_SECONDS, spec.timeouts.server_seconds)
    return [
        f"acl job path_reg {JOB_PATHS}",
        f"acl numbers path {METRICS_PATH}",
        f"http-request set-timeout server {patience}s if "
        "{ method POST } delegate or { method GET HEAD } job !numbers",
    ]


def _orchestrators(spec: LoadBalancerSpec, servers: str, cluster: str, quick: Sequence[str]) -> list[str]:
    """Those that say they can serve, and whose ha-agent can write to the database: not every image looks at it.

    `quick`: directives about requests that are answered soon or asked of another.
    """
    return [
        "backend orchestrators",
        f"balance {spec.balance.value}",
        *_request_retries(spec, "response-timeout"),
        f"retries {TRIES - 1}",
        *quick,
        "option httpchk",
        *_check_step("", "/health", cluster),
        *_check_step(f" port {names.PORT_AGENT}", "/health/database", cluster),
        servers,
    ]


def _check_step(where: str, path: str, cluster: str) -> list[str]:
    return [
        f"http-check connect{where}",
        f"http-check send meth GET uri {path} hdr {names.HEADER_CLUSTER} {cluster}",
        "http-check expect status 200",
    ]


def _any_orchestrator(spec: LoadBalancerSpec, servers: str, cluster: str) -> list[str]:
    """Those that live, while none can serve: requests wait there, and another pod would not be sooner."""
    return [
        "backend any_orchestrator",
        f"balance {spec.balance.value}",
        *_request_retries(spec),
        *_alive_check("/", cluster),
        servers,
    ]


def _websockets(servers: str, cluster: str) -> list[str]:
    return [
        "backend websockets",
        # By client and by the pods' addresses: all load balancers choose alike, whatever order DNS gives.
        "balance hash var(txn.client)",
        "hash-type consistent sdbm avalanche",
        # Also for workers that a reload has left with their WebSockets only: they check no pod any more.
        *_keep_alive("srv"),
        # An outage of the database must not cut WebSockets off: only a dead process does.
        *_alive_check("/", cluster),
        f"{servers} port {names.PORT_ORCHESTRATOR} hash-key addr fall 3 {_UNTIL_DEATH}",
    ]


def _agents(servers: str, cluster: str) -> list[str]:
    return [
        "backend agents",
        "balance roundrobin",
        # They answer from memory, and any of them will do: one that stands still is not waited for.
        "timeout server 2s",
        "retry-on conn-failure empty-response response-timeout",
        "http-request disable-l7-retry unless METH_GET",
        *_alive_check("/leader", cluster),
        servers,
    ]


def _queue_frontend() -> list[str]:
    return [
        "frontend queue",
        "mode tcp",
        "option tcplog",
        f"bind *:{names.PORT_REDIS} name redis",
        f"maxconn {QUEUE_CONNECTIONS}",
        *_keep_alive("cli"),
        "default_backend queue_master",
    ]


def _queue_master(services: Sequence[str]) -> list[str]:
    """The Redis that is master and is followed: a master that was replaced while it was away is not followed."""
    return [
        "backend queue_master",
        "mode tcp",
        *_keep_alive("srv"),
        "option httpchk GET /master",
        "http-check expect status 200",
        *(
            f'server {service} "{service}.${{SERVICE_DOMAIN}}:{names.PORT_REDIS}" port {names.PORT_REDIS_STATE} '
            f"{_UNTIL_DEATH}"
            for service in services
        ),
    ]
