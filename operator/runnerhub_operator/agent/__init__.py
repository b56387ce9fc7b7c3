"""The ha-agent: a sidecar of each orchestrator for leader election, health checks and metrics.

It stays small, three or more of them run beside each cluster: no kopf, no pydantic, no Kubernetes library.
"""
