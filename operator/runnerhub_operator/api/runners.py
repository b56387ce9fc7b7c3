"""The part of the spec about runners: where they register, and the pools."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import Field, StringConstraints

from .base import (
    ANNOTATION_NAME_PATTERN,
    MAX_LABEL_NAME_LENGTH,
    ApiModel,
    ImageReference,
    Integer,
    LabelKey,
    LabelValue,
    ObjectName,
    ResourceRequirements,
    Rule,
    cel_string,
)
from .pod import Environment, Toleration, VariablesSource, distinct, owned

# A server of GitHub, and an organisation or repository there.
_GITHUB_SERVER = r"^https?://[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?(:[0-9]{1,5})?"
_GITHUB_OWNER = r"/[A-Za-z0-9][-A-Za-z0-9_.]{0,99}(/[A-Za-z0-9_.][-A-Za-z0-9_.]{0,99})?"
GITHUB_URL_PATTERN = f"{_GITHUB_SERVER}({_GITHUB_OWNER})?$"
GITHUB_OWNER_PATTERN = f"{_GITHUB_SERVER}{_GITHUB_OWNER}$"


class GithubSpec(ApiModel):
    """GitHub, where the runners register."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"!has(self.tokenSecretName) || self.url.matches({cel_string(GITHUB_OWNER_PATTERN)})",
            "github.url must name an organisation or a repository, such as https://github.com/example, because runners "
            "register there; without tokenSecretName they do not register",
            lambda spec: (
                spec.token_secret_name is None or re.fullmatch(GITHUB_OWNER_PATTERN, spec.url) is not None
            ),
            ".url",
        ),
    )

    url: Annotated[str, StringConstraints(pattern=GITHUB_URL_PATTERN, max_length=255)] = Field(
        default="https://github.com",
        description="Organisation or repository whose runners these are, such as https://github.com/example or "
        "https://github.example.com/example/app. A change renews idle runners.",
    )
    token_secret_name: ObjectName | None = Field(
        default=None,
        description="Secret in the cluster's namespace whose key `token` holds a token that may manage self-hosted "
        "runners of that organisation or repository. An image of your own in spec.orchestrator.image gets it as "
        "GITHUB_TOKEN, unless spec.orchestrator.env sets that or there is spec.orchestrator.envFrom. Default: none, "
        "then runners take jobs without being registered.",
    )


class ZoneSpread(StrEnum):
    """How the runners of a pool are spread over zones."""

    PREFERRED = "Preferred"
    REQUIRED = "Required"
    DISABLED = "Disabled"


_REGION_LABEL = "topology.kubernetes.io/region"
PoolName = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=20)]
RunnerLabel = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$", max_length=64)
]
# Every name in the environment of the runner container that the operator decides; a test holds it to the builder.
RUNNER_OWNED_VARIABLES: Final = (
    "GITHUB_TOKEN",
    "GITHUB_URL",
    "HOME",
    "ORCHESTRATOR_URL",
    "RUNNERHUB_CONTROL_KEY_FILE",
    "RUNNERHUB_TOKEN_FILE",
    "RUNNER_LABELS",
    "RUNNER_NAME",
    "RUNNER_POOL",
    "RUNNER_WORK_FOLDER",
)
MIN_RUNNERS = 0
DEFAULT_MAX_RUNNERS = 10
MAX_RUNNERS = 1000


class RunnerPoolSpec(ApiModel):
    """A pool of runners that are all alike."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"(has(self.minReplicas) ? self.minReplicas : {MIN_RUNNERS}) <= "
            f"(has(self.maxReplicas) ? self.maxReplicas : {DEFAULT_MAX_RUNNERS})",
            "runnerPools[].minReplicas must not be above maxReplicas",
            lambda pool: pool.min_replicas <= pool.max_replicas,
            ".minReplicas",
        ),
        Rule(
            f"!has(self.nodeSelector) || self.nodeSelector.all(name, name.size() <= {MAX_LABEL_NAME_LENGTH} && "
            f"name.matches({cel_string(ANNOTATION_NAME_PATTERN)}))",
            "runnerPools[].nodeSelector must have names of labels like example.com/name",
            lambda pool: all(
                len(name) <= MAX_LABEL_NAME_LENGTH and re.fullmatch(ANNOTATION_NAME_PATTERN, name)
                for name in pool.node_selector
            ),
            ".nodeSelector",
        ),
        Rule(
            f'!has(self.region) || !has(self.nodeSelector) || !("{_REGION_LABEL}" in self.nodeSelector)',
            f"runnerPools[].nodeSelector must not have {_REGION_LABEL} beside region",
            lambda pool: pool.region is None or _REGION_LABEL not in pool.node_selector,
            ".nodeSelector",
        ),
        owned(
            "env",
            RUNNER_OWNED_VARIABLES,
            "runnerPools[].env must not set a variable that the operator owns",
            lambda pool: (variable.name for variable in pool.env),
        ),
        distinct("env", "name"),
    )

    name: PoolName = Field(
        description="Name of the pool, unique in the cluster; its runners are called NAME-runner-POOL-NUMBER."
    )
    image: ImageReference | None = Field(
        default=None,
        description="Container image; any that keeps the contract of a runner works. A change replaces idle runners, "
        "one after the other, and busy ones when their job has ended. Default: the operator's own.",
    )
    labels: tuple[RunnerLabel, ...] = Field(
        default=("self-hosted",),
        min_length=1,
        max_length=20,
        description="What the runners can do. They take jobs whose labels are all among these.",
    )
    min_replicas: Integer = Field(
        default=MIN_RUNNERS,
        ge=MIN_RUNNERS,
        le=MAX_RUNNERS,
        description="Runners that are there also without jobs.",
    )
    max_replicas: Integer = Field(
        default=DEFAULT_MAX_RUNNERS, ge=1, le=MAX_RUNNERS, description="Runners that there are at most."
    )
    cool_down_seconds: Integer = Field(
        default=300,
        ge=0,
        le=86400,
        description="Time in seconds during which a number of runners was never needed before as many are stopped.",
    )
    env: Environment = Field(
        default=(),
        description="Further variables of the runners and their jobs, such as RUNNER_COMMAND, the program that runs a "
        "job, or HTTPS_PROXY; those that the operator sets are refused.",
    )
    env_from: tuple[VariablesSource, ...] = Field(
        default=(),
        max_length=20,
        description="Secrets and ConfigMaps whose keys become variables, which jobs can read; what the operator and "
        "env set comes first.",
    )
    resources: ResourceRequirements = Field(
        default_factory=ResourceRequirements,
        description="CPU and memory of the runner container, which are those of its jobs too. Default requests: 100m "
        "CPU, 128Mi memory.",
    )
    region: LabelValue | None = Field(
        default=None,
        min_length=1,
        description=f"Runners run on nodes with this value of the label {_REGION_LABEL}. Default: on any.",
    )
    node_selector: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, max_length=20, description="Labels that the nodes of the runners must have."
    )
    tolerations: tuple[Toleration, ...] = Field(
        default=(), max_length=20, description="Taints of nodes that the runners put up with."
    )
    zone_spread: ZoneSpread = Field(
        default=ZoneSpread.PREFERRED,
        description="How the runners are spread over zones. Preferred: evenly as far as nodes have room. Required: "
        "evenly, or a runner waits. Disabled: not at all.",
    )
    termination_grace_period_seconds: Integer = Field(
        default=3600,
        ge=30,
        le=604800,
        description="Time in seconds that a runner has to finish its job when its pod is deleted by others, as when "
        "its node is drained. The operator itself stops no runner that has a job.",
    )
