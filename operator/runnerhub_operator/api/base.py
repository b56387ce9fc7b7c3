"""What all API models share: frozen values, strict fields, camelCase on the wire."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel


class ApiModel(BaseModel):
    """Base of every object of the API. Unknown fields are errors, as in `kubectl apply` with strict validation."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")


# Source: k8s.io/apimachinery/pkg/api/resource; no exponent form, nobody writes it.
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"
STORAGE_PATTERN = r"^[1-9][0-9]*(Mi|Gi|Ti)$"
DNS_SUBDOMAIN_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"

Quantity = Annotated[str, StringConstraints(pattern=QUANTITY_PATTERN, max_length=20)]
StorageSize = Annotated[str, StringConstraints(pattern=STORAGE_PATTERN, max_length=20)]
ObjectName = Annotated[str, StringConstraints(pattern=DNS_SUBDOMAIN_PATTERN, min_length=1, max_length=253)]
ImageReference = Annotated[
    str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._/:@-]*$", min_length=1, max_length=255)
]


class ResourceList(ApiModel):
    """Amounts of CPU and memory."""

    cpu: Quantity | None = Field(
        default=None, description="CPU, in cores or thousandths of one, such as 500m."
    )
    memory: Quantity | None = Field(default=None, description="Memory in bytes, such as 512Mi.")


class ResourceRequirements(ApiModel):
    """CPU and memory that the main container asks for, and its limits."""

    requests: ResourceList | None = Field(default=None, description="What the scheduler reserves.")
    limits: ResourceList | None = Field(default=None, description="What the container cannot exceed.")


class Storage(ApiModel):
    """The volume of each member."""

    size: StorageSize = Field(
        default="10Gi", description="Size of each member's volume, such as 10Gi. Immutable in this version."
    )
    storage_class_name: ObjectName | None = Field(
        default=None,
        description="StorageClass of the volumes. Default: the cluster's default class. Immutable.",
    )


class QueueStorage(Storage):
    """The volume of each Redis pod."""

    size: StorageSize = Field(
        default="5Gi", description="Size of each pod's volume, such as 5Gi. Immutable in this version."
    )
