"""The planner: a pure function from a cluster and a snapshot to what should be done.

plan(cluster, snapshot, memory) gives the desired objects in order, actions, status and Events. It reads no clock and
talks to nobody.
"""

from .planner import ClusterMemory, Plan, make_plan, rejected_status
from .rollout import LastStep

__all__ = ["ClusterMemory", "LastStep", "Plan", "make_plan", "rejected_status"]
