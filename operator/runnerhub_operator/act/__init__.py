"""Acting: the only place of the operator that changes anything."""

from __future__ import annotations

import aiohttp

from ..kube.client import KubeClient
from .credentials import CredentialWriter
from .disruptions import Disruptions
from .objects import ObjectWriter
from .poolers import Poolers
from .postgres import Postgres
from .resource import ClusterResource
from .runners import RunnerPods

__all__ = ["Actor"]


class Actor:
    """Carries out the parts of a plan, each idempotent, so that a visit can be cut off anywhere.

    `reporter` names this operator in Events.
    """

    def __init__(self, client: KubeClient, http: aiohttp.ClientSession, reporter: str) -> None:
        poolers = Poolers(http)
        self.resource = ClusterResource(client, reporter)
        self.credentials = CredentialWriter(client)
        self.objects = ObjectWriter(client)
        self.postgres = Postgres(http, self.resource, poolers)
        self.disruptions = Disruptions(client, self.postgres, poolers)
        self.runners = RunnerPods(client, http)
