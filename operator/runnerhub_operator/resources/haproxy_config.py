"""The load balancer's HAProxy configuration, section by section.

Source of the directives: https://docs.haproxy.org/3.0/configuration.html
"""

from __future__ import annotations

from typing import Final

from .. import names

# Idempotent by its jobId, so a second try of the same request is the same job.
DELEGATE_PATH: Final = "/api/jobs/delegate"
HARD_STOP_SECONDS: Final = 20

SLOT_STEP: Final = 10
MAX_SLOTS: Final = 100


def server_slots(replicas: int) -> int:
    """Servers that the template prepares: room for a rollout and for names that DNS still has.

    In steps, because HAProxy reads them only at its start and most changes of size should not restart it.
    """
    return min(MAX_SLOTS, -(-2 * replicas // SLOT_STEP) * SLOT_STEP)


def render(*, pods_service: str, replicas: int) -> str:
    """The whole configuration; `pods_service` is the headless Service of the orchestrators."""

    def servers(port: int) -> str:
        # Quoted, or HAProxy would not put the variable's value in.
        return f'server-template pod {server_slots(replicas)} "{pods_service}.${{SERVICE_DOMAIN}}:{port}"'

    sections = [
        _global(),
        _defaults(),
        _resolvers(),
        _stats(),
        _http_frontend(),
        _websocket_frontend(),
        _orchestrators(servers(names.PORT_ORCHESTRATOR)),
        _any_orchestrator(servers(names.PORT_ORCHESTRATOR)),
        _websockets(servers(names.PORT_WEBSOCKET)),
        _agents(servers(names.PORT_AGENT)),
    ]
    return "\n\n".join("\n    ".join(section) for section in sections) + "\n"


def _global() -> list[str]:
    return [
        "global",
        "log stdout format raw local0 info",
        "maxconn 4096",
        # A drain that WebSockets keep open ends here, well before the kubelet kills the pod.
        f"hard-stop-after {HARD_STOP_SECONDS}s",
        "stats socket /run/haproxy/haproxy.sock mode 600 level admin",
        "server-state-base /run/haproxy",
        # Two threads serve far more than an orchestrator; one per core of a big node would only cost memory.
        "nbthread 2",
    ]


def _defaults() -> list[str]:
    return [
        "defaults",
        "mode http",
        "log global",
        "option httplog",
        "option dontlognull",
        # Only what went wrong is logged; the metrics have the rest.
        "option dontlog-normal",
        "timeout connect 1s",
        "timeout client 60s",
        "timeout server 60s",
        "timeout tunnel 1h",
        "timeout http-request 10s",
        "timeout http-keep-alive 30s",
        "timeout queue 10s",
        "timeout check 1s",
        "option redispatch 1",
        "retries 3",
        "retry-on conn-failure",
        # Where CoreDNS caches, it names dead pods for 30 s, so the checks must be quick, and one failed
        # connection takes a pod out until its next good check.
        "default-server resolvers cluster resolve-prefer ipv4 init-addr none check inter 1s fastinter 500ms "
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
        # While DNS does not answer, the last addresses are the best there are; the checks judge them.
        *(f"hold {status} 24h" for status in ("nx", "other", "refused", "timeout")),
    ]


def _stats() -> list[str]:
    return [
        "frontend stats",
        f"bind *:{names.PORT_LB_STATS}",
        "option dontlog-normal",
        "monitor-uri /healthz",
        "http-request use-service prometheus-exporter if { path /metrics }",
        "stats enable",
        "stats uri /stats",
        "stats refresh 5s",
        "stats hide-version",
    ]


def _forwarded() -> list[str]:
    """What the pods learn of the client, and what stickiness goes by."""
    return [
        # Behind an Ingress all connections come from few addresses: the client is the first in the list.
        "http-request set-var(txn.client) src",
        "acl forwarded req.hdr(x-forwarded-for) -m found",
        "http-request set-var(txn.client) req.hdr(x-forwarded-for,1) if forwarded",
        "http-request set-header X-Forwarded-Proto http unless { req.hdr(x-forwarded-proto) -m found }",
        "http-request set-header X-Forwarded-Host %[req.hdr(host)] unless { req.hdr(x-forwarded-host) -m found }",
        "option forwardfor",
    ]


def _http_frontend() -> list[str]:
    return [
        "frontend http",
        f"bind *:{names.PORT_LB_HTTP} name http",
        f"bind *:{names.PORT_ORCHESTRATOR} name api",
        *_forwarded(),
        "acl agent path /health /metrics /leader",
        "acl agent path_beg /health/",
        "acl websocket req.hdr(upgrade) -i websocket",
        # socket.io polls by plain HTTP first, and both must reach the same pod.
        "acl websocket path_beg /socket.io/",
        "use_backend agents if agent",
        "use_backend websockets if websocket",
        # When no pod calls itself healthy the database is failing over: a pod that waits is better than 503.
        "use_backend any_orchestrator if { nbsrv(orchestrators) eq 0 }",
        "default_backend orchestrators",
    ]


def _websocket_frontend() -> list[str]:
    return [
        "frontend websocket",
        f"bind *:{names.PORT_WEBSOCKET} name ws",
        *_forwarded(),
        "default_backend websockets",
    ]


def _request_retries() -> list[str]:
    """A request that reached a pod is tried again only where twice is the same as once."""
    return [
        "retry-on conn-failure empty-response 503",
        f"acl delegate path {DELEGATE_PATH}",
        # Only a request that is here as a whole can be sent again, and bodies come after their headers.
        "http-request wait-for-body time 2s if { method POST } delegate",
        "http-request disable-l7-retry unless { method GET HEAD } || { method POST } delegate",
    ]


def _alive_check(path: str) -> list[str]:
    """Any answer counts: the process lives, even when what it depends on does not."""
    return [f"option httpchk GET {path}", "http-check expect status 200-599"]


def _orchestrators(servers: str) -> list[str]:
    return [
        "backend orchestrators",
        "balance roundrobin",
        *_request_retries(),
        "option httpchk GET /health",
        servers,
    ]


def _any_orchestrator(servers: str) -> list[str]:
    return [
        "backend any_orchestrator",
        "balance roundrobin",
        *_request_retries(),
        *_alive_check("/"),
        servers,
    ]


def _websockets(servers: str) -> list[str]:
    return [
        "backend websockets",
        # By client and by the pods' addresses: all load balancers choose alike, whatever order DNS gives.
        "balance hash var(txn.client)",
        "hash-type consistent sdbm avalanche",
        # An outage of the database must not cut WebSockets off: only a dead process does.
        *_alive_check("/"),
        f"{servers} port {names.PORT_ORCHESTRATOR} hash-key addr on-marked-down shutdown-sessions",
    ]


def _agents(servers: str) -> list[str]:
    return [
        "backend agents",
        "balance roundrobin",
        *_alive_check("/leader"),
        servers,
    ]
