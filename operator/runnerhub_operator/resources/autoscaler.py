"""The HorizontalPodAutoscaler of the orchestrators, when the spec asks for one.

It points to the Deployment, not to the RunnerHubCluster, so that it works while the operator is down.
"""

from __future__ import annotations

from .. import names
from .common import BuildContext, Manifest, metadata


def autoscaler_manifests(context: BuildContext) -> list[Manifest]:
    """The autoscaler, or nothing."""
    wanted = context.cluster.spec.orchestrator.autoscaling
    if wanted is None:
        return []
    name = names.child(context.name, names.ORCHESTRATOR)
    target = {"type": "Utilization", "averageUtilization": wanted.target_cpu_utilization_percentage}
    return [
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": metadata(context, name, names.ORCHESTRATOR),
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                "minReplicas": wanted.min_replicas,
                "maxReplicas": wanted.max_replicas,
                "metrics": [
                    {
                        "type": "ContainerResource",
                        # Of the orchestrator alone: the agent beside it works the same whatever the load.
                        "containerResource": {
                            "name": "cpu",
                            "container": names.ORCHESTRATOR,
                            "target": target,
                        },
                    }
                ],
            },
        }
    ]
