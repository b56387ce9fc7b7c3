"""A Kubernetes operator that reconciles RunnerHubCluster resources."""

__version__ = "0.1.0"
