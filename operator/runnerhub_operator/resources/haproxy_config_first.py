"""The configuration of HAProxy in the first layout, word for word.

Pods of that layout carry its hash and read it only when they start. The operator changes it only together with
them, and then to the layout of today; so the settings that came later never meet it.
"""

from __future__ import annotations

from typing import Final

_TEXT: Final = """\
global
    log stdout format raw local0 info
    maxconn 4096
    hard-stop-after 20s
    stats socket /run/haproxy/haproxy.sock mode 600 level admin
    server-state-base /run/haproxy
    nbthread 2

defaults
    mode http
    log global
    option httplog
    option dontlognull
    option dontlog-normal
    timeout connect 1s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
    timeout http-request 10s
    timeout http-keep-alive 30s
    timeout queue 10s
    timeout check 1s
    option redispatch 1
    retries 3
    retry-on conn-failure
    default-server resolvers cluster resolve-prefer ipv4 init-addr none check inter 1s fastinter 500ms \
downinter 1s fall 2 rise 1 observe layer4 error-limit 1 on-error mark-down

resolvers cluster
    parse-resolv-conf
    accepted_payload_size 8192
    resolve_retries 3
    timeout resolve 1s
    timeout retry 500ms
    hold valid 1s
    hold obsolete 1s
    hold nx 24h
    hold other 24h
    hold refused 24h
    hold timeout 24h

frontend stats
    bind *:8404
    option dontlog-normal
    monitor-uri /healthz
    http-request use-service prometheus-exporter if { path /metrics }
    stats enable
    stats uri /stats
    stats refresh 5s
    stats hide-version

frontend http
    bind *:8080 name http
    bind *:3001 name api
    http-request set-var(txn.client) src
    acl forwarded req.hdr(x-forwarded-for) -m found
    http-request set-var(txn.client) req.hdr(x-forwarded-for,1) if forwarded
    http-request set-header X-Forwarded-Proto http unless { req.hdr(x-forwarded-proto) -m found }
    http-request set-header X-Forwarded-Host %[req.hdr(host)] unless { req.hdr(x-forwarded-host) -m found }
    option forwardfor
    acl agent path /health /metrics /leader
    acl agent path_beg /health/
    acl websocket req.hdr(upgrade) -i websocket
    acl websocket path_beg /socket.io/
    use_backend agents if agent
    use_backend websockets if websocket
    use_backend any_orchestrator if { nbsrv(orchestrators) eq 0 }
    default_backend orchestrators

frontend websocket
    bind *:3002 name ws
    http-request set-var(txn.client) src
    acl forwarded req.hdr(x-forwarded-for) -m found
    http-request set-var(txn.client) req.hdr(x-forwarded-for,1) if forwarded
    http-request set-header X-Forwarded-Proto http unless { req.hdr(x-forwarded-proto) -m found }
    http-request set-header X-Forwarded-Host %[req.hdr(host)] unless { req.hdr(x-forwarded-host) -m found }
    option forwardfor
    default_backend websockets

backend orchestrators
    balance roundrobin
    retry-on conn-failure empty-response 503
    acl delegate path /api/jobs/delegate
    http-request wait-for-body time 2s if { method POST } delegate
    http-request disable-l7-retry unless { method GET HEAD } || { method POST } delegate
    option httpchk GET /health
    server-template pod @SLOTS@ "@SERVICE@.${SERVICE_DOMAIN}:3001"

backend any_orchestrator
    balance roundrobin
    retry-on conn-failure empty-response 503
    acl delegate path /api/jobs/delegate
    http-request wait-for-body time 2s if { method POST } delegate
    http-request disable-l7-retry unless { method GET HEAD } || { method POST } delegate
    option httpchk GET /
    http-check expect status 200-599
    server-template pod @SLOTS@ "@SERVICE@.${SERVICE_DOMAIN}:3001"

backend websockets
    balance hash var(txn.client)
    hash-type consistent sdbm avalanche
    option httpchk GET /
    http-check expect status 200-599
    server-template pod @SLOTS@ "@SERVICE@.${SERVICE_DOMAIN}:3002" port 3001 hash-key addr \
on-marked-down shutdown-sessions

backend agents
    balance roundrobin
    option httpchk GET /leader
    http-check expect status 200-599
    server-template pod @SLOTS@ "@SERVICE@.${SERVICE_DOMAIN}:9808"
"""


def render(*, pods_service: str, slots: int) -> str:
    """haproxy.cfg; `pods_service` is the headless Service of the orchestrators."""
    return _TEXT.replace("@SERVICE@", pods_service).replace("@SLOTS@", str(slots))
