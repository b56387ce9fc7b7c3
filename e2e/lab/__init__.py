"""What the demo and the end-to-end tests share: a kind cluster, an installed operator, load, faults, an oracle."""
