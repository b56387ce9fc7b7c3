"""A Kubernetes without machines: real API server and controllers; pods and what runs in them are played."""

from e2e.stage.process import OperatorProcess
from e2e.stage.stage import SYSTEM, Stage

__all__ = ["SYSTEM", "OperatorProcess", "Stage"]
