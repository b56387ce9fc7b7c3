"""A pod's own Service is made again with its former address, or, where that cannot be, with another one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runnerhub_operator.act.objects import ObjectWriter
from runnerhub_operator.errors import NotFoundError, RefusedError
from runnerhub_operator.kube.client import KubeClient, ObjectRef
from runnerhub_operator.resources import redis
from runnerhub_operator.resources.common import Manifest

from .test_redis_manifests import context


class Client(KubeClient):
    """An API server that has no object, and gives no Service the address that it asks for."""

    def __init__(self) -> None:
        self.made: list[Manifest] = []

    async def get(self, ref: ObjectRef) -> Manifest:
        raise NotFoundError(f"{ref} is not there", 404)

    async def apply(self, manifest: Manifest, **_: Any) -> Manifest:
        if manifest["spec"].get("clusterIP", "None") != "None":
            raise RefusedError("spec.clusterIPs: Invalid value: provided IP is already allocated", 422)
        self.made.append(manifest)
        return manifest


async def test_an_address_that_is_taken_is_given_up() -> None:
    client = Client()
    known = replace(context(), redis_addresses={"hub-redis-0": "10.96.0.10"})
    wanted = redis.pod_service(known, 0)
    assert wanted["spec"]["clusterIP"] == "10.96.0.10"
    writer = ObjectWriter(client)
    await writer.apply(known.cluster, wanted, None)
    (made,) = client.made
    assert "clusterIP" not in made["spec"]
    assert {**made["spec"], "clusterIP": "10.96.0.10"} == wanted["spec"]
    # One that is there has its address, and a refusal has another reason.
    with pytest.raises(RefusedError):
        await writer.apply(known.cluster, wanted, {**wanted, "spec": {}})
