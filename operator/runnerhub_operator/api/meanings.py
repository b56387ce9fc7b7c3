"""What the words of the status mean, for the reference: each condition and each reason, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .status import ConditionReason, ConditionType

# What True means.
CONDITIONS: Final[Mapping[ConditionType, str]] = {
    ConditionType.READY: (
        "Every component serves, so clients can use the cluster. During creation it waits until all are complete."
    ),
    ConditionType.PROGRESSING: "The operator is bringing the cluster to what the spec asks for.",
    ConditionType.DEGRADED: "The cluster serves with less redundancy than the spec asks for.",
    ConditionType.ACCEPTED: "The spec is valid, and nothing made from it was refused.",
    ConditionType.POSTGRES: "A primary accepts writes behind at least one pooler.",
    ConditionType.REDIS: "A majority of Sentinels agrees on a master that takes writes, with the replicas to do so.",
    ConditionType.ORCHESTRATORS: "At least one orchestrator serves.",
    ConditionType.LOAD_BALANCER: "At least one HAProxy serves, and a request through it is answered.",
    ConditionType.INGRESS: (
        "The Ingress has an address, or every Gateway has taken the HTTPRoute, or neither is asked for. Ready does not "
        "wait for it."
    ),
    ConditionType.RUNNERS: (
        "Each pool has its least number of runners ready, and no runner that cannot start, or there are no pools. "
        "Ready does not wait for it."
    ),
}


@dataclass(frozen=True, slots=True)
class Meaning:
    """`of`: the conditions that can have the reason. `look`: what a person should look at. `remedy`: what to do."""

    of: str
    text: str
    look: str
    remedy: str


REASONS: Final[Mapping[ConditionReason, Meaning]] = {
    ConditionReason.AVAILABLE: Meaning(
        "Ready, components, IngressReady, RunnersReady",
        "It serves, and nothing of it is missing. Of Ready: every component serves.",
        "`kubectl runnerhub status`, when you want to know who has which role.",
        "Nothing.",
    ),
    ConditionReason.REDUCED_REDUNDANCY: Meaning(
        "components, Degraded",
        "It serves, but a member, replica or pod of it is missing, so one more fault can stop it; or HAProxy refuses "
        "its new settings or certificate.",
        "The message, which names pod, node or setting; `kubectl runnerhub doctor`; `kubectl describe pod` of "
        "what is missing.",
        "Look at the pod, node or setting that the message names. The operator and Kubernetes go on repairing.",
    ),
    ConditionReason.CREATING: Meaning(
        "Ready, components, Progressing, Degraded, IngressReady, RunnersReady",
        "It is being made for the first time and is not complete.",
        "The conditions of the components; `kubectl runnerhub doctor` tells whether there is room for all pods "
        "and volumes.",
        "Wait; when it stands still, the message names the pod and why it does not start.",
    ),
    ConditionReason.UNAVAILABLE: Meaning(
        "components, RunnersReady",
        "It does not serve: no primary, no master or too few replicas that follow it, no request that is served "
        "through the load balancer, or no pod that is ready.",
        "The message; `kubectl runnerhub logs` of the component, of the last ten minutes; the nodes on which its "
        "pods were.",
        "See the message; an election needs a majority, so bring back the missing pods or nodes.",
    ),
    ConditionReason.COMPONENTS_NOT_READY: Meaning(
        "Ready",
        "At least one component does not serve; the message lists each with its own reason.",
        "The conditions whose status is False: `kubectl runnerhub status`, or `kubectl describe rhc NAME`.",
        "Look at the conditions of the components that it names.",
    ),
    ConditionReason.WRITES_REFUSED: Meaning(
        "RedisReady",
        "The Redis master is there and refuses writes. The message has its answer: NOREPLICAS, too few follow it; "
        "MISCONF, it cannot write its files; OOM, its memory is full; READONLY, it is no master any more.",
        "`status.redis`: links of the replicas, how full volumes and memory are; `kubectl runnerhub logs redis`.",
        "NOREPLICAS: bring back a replica. MISCONF: raise spec.redis.storage.size. OOM: raise "
        "spec.redis.resources.limits.memory, where that is not set spec.redis.storage.size, or work jobs off. "
        "READONLY: wait for Sentinel.",
    ),
    ConditionReason.WORKERS_DEAF: Meaning(
        "RedisReady",
        "Jobs wait in a BullMQ queue, its workers are connected, and for half a minute nobody has taken one: the "
        "connection by which they wait for jobs has died without their noticing.",
        "`status.redis.deafQueues`; the workers' logs.",
        "Restart the workers of the queues that the message names.",
    ),
    ConditionReason.CHECKS_FAIL: Meaning(
        "OrchestratorsReady",
        "Requests are served, but an ha-agent cannot write to the shared storage and read it back (storage), or its "
        "own job does not come through database and queue and back (canary). The message has what it says.",
        "`/health/storage` and `/health/canary` of the load balancer; `kubectl runnerhub logs orchestrator`.",
        "For storage, bring back the NFS server, the volume or the bucket of spec.sharedStorage. For the canary, look "
        "at the database or at the queue's master, by the step that the message names.",
    ),
    ConditionReason.PATRONI_PAUSED: Meaning(
        "PostgresReady",
        "Somebody paused Patroni (`patronictl pause`). The database serves, but no replica takes over from a primary "
        "that fails, no broken member is made anew, and no rolling change of the members goes on.",
        "`kubectl exec NAME-postgres-0 -- patronictl list`.",
        "`kubectl exec NAME-postgres-0 -- patronictl resume`, when what it was paused for is done.",
    ),
    ConditionReason.PARAMETERS_REFUSED: Meaning(
        "PostgresReady",
        "Postgres refuses parameters, or does not start since they changed. Members that run go on with the former "
        "values; one that stopped cannot start. Its data is kept, and no other member is restarted.",
        "The message, which names the parameters; the last lines of `kubectl logs` of the member.",
        "Correct or remove them in spec.postgres.parameters (shared_buffers follows resources.limits.memory). Members "
        "that stopped then start by themselves.",
    ),
    ConditionReason.CREDENTIALS_MISSING: Meaning(
        "PostgresReady, RedisReady",
        "Somebody deleted the Secret, or a key of it, whose passwords running servers still use.",
        "Whether the Secret that the message names is there, with its keys and its label "
        "`runnerhub.io/cluster`.",
        "Restore the Secret from a backup, with its labels. New passwords would lock everybody out.",
    ),
    ConditionReason.NOT_REQUESTED: Meaning(
        "IngressReady, RunnersReady",
        "The spec asks for no way in from outside, or for no runner pool.",
        "The spec.",
        "Nothing; set spec.ingress or spec.runnerPools to have them.",
    ),
    ConditionReason.NO_ADDRESS: Meaning(
        "IngressReady",
        "The Ingress exists, but no controller has given it an address; or a Gateway has taken the HTTPRoute, but does "
        "not listen.",
        "`kubectl describe ingress NAME`, and `kubectl get ingressclass`; of a Gateway its condition Programmed, which "
        "the message has.",
        "Check that an ingress controller runs for the class of spec.ingress.className; mend the Gateway.",
    ),
    ConditionReason.GATEWAY_API_MISSING: Meaning(
        "IngressReady",
        "spec.ingress.gateway asks for an HTTPRoute, and the API server has no such objects. An Ingress that was there "
        "before stays meanwhile.",
        "`kubectl api-resources --api-group=gateway.networking.k8s.io`.",
        "Install the definitions of the Gateway API and a controller, which is noticed within a minute or two; or "
        "leave spec.ingress.gateway out.",
    ),
    ConditionReason.ROUTE_NOT_ACCEPTED: Meaning(
        "IngressReady",
        "A Gateway has not taken the HTTPRoute, has not answered to it yet, or does not find the Service behind "
        "it.",
        "The message; `kubectl describe httproute NAME`; the listeners of the Gateway.",
        "See the message, which has the Gateway's own words; check the names in spec.ingress.gateway.parentRefs, and "
        "whether the Gateway's listener allows routes from the namespace.",
    ),
    ConditionReason.NOT_OBSERVED: Meaning(
        "all",
        "The operator has not looked at it yet, or cannot while the spec is not accepted.",
        "Accepted; `kubectl runnerhub logs operator`; the Lease `runnerhub-operator` in the operator's "
        "namespace.",
        "Wait; when it stays, see Accepted and whether the operator runs.",
    ),
    ConditionReason.DEMAND_UNKNOWN: Meaning(
        "RunnersReady",
        "No orchestrator tells which jobs wait and which runners have one. Pools keep their size, or grow to their "
        "least number; no runner is stopped.",
        "OrchestratorsReady and PostgresReady; `kubectl runnerhub logs orchestrator`.",
        "Wait while orchestrators or the database are away. An orchestrator image of your own must answer GET "
        "/api/runners/demand for pools to follow the jobs.",
    ),
    ConditionReason.REJECTED_BY_KUBELET: Meaning(
        "RunnersReady",
        "The scheduler gave runners to a node whose kubelet does not take them, or evicts them before they run: "
        "OutOfcpu, OutOfmemory, NodeAffinity, TopologyAffinityError, UnexpectedAdmissionError, Evicted. Others are "
        "tried after ten seconds, then ever more seldom, at least every five minutes; other pools take their jobs "
        "meanwhile where labels allow it.",
        "The message, which has the node and the kubelet's words; `kubectl describe node` of that node.",
        "Mend the node, or `kubectl cordon` it; ask for less in the pool's resources where no node can give as much.",
    ),
    ConditionReason.UNSCHEDULABLE: Meaning(
        "components, RunnersReady",
        "No node has room for a pod, or its volume cannot be made.",
        "`kubectl runnerhub doctor` tells what there is room for; `kubectl describe pod` has the scheduler's "
        "words, `kubectl describe pvc` those of the storage driver.",
        "Add or free nodes, check the StorageClass, or ask for less in the spec's resources.",
    ),
    ConditionReason.ERR_IMAGE_PULL: Meaning(
        "components, RunnersReady",
        "A node cannot pull an image.",
        "`kubectl describe pod`: the name of the image and the registry's answer.",
        "Check the image in the spec and the node's access to its registry.",
    ),
    ConditionReason.IMAGE_PULL_BACK_OFF: Meaning(
        "components, RunnersReady",
        "A node could not pull an image and waits before it tries again.",
        "`kubectl describe pod`: the name of the image and the registry's answer.",
        "Check the image in the spec and the node's access to its registry.",
    ),
    ConditionReason.INVALID_IMAGE_NAME: Meaning(
        "components, RunnersReady",
        "The container runtime does not understand the name of an image.",
        "The `image` of the component in the spec, and the values below `image` of the operator's chart.",
        "Correct the image in the spec.",
    ),
    ConditionReason.CREATE_CONTAINER_CONFIG_ERROR: Meaning(
        "components, RunnersReady",
        "A container needs a Secret or ConfigMap, or a key of one, that is not there.",
        "The message, and whether the Secret or ConfigMap that it names is in the namespace.",
        "Restore what the message names.",
    ),
    ConditionReason.CRASH_LOOP_BACK_OFF: Meaning(
        "components, RunnersReady",
        "A container ends soon after each start.",
        "`kubectl runnerhub logs COMPONENT --previous`.",
        "Read its last words with kubectl logs --previous.",
    ),
    ConditionReason.ROLLING_CHANGE: Meaning(
        "Progressing",
        "Pods are being renewed one at a time; the message tells what is waited for.",
        "The message, and `kubectl runnerhub leases`.",
        "Wait; `kubectl get lease NAME-disruption` tells who holds the right to disrupt.",
    ),
    ConditionReason.CHANGING: Meaning(
        "Progressing",
        "Objects are being written that renew no pod.",
        "The message.",
        "Wait.",
    ),
    ConditionReason.VOLUMES_GROWING: Meaning(
        "Progressing",
        "Volumes are being enlarged, one member after the other; the message tells which are not there yet.",
        "`kubectl describe pvc data-POD` of the members that the message names.",
        "Wait; when one stands still, look at the Events of its PersistentVolumeClaim.",
    ),
    ConditionReason.VOLUME_GROWTH_REFUSED: Meaning(
        "Progressing",
        "The API server refuses to enlarge a volume, mostly because its StorageClass does not allow it. Everything "
        "else of the spec is in effect.",
        "The message, which has the words of the API server; `kubectl get storageclass`.",
        "Set allowVolumeExpansion: true in the StorageClass if its driver can enlarge volumes, or replace the volumes "
        "one at a time, as the page on sizes tells.",
    ),
    ConditionReason.MIGRATING: Meaning(
        "Progressing",
        "A Job brings the database's schema to a new orchestrator image, or waits for its turn; the pods of the former "
        "image serve meanwhile.",
        "The Job that the message names.",
        "Wait; `kubectl logs job/NAME`, with the name in the message, tells how far it is.",
    ),
    ConditionReason.MIGRATION_FAILED: Meaning(
        "Progressing",
        "The migration of the database for a new orchestrator image failed, so its pods are not started. The pods of "
        "the former image go on serving.",
        "The message, which has the end of the Job's log; the rest of it while its pod is there.",
        "The message has the end of its log. Correct the image or spec.orchestrator.migrations.command, or delete the "
        "Job that it names to try again.",
    ),
    ConditionReason.SETTLED: Meaning(
        "Progressing",
        "What the spec asks for is in effect, and nothing is being changed.",
        "Nothing.",
        "Nothing.",
    ),
    ConditionReason.PAUSED: Meaning(
        "Progressing",
        "spec.paused is true: nothing is changed; the message tells what is held back.",
        "The message.",
        "Set spec.paused to false to go on.",
    ),
    ConditionReason.AS_EXPECTED: Meaning(
        "Degraded",
        "Every component has the redundancy that the spec asks for.",
        "Nothing.",
        "Nothing.",
    ),
    ConditionReason.VALID: Meaning(
        "Accepted",
        "The spec holds, and the API server took every object that was made from it.",
        "Nothing.",
        "Nothing.",
    ),
    ConditionReason.INVALID_SPEC: Meaning(
        "Accepted",
        "The spec passed an older schema, but this operator cannot work by it. Nothing is changed.",
        "The message; whether operator and definition are of the same version (`kubectl runnerhub doctor`).",
        "Correct the field that the message names.",
    ),
    ConditionReason.NAME_TAKEN: Meaning(
        "Accepted",
        "An object with the name of a child belongs to somebody else. It is never touched.",
        "The object that the message names: its labels and owner.",
        "Remove that object, or give the cluster another name.",
    ),
    ConditionReason.REFUSED_BY_API_SERVER: Meaning(
        "Accepted, RunnersReady",
        "The API server, a quota or an admission policy refused an object that the operator made from the spec, or has"
        " failed on it for ten seconds and more, as with a webhook that does not answer.",
        "The message, which has the words of the API server; `kubectl describe resourcequota`,"
        " `kubectl get mutatingwebhookconfigurations,validatingwebhookconfigurations`.",
        "See the message; change the spec, the quota or the policy, or bring the webhook's pods back.",
    ),
}
