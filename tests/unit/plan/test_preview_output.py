"""The plan of a manifest as it is printed: for people, and the same for programs."""

from __future__ import annotations

import json

from runnerhub_operator import __version__
from runnerhub_operator.api import parse_cluster
from runnerhub_operator.plan.preview import Change, Preview, Restart
from runnerhub_operator.preview import data_of, text_of

CLUSTER = parse_cluster(
    {"metadata": {"name": "hub", "namespace": "here", "uid": "1"}, "spec": {"paused": True}}
)
PLAN = Preview(
    changes=(
        Change("create", "Service", "hub-redis-3"),
        Change("change", "StatefulSet", "hub-redis", ("spec.replicas",)),
    ),
    restarts=(Restart("redis", "hub-redis-2, then hub-redis-0, after it handed the role of master over"),),
    patroni=("postgresql.parameters.work_mem: 8MB",),
    waiting=("pooler",),
)


def test_programs_are_told_all_that_people_are() -> None:
    found = json.loads(json.dumps(data_of(CLUSTER, PLAN, patroni_known=True)))
    assert (found["namespace"], found["name"], found["operatorVersion"]) == ("here", "hub", __version__)
    assert (found["paused"], found["patroniKnown"]) == (True, True)
    assert found["changes"][1] == {
        "verb": "change",
        "kind": "StatefulSet",
        "name": "hub-redis",
        "paths": ["spec.replicas"],
    }
    text = text_of(CLUSTER, PLAN, patroni_known=True)
    for item in [*found["changes"], *found["restarts"]]:
        assert (item.get("name") or item["how"]) in text
    for item in [*found["patroni"], *found["waiting"]]:
        assert item in text
