"""The planner: a pure function from a cluster and a snapshot to what should be done.

plan(cluster, snapshot, memory) gives the desired objects in order, actions, status and Events. It reads no clock and
talks to nobody.
"""

from .planner import ClusterMemory, Plan, make_plan, rejected_status
from .rollout import LastStep
from .volumes import refusal_of, refusal_text

__all__ = [
    "ClusterMemory",
    "LastStep",
    "Plan",
    "make_plan",
    "refusal_of",
    "refusal_text",
    "rejected_status",
]
