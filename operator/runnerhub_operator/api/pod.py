"""What people may add to the orchestrators' pods: typed, in the words of Kubernetes, and never what the operator owns.

Only what the `restricted` Pod Security Standard allows has a field at all.
Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field, StringConstraints

from .. import names
from .base import (
    ANNOTATION_NAME_PATTERN,
    MAX_LABEL_NAME_LENGTH,
    ApiModel,
    Boolean,
    ImageReference,
    Integer,
    LabelKey,
    ObjectName,
    ResourceRequirements,
    Rule,
    cel_string,
)

# Every name in the environment of the orchestrator container that the operator decides; a test holds it to the builder.
OPERATOR_OWNED_VARIABLES: Final = (
    "DATABASE_CONNECTION_POOL_SIZE",
    "DATABASE_MAX_CONNECTIONS",
    "DATABASE_PASSWORD",
    "DATABASE_PASSWORD_FILE",
    "DATABASE_PRIMARY_URL",
    "DATABASE_REPLICA_URL",
    "DATABASE_URL",
    "HA_CLUSTER_NODES",
    "HA_ENABLED",
    "HA_NODE_ID",
    "HEALTH_CHECK_INTERVAL",
    "HEALTH_CHECK_RETRIES",
    "HEALTH_CHECK_TIMEOUT",
    "JWT_SECRET",
    "LEADER_ELECTION_ENABLED",
    "LEADER_ELECTION_RENEWAL",
    "LEADER_ELECTION_TIMEOUT",
    "LOAD_BALANCER_HEALTH_CHECK",
    "LOAD_BALANCER_URL",
    "LOG_DIR",
    "NFS_MOUNT_POINT",
    "NFS_SERVER",
    "PORT",
    "REDIS_ENABLE_SENTINEL",
    "REDIS_HOST",
    "REDIS_MASTER_NAME",
    "REDIS_PASSWORD",
    "REDIS_PASSWORD_FILE",
    "REDIS_PORT",
    "REDIS_SENTINEL_HOSTS",
    "REDIS_SENTINEL_PASSWORD",
    "REDIS_SENTINEL_PASSWORD_FILE",
    "REDIS_USER",
    "RUNNERHUB_AGENT_URL",
    "RUNNERHUB_CLUSTER",
    "RUNNERHUB_LEADER_FILE",
    "RUNNERHUB_NAMESPACE",
    "RUNNERHUB_TOKEN_KEYS_FILE",
    "SHARED_STORAGE_PATH",
    "WEBSOCKET_PORT",
)
# Those of all programs for AWS and its like, and the bucket's; the operator's own only with spec.sharedStorage.s3.
BUCKET_VARIABLES: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_CA_BUNDLE",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "S3_BUCKET",
    "S3_FORCE_PATH_STYLE",
    "S3_PREFIX",
)
# Volumes and folders of the operator's own in these pods.
OPERATOR_OWNED_VOLUMES: Final = (
    "credentials",
    "kubernetes-api",
    "queue-credentials",
    "run",
    "s3-ca",
    "s3-credentials",
    "shared-storage",
    "tmp",
    "token-keys",
)
OPERATOR_OWNED_FOLDERS: Final = (
    "/etc/runnerhub",
    "/mnt/shared/runnerhub",
    "/run/runnerhub",
    "/var/run/secrets/kubernetes.io",
)
OPERATOR_OWNED_CONTAINERS: Final = ("ha-agent", names.ORCHESTRATOR)

# Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
LABEL_VALUE_PATTERN: Final = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
DNS_LABEL_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
# Whole, without a component that leads elsewhere, so that folders can be compared.
PATH_PATTERN: Final = r"^(/\.?[A-Za-z0-9_@+-][A-Za-z0-9._@+-]*)+$"
SUB_PATH_PATTERN: Final = r"^\.?[A-Za-z0-9_@+-][A-Za-z0-9._@+-]*(/\.?[A-Za-z0-9_@+-][A-Za-z0-9._@+-]*)*$"
VARIABLE_PATTERN: Final = r"^[A-Za-z_][A-Za-z0-9_]*$"
KEY_PATTERN: Final = r"^[-._A-Za-z0-9]*[-_A-Za-z0-9][-._A-Za-z0-9]*$"

LabelName = Annotated[str, StringConstraints(max_length=317)]
LabelValue = Annotated[str, StringConstraints(pattern=LABEL_VALUE_PATTERN, max_length=63)]
DnsLabel = Annotated[str, StringConstraints(pattern=DNS_LABEL_PATTERN, min_length=1, max_length=63)]
FolderPath = Annotated[str, StringConstraints(pattern=PATH_PATTERN, max_length=255)]
SubPath = Annotated[str, StringConstraints(pattern=SUB_PATH_PATTERN, max_length=255)]
VariableName = Annotated[str, StringConstraints(pattern=VARIABLE_PATTERN, max_length=100)]
DataKey = Annotated[str, StringConstraints(pattern=KEY_PATTERN, max_length=253)]
# A container's environment and arguments end at a null character.
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=4096)]
AnyName = Annotated[str, StringConstraints(pattern=ANNOTATION_NAME_PATTERN, max_length=317)]
AnnotationText = Annotated[str, StringConstraints(max_length=4096)]
FileMode = Annotated[Integer, Field(ge=0, le=0o777)]


def map_of(*keys: str) -> dict[str, Any]:
    """A list whose entries have these keys of their own, as Kubernetes has it."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


def distinct(path: str, *keys: str) -> Rule:
    """The operator's counterpart of `map_of`; the API server needs no words for it."""
    attributes = [re.sub("([A-Z])", lambda letter: f"_{letter.group(1).lower()}", key) for key in keys]

    def holds(spec: Any) -> bool:
        found = [
            tuple(getattr(item, attribute) for attribute in attributes)
            for item in getattr(spec, _snake(path))
        ]
        return len(set(found)) == len(found)

    return Rule("", f"{path} must not have the same {' and '.join(keys)} twice", holds)


def _snake(name: str) -> str:
    return re.sub("([A-Z])", lambda letter: f"_{letter.group(1).lower()}", name)


def exactly_one(subject: str, *options: str) -> Rule:
    """Of these fields one is set, and no other."""
    count = " + ".join(f"(has(self.{option}) ? 1 : 0)" for option in options)
    return Rule(
        f"{count} == 1",
        f"{subject} must have exactly one of {', '.join(options)}",
        lambda given: sum(getattr(given, _snake(option)) is not None for option in options) == 1,
    )


def owned(field: str, values: Iterable[str], words: str, get: Callable[[Any], Iterable[str]]) -> Rule:
    """Entries of a list whose name the operator keeps for itself."""
    listed = tuple(values)
    return Rule(
        f"!has(self.{field}) || self.{field}.all(item, !(item.name in {json.dumps(listed)}))",
        f"{words}: {', '.join(listed)}",
        lambda spec: not set(get(spec)) & set(listed),
        f".{field}",
    )


def _is_reserved(path: str) -> bool:
    return path == "/tmp" or any(  # noqa: S108 - the pod's own emptyDir
        path == folder or path.startswith(f"{folder}/") for folder in OPERATOR_OWNED_FOLDERS
    )


class KeyReference(ApiModel):
    """One key of a Secret or ConfigMap in the cluster's namespace."""

    name: ObjectName = Field(description="Name of the Secret or ConfigMap.")
    key: DataKey = Field(description="The key.")
    optional: Boolean | None = Field(
        default=None, description="Whether pods start without it. Default: they wait for it."
    )


class PodField(StrEnum):
    """Fields of a pod that its environment can have."""

    NAME = "metadata.name"
    NAMESPACE = "metadata.namespace"
    NODE = "spec.nodeName"
    HOST_ADDRESS = "status.hostIP"
    ADDRESS = "status.podIP"


class FieldReference(ApiModel):
    """A field of the pod itself."""

    field_path: PodField = Field(description="Path of the field.")


class VariableSource(ApiModel):
    """Where the value of a variable comes from."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one("valueFrom", "secretKeyRef", "configMapKeyRef", "fieldRef"),
    )

    secret_key_ref: KeyReference | None = Field(default=None, description="A key of a Secret.")
    config_map_key_ref: KeyReference | None = Field(default=None, description="A key of a ConfigMap.")
    field_ref: FieldReference | None = Field(default=None, description="A field of the pod.")


class Variable(ApiModel):
    """A variable of the environment."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.value) || !has(self.valueFrom)",
            "a variable must not have both value and valueFrom",
            lambda given: given.value is None or given.value_from is None,
        ),
    )

    name: VariableName = Field(description="Name of the variable.")
    value: Text | None = Field(
        default=None,
        description="Its value; $(NAME) is replaced by the variable of that name. Default: an empty text.",
    )
    value_from: VariableSource | None = Field(default=None, description="Where the value comes from instead.")


class ObjectReference(ApiModel):
    """A Secret or ConfigMap in the cluster's namespace."""

    name: ObjectName = Field(description="Its name.")
    optional: Boolean | None = Field(
        default=None, description="Whether pods start without it. Default: they wait for it."
    )


class VariablesSource(ApiModel):
    """A Secret or ConfigMap each key of which becomes a variable."""

    rules: ClassVar[tuple[Rule, ...]] = (exactly_one("an entry of envFrom", "secretRef", "configMapRef"),)

    prefix: VariableName | None = Field(
        default=None, description="Put before each key. Default: the keys as they are."
    )
    secret_ref: ObjectReference | None = Field(default=None, description="The Secret.")
    config_map_ref: ObjectReference | None = Field(default=None, description="The ConfigMap.")


class KeyFile(ApiModel):
    """A key of a Secret or ConfigMap as a file."""

    key: DataKey = Field(description="The key.")
    path: SubPath = Field(description="Path of the file inside the volume.")
    mode: FileMode | None = Field(
        default=None, description="Permissions of the file. Default: as defaultMode says."
    )


class SecretVolume(ApiModel):
    """A Secret as files."""

    secret_name: ObjectName = Field(description="Name of the Secret.")
    items: tuple[KeyFile, ...] = Field(
        default=(), max_length=50, description="The keys that become files. Default: all, by their names."
    )
    default_mode: FileMode | None = Field(
        default=None, description="Permissions of the files. Default: 420 (0644)."
    )
    optional: Boolean | None = Field(
        default=None, description="Whether pods start without it. Default: they wait for it."
    )


class ConfigMapVolume(ApiModel):
    """A ConfigMap as files."""

    name: ObjectName = Field(description="Name of the ConfigMap.")
    items: tuple[KeyFile, ...] = Field(
        default=(), max_length=50, description="The keys that become files. Default: all, by their names."
    )
    default_mode: FileMode | None = Field(
        default=None, description="Permissions of the files. Default: 420 (0644)."
    )
    optional: Boolean | None = Field(
        default=None, description="Whether pods start without it. Default: they wait for it."
    )


class Medium(StrEnum):
    """Where an emptyDir lies."""

    MEMORY = "Memory"


EmptyDirSize = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,5}(Mi|Gi)$", max_length=8)]


class EmptyDirVolume(ApiModel):
    """A folder that lives as long as the pod."""

    medium: Medium | None = Field(
        default=None, description="Memory: in the node's memory. Default: on its disk."
    )
    size_limit: EmptyDirSize | None = Field(
        default=None, description="Size in Mi or Gi at which the pod is evicted. Default: no limit."
    )


class ClaimVolume(ApiModel):
    """A PersistentVolumeClaim, which all orchestrators mount at the same time."""

    claim_name: ObjectName = Field(
        description="Name of the claim; its volume must be one that several nodes may mount."
    )
    read_only: Boolean | None = Field(
        default=None, description="Whether it is mounted read-only. Default: false."
    )


DriverName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", min_length=1, max_length=63)
]


class CsiVolume(ApiModel):
    """A volume that a CSI driver makes for the pod, such as one with the secrets of a Vault."""

    driver: DriverName = Field(description="Name of the driver.")
    read_only: Boolean | None = Field(
        default=None, description="Whether it is mounted read-only. Default: false."
    )
    volume_attributes: dict[AnyName, AnnotationText] = Field(
        default_factory=dict, max_length=50, description="What the driver is told."
    )


class Volume(ApiModel):
    """A volume of the pods, of one of the kinds that the `restricted` Pod Security Standard allows."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one("a volume", "secret", "configMap", "emptyDir", "persistentVolumeClaim", "csi"),
    )

    name: DnsLabel = Field(description="Name, by which volumeMounts refer to it.")
    secret: SecretVolume | None = Field(default=None, description="A Secret as files.")
    config_map: ConfigMapVolume | None = Field(default=None, description="A ConfigMap as files.")
    empty_dir: EmptyDirVolume | None = Field(
        default=None, description="A folder that lives as long as the pod."
    )
    persistent_volume_claim: ClaimVolume | None = Field(default=None, description="A PersistentVolumeClaim.")
    csi: CsiVolume | None = Field(default=None, description="A volume of a CSI driver.")


class VolumeMount(ApiModel):
    """Where a container sees a volume."""

    name: DnsLabel = Field(description="Name of one of spec.orchestrator.volumes.")
    mount_path: FolderPath = Field(
        description="Path inside the container, without .. and without / at the end."
    )
    sub_path: SubPath | None = Field(
        default=None, description="Folder or file inside the volume. Default: all of it."
    )
    read_only: Boolean | None = Field(
        default=None, description="Whether it is mounted read-only. Default: false."
    )


_FOLDER_CEL = " || ".join(
    f"m.mountPath == {cel_string(folder)} || m.mountPath.startsWith({cel_string(folder + '/')})"
    for folder in OPERATOR_OWNED_FOLDERS
)
MOUNT_RULES: Final = (
    Rule(
        f'!has(self.volumeMounts) || self.volumeMounts.all(m, !(m.mountPath == "/tmp" || {_FOLDER_CEL}))',
        "volumeMounts must not use a folder that the operator owns: /tmp itself, "
        + ", ".join(OPERATOR_OWNED_FOLDERS),
        lambda spec: not any(_is_reserved(mount.mount_path) for mount in spec.volume_mounts),
        ".volumeMounts",
    ),
    distinct("volumeMounts", "mountPath"),
)
ENVIRONMENT_RULES: Final = (
    owned(
        "env",
        OPERATOR_OWNED_VARIABLES,
        "env must not set a variable that the operator owns",
        lambda spec: (variable.name for variable in spec.env),
    ),
    distinct("env", "name"),
)
Environment = Annotated[tuple[Variable, ...], Field(max_length=100, json_schema_extra=map_of("name"))]
Mounts = Annotated[tuple[VolumeMount, ...], Field(max_length=20, json_schema_extra=map_of("mountPath"))]


class InitContainer(ApiModel):
    """A container that must end well before the orchestrator starts; it has an own /tmp and no other rights."""

    rules: ClassVar[tuple[Rule, ...]] = (*MOUNT_RULES, distinct("env", "name"))

    name: DnsLabel = Field(description="Name of the container.")
    image: ImageReference | None = Field(
        default=None, description="Container image. Default: the orchestrator's."
    )
    command: tuple[Text, ...] = Field(
        default=(), max_length=50, description="Program and arguments. Default: what the image says."
    )
    args: tuple[Text, ...] = Field(
        default=(), max_length=50, description="Arguments of the program. Default: what the image says."
    )
    env: Environment = Field(default=(), description="Its environment.")
    env_from: tuple[VariablesSource, ...] = Field(
        default=(), max_length=20, description="Secrets and ConfigMaps that become variables."
    )
    volume_mounts: Mounts = Field(
        default=(), description="Where it sees volumes of spec.orchestrator.volumes."
    )
    resources: ResourceRequirements = Field(
        default_factory=ResourceRequirements,
        description="CPU and memory. Default requests: 10m CPU, 32Mi memory.",
    )


class TolerationOperator(StrEnum):
    """How a toleration compares."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """Effects of taints."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(ApiModel):
    """A taint of nodes that the pods tolerate."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            'has(self.key) || (has(self.operator) && self.operator == "Exists")',
            "a toleration without key must have operator: Exists",
            lambda given: given.key is not None or given.operator is TolerationOperator.EXISTS,
        ),
        Rule(
            '!has(self.operator) || self.operator != "Exists" || !has(self.value) || self.value == ""',
            "a toleration with operator: Exists must not have a value",
            lambda given: given.operator is not TolerationOperator.EXISTS or not given.value,
        ),
        Rule(
            '!has(self.tolerationSeconds) || (has(self.effect) && self.effect == "NoExecute")',
            "a toleration with tolerationSeconds must have effect: NoExecute",
            lambda given: given.toleration_seconds is None or given.effect is TaintEffect.NO_EXECUTE,
        ),
    )

    key: AnyName | None = Field(
        default=None, description="Key of the taint. Default: any, with operator: Exists."
    )
    operator: TolerationOperator | None = Field(
        default=None, description="Exists: whatever its value. Equal: with this value. Default: Equal."
    )
    value: LabelValue | None = Field(default=None, description="Value of the taint.")
    effect: TaintEffect | None = Field(default=None, description="Effect of the taint. Default: all.")
    toleration_seconds: Integer | None = Field(
        default=None,
        ge=0,
        le=604800,
        description="Time in seconds for which a taint with NoExecute is tolerated. Default: for ever.",
    )


_AFFINITY: dict[str, Any] = {"x-kubernetes-preserve-unknown-fields": True}


class Affinity(ApiModel):
    """Affinity in the words of Kubernetes; the API server judges what is inside, and `Accepted` tells its judgement."""

    node_affinity: dict[str, Any] | None = Field(
        default=None, description="nodeAffinity of a pod.", json_schema_extra=_AFFINITY
    )
    pod_affinity: dict[str, Any] | None = Field(
        default=None, description="podAffinity of a pod.", json_schema_extra=_AFFINITY
    )
    pod_anti_affinity: dict[str, Any] | None = Field(
        default=None, description="podAntiAffinity of a pod.", json_schema_extra=_AFFINITY
    )


class Unsatisfiable(StrEnum):
    """What to do with a pod that would break a spread constraint."""

    DO_NOT_SCHEDULE = "DoNotSchedule"
    SCHEDULE_ANYWAY = "ScheduleAnyway"


class SpreadConstraint(ApiModel):
    """How the pods are spread; it selects the orchestrators of this cluster."""

    max_skew: Integer = Field(
        default=1, ge=1, le=50, description="How many more pods one domain may have than another."
    )
    topology_key: AnyName = Field(description="Label of nodes that names the domain.")
    when_unsatisfiable: Unsatisfiable = Field(
        description="DoNotSchedule: such a pod waits. ScheduleAnyway: it is only less preferred."
    )


class PullSecret(ApiModel):
    """A Secret with the login at a registry."""

    name: ObjectName = Field(description="Name of a Secret of type kubernetes.io/dockerconfigjson.")


class GroupChange(StrEnum):
    """When the group of a volume's files is changed."""

    ON_ROOT_MISMATCH = "OnRootMismatch"
    ALWAYS = "Always"


UserId = Annotated[Integer, Field(ge=1, le=2**31 - 1)]


class PodSecurity(ApiModel):
    """Users and groups of the pods; all else is what the `restricted` Pod Security Standard asks for, and stays so."""

    run_as_user: UserId | None = Field(default=None, description="User of the processes. Default: 1001.")
    run_as_group: UserId | None = Field(default=None, description="Their group. Default: 1001.")
    fs_group: UserId | None = Field(default=None, description="Group of the files in volumes. Default: 1001.")
    fs_group_change_policy: GroupChange | None = Field(
        default=None, description="When the group of a volume's files is changed. Default: OnRootMismatch."
    )
    supplemental_groups: tuple[UserId, ...] = Field(
        default=(), max_length=20, description="Further groups of the processes."
    )


def _names_hold(given: Iterable[str], longest: int) -> bool:
    return all(len(name) <= longest and re.fullmatch(ANNOTATION_NAME_PATTERN, name) for name in given)


def _names_of(field: str, attribute: str, longest: int = 317) -> Rule:
    return Rule(
        f"!has(self.{field}) || self.{field}.all(name, name.size() <= {longest} "
        f"&& name.matches({cel_string(ANNOTATION_NAME_PATTERN)}))",
        f"{field} must have names like example.com/name: a DNS name in lower case and a slash, both may be left "
        "out, then at most 63 letters, digits, -, _ or .",
        lambda spec: _names_hold(getattr(spec, attribute), longest),
        f".{field}",
    )


def _no_prefix(field: str, *prefixes: str) -> Rule:
    told = " || ".join(f"name.startsWith({cel_string(prefix)})" for prefix in prefixes)
    return Rule(
        f"!has(self.{field}) || self.{field}.all(name, !({told}))",
        f"{field} must not start with {' or '.join(prefixes)}: those belong to the operator",
        lambda spec: not any(name.startswith(prefixes) for name in getattr(spec, field)),
        f".{field}",
    )


_OWN_PREFIX: Final = f"{names.API_GROUP}/"


class Placement(ApiModel):
    """On which nodes pods may run. A change renews them, one at a time."""

    rules: ClassVar[tuple[Rule, ...]] = (_names_of("nodeSelector", "node_selector", MAX_LABEL_NAME_LENGTH),)

    node_selector: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, max_length=20, description="Labels that a node must have."
    )
    tolerations: tuple[Toleration, ...] = Field(
        default=(), max_length=20, description="Taints of nodes that the pods tolerate."
    )


class PodTemplate(ApiModel):
    """What the orchestrators' pods have beside what the operator decides. A change renews them, one at a time."""

    rules: ClassVar[tuple[Rule, ...]] = (
        _names_of("labels", "labels"),
        _no_prefix("labels", _OWN_PREFIX, "app.kubernetes.io/"),
        _names_of("annotations", "annotations"),
        _no_prefix("annotations", _OWN_PREFIX, "kubectl.kubernetes.io/"),
        _names_of("nodeSelector", "node_selector"),
        distinct("topologySpreadConstraints", "topologyKey", "whenUnsatisfiable"),
        distinct("imagePullSecrets", "name"),
    )

    labels: dict[LabelName, LabelValue] = Field(
        default_factory=dict, max_length=50, description="Further labels of the pods."
    )
    annotations: dict[LabelName, AnnotationText] = Field(
        default_factory=dict, max_length=50, description="Further annotations of the pods."
    )
    node_selector: dict[LabelName, LabelValue] = Field(
        default_factory=dict, max_length=50, description="Labels that a node must have."
    )
    tolerations: tuple[Toleration, ...] = Field(
        default=(), max_length=50, description="Taints of nodes that the pods tolerate."
    )
    affinity: Affinity | None = Field(
        default=None, description="Which nodes, and which other pods' company, the pods ask for."
    )
    priority_class_name: ObjectName | None = Field(
        default=None, description="PriorityClass of the pods. Default: the default class."
    )
    topology_spread_constraints: tuple[SpreadConstraint, ...] = Field(
        default=(),
        max_length=10,
        description="How the pods are spread, beside the operator's own: over nodes and zones as far as there are "
        "any. One of the same topologyKey and whenUnsatisfiable takes the place of the operator's.",
        json_schema_extra=map_of("topologyKey", "whenUnsatisfiable"),
    )
    service_account_name: ObjectName | None = Field(
        default=None,
        description="An existing ServiceAccount, such as one with an identity of a cloud. The operator gives it the "
        "rights of the ha-agent. Default: one that the operator makes.",
    )
    image_pull_secrets: tuple[PullSecret, ...] = Field(
        default=(),
        max_length=10,
        description="Secrets with the login at registries, beside those of spec.imagePullSecrets.",
        json_schema_extra=map_of("name"),
    )
    security_context: PodSecurity = Field(
        default_factory=PodSecurity, description="Users and groups of the pods."
    )


def mounts_exist(spec: Any) -> bool:
    """Whether each mount of the orchestrator and of its init containers names one of the volumes."""
    there = {volume.name for volume in spec.volumes}
    asked = [*spec.volume_mounts, *(mount for item in spec.init_containers for mount in item.volume_mounts)]
    return all(mount.name in there for mount in asked)


POD_RULES: Final = (
    *ENVIRONMENT_RULES,
    *MOUNT_RULES,
    owned(
        "volumes",
        OPERATOR_OWNED_VOLUMES,
        "volumes must not have a name that the operator uses",
        lambda spec: (volume.name for volume in spec.volumes),
    ),
    distinct("volumes", "name"),
    owned(
        "initContainers",
        OPERATOR_OWNED_CONTAINERS,
        "initContainers must not have a name that the operator uses",
        lambda spec: (item.name for item in spec.init_containers),
    ),
    distinct("initContainers", "name"),
    Rule(
        "(!has(self.volumeMounts) || self.volumeMounts.all(m, has(self.volumes) && "
        "self.volumes.exists(v, v.name == m.name))) && (!has(self.initContainers) || "
        "self.initContainers.all(c, !has(c.volumeMounts) || c.volumeMounts.all(m, has(self.volumes) && "
        "self.volumes.exists(v, v.name == m.name))))",
        "volumeMounts must name a volume of spec.orchestrator.volumes",
        mounts_exist,
        ".volumeMounts",
    ),
)
