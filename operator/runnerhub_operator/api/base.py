"""What all API models share: frozen values, strict fields, camelCase on the wire, rules that span fields."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

from ..quantities import quantity

RULES = "x-kubernetes-validations"


@dataclass(frozen=True, slots=True)
class Rule:
    """A constraint that plain JSON Schema cannot say, once in CEL for the API server and once for the operator.

    `field`: path of the field to blame, such as `.replicas`, inside the object that carries the rule. `holds` gets
    that object, whose other constraints hold already. `cel` is empty where the schema itself says it.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool]
    field: str = ""

    def as_validation(self) -> dict[str, str]:
        """As an entry of x-kubernetes-validations."""
        entry = {"rule": self.cel, "message": self.message}
        return entry | {"fieldPath": self.field} if self.field else entry


def cel_string(text: str) -> str:
    """A text as a CEL literal; JSON's escapes are CEL's too."""
    return json.dumps(text)


def _with_rules(schema: JsonDict, model: type[BaseModel]) -> None:
    rules: tuple[Rule, ...] = getattr(model, "rules", ())
    if any(rule.cel for rule in rules):
        schema[RULES] = [{**rule.as_validation()} for rule in rules if rule.cel]


class ApiModel(BaseModel):
    """Base of every object of the API. Unknown fields are errors, as in `kubectl apply` with strict validation."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="forbid",
        json_schema_extra=_with_rules,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        """The API server drops a null, so that a field gets its default; so does the operator."""
        if isinstance(data, Mapping):
            return {
                key: value for key, value in data.items() if value is not None or key not in _wire_names(cls)
            }
        return data

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        broken = [rule.message for rule in self.rules if not rule.holds(self)]
        if broken:
            raise ValueError("; ".join(broken))
        return self


@functools.cache
def _wire_names(model: type[ApiModel]) -> frozenset[str]:
    return frozenset(info.alias or name for name, info in model.model_fields.items())


# Only amounts that Kubernetes keeps as they are, so that nothing is written twice: whole thousandths of a core, and
# bytes whose thousandths fit into 63 bits when there is a fraction. No exponents.
# Source: k8s.io/apimachinery/pkg/api/resource
CPU_PATTERN = r"^([1-9][0-9]{0,5}m|[1-9][0-9]{0,5}(\.[0-9]{1,3})?|0\.(00[1-9]|0[1-9][0-9]?|[1-9][0-9]{0,2}))$"
MEMORY_PATTERN = (
    r"^([1-9][0-9]{0,14}|([1-9][0-9]{0,5}|(0|[1-9][0-9]{0,2})\.[0-9]{1,3})(k|Ki|M|Mi|G|Gi|T|Ti))$"
)
STORAGE_PATTERN = r"^[1-9][0-9]{0,5}(Mi|Gi|Ti)$"
DNS_SUBDOMAIN_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
# Source: https://pkg.go.dev/github.com/distribution/reference, with the hash functions that registries use.
IMAGE_PATTERN = (
    r"^([a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?(:[0-9]{1,5})?/)?"
    r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*"
    r"(:[a-zA-Z0-9_][-a-zA-Z0-9_.]{0,127})?(@sha256:[a-f0-9]{64})?$"
)
# CEL knows networks only from Kubernetes 1.31 on, so the pattern says all: IPv4, or IPv6 without an IPv4 part, and the
# length of the prefix. Bits behind the prefix are ignored, as HAProxy and Kubernetes do.
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_GROUP = "[0-9a-f]{1,4}"
_SHORTENED = "|".join(f"({_GROUP}:){{1,{left}}}(:{_GROUP}){{1,{7 - left}}}" for left in range(1, 7))
NETWORK_PATTERN = (
    rf"^({_OCTET}(\.{_OCTET}){{3}}/(3[0-2]|[12]?[0-9])"
    rf"|(({_GROUP}:){{7}}{_GROUP}|({_GROUP}:){{1,7}}:|{_SHORTENED}|:((:{_GROUP}){{1,7}}|:))"
    r"/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))$"
)
# Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/annotations/
ANNOTATION_NAME_PATTERN = (
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
    r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)
# Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
LABEL_VALUE_PATTERN = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
# Kubernetes allows 253 characters before the slash; nobody uses them, and CEL counts what could be there.
MAX_LABEL_NAME_LENGTH = 127


# JSON tells 3 from "3" and true, and so does the API server; 3.0 it stores as 3 where it takes it.
Integer = StrictInt
Boolean = StrictBool
Cpu = Annotated[str, StringConstraints(pattern=CPU_PATTERN, max_length=10)]
Memory = Annotated[str, StringConstraints(pattern=MEMORY_PATTERN, max_length=15)]
StorageSize = Annotated[str, StringConstraints(pattern=STORAGE_PATTERN, max_length=8)]
ObjectName = Annotated[str, StringConstraints(pattern=DNS_SUBDOMAIN_PATTERN, min_length=1, max_length=253)]
Network = Annotated[str, StringConstraints(pattern=NETWORK_PATTERN, max_length=43)]
ImageReference = Annotated[str, StringConstraints(pattern=IMAGE_PATTERN, min_length=1, max_length=255)]
LabelKey = Annotated[str, StringConstraints(max_length=MAX_LABEL_NAME_LENGTH)]
LabelName = Annotated[
    str,
    StringConstraints(pattern=ANNOTATION_NAME_PATTERN, min_length=1, max_length=MAX_LABEL_NAME_LENGTH),
]
LabelValue = Annotated[str, StringConstraints(pattern=LABEL_VALUE_PATTERN, max_length=63)]


def _memory_is_enough(given: ResourceList) -> bool:
    return given.memory is None or quantity(given.memory) >= quantity(LEAST_MEMORY)


# With less no container starts.
LEAST_MEMORY = "16Mi"


class ResourceList(ApiModel):
    """Amounts of CPU and memory."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f'!has(self.memory) || quantity(self.memory).compareTo(quantity("{LEAST_MEMORY}")) >= 0',
            f"memory must be at least {LEAST_MEMORY}",
            _memory_is_enough,
            ".memory",
        ),
    )

    cpu: Cpu | None = Field(
        default=None,
        description="CPU in cores with up to three decimals, or in thousandths of a core with the suffix m, such as "
        "500m; above 0.",
    )
    memory: Memory | None = Field(
        default=None,
        description="Memory in bytes, or with one of the suffixes k, Ki, M, Mi, G, Gi, T, Ti, such as 512Mi; at least "
        f"{LEAST_MEMORY}.",
    )


def _not_above(resource: str) -> Rule:
    def holds(given: ResourceRequirements) -> bool:
        asked = getattr(given.requests, resource, None)
        limit = getattr(given.limits, resource, None)
        return asked is None or limit is None or quantity(asked) <= quantity(limit)

    return Rule(
        f"!has(self.requests) || !has(self.requests.{resource}) || !has(self.limits) || !has(self.limits.{resource}) "
        f"|| quantity(self.requests.{resource}).compareTo(quantity(self.limits.{resource})) <= 0",
        f"requests.{resource} must not be above limits.{resource}",
        holds,
        f".requests.{resource}",
    )


class ResourceRequirements(ApiModel):
    """CPU and memory that a container asks for, and its limits. A change renews the pods, one at a time."""

    rules: ClassVar[tuple[Rule, ...]] = (_not_above("cpu"), _not_above("memory"))

    requests: ResourceList | None = Field(
        default=None, description="What the scheduler reserves on a node; what is left out has a default."
    )
    limits: ResourceList | None = Field(
        default=None,
        description="What the container cannot exceed: CPU is throttled, memory ends it. Default: no limit.",
    )


def _at_least(size: str) -> Rule:
    return Rule(
        f'quantity(self.size).compareTo(quantity("{size}")) >= 0',
        f"size must be at least {size}",
        lambda storage: quantity(storage.size) >= quantity(size),
        ".size",
    )


IMMUTABLE_CLASS = "storage.storageClassName is immutable; create a new cluster to change it"


class Storage(ApiModel):
    """The volume of each Postgres member."""

    rules: ClassVar[tuple[Rule, ...]] = (_at_least("1Gi"),)

    size: StorageSize = Field(
        default="10Gi",
        description="Size of each member's volume in Mi, Gi or Ti, such as 20Gi; at least 1Gi. It may grow while the "
        "cluster works, if the StorageClass allows it, and never shrink. It also sizes the write-ahead log that is "
        "kept.",
    )
    storage_class_name: ObjectName | None = Field(
        default=None,
        description="StorageClass of the volumes. Default: the default class of the Kubernetes cluster.",
        json_schema_extra={RULES: [{"rule": "self == oldSelf", "message": IMMUTABLE_CLASS}]},
    )


class QueueStorage(Storage):
    """The volume of each Redis pod."""

    rules: ClassVar[tuple[Rule, ...]] = (_at_least("256Mi"),)

    size: StorageSize = Field(
        default="5Gi",
        description="Size of each pod's volume in Mi, Gi or Ti, such as 5Gi; at least 256Mi. It may grow while the "
        "cluster works, if the StorageClass allows it, and never shrink. It holds the append-only file.",
    )
