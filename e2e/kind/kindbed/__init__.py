"""The parts of the test bed: a real multi-node Kubernetes (kind) on one machine, with or without a registry."""
