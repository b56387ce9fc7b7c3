"""All ways to install, each from nothing to a complete cluster and back, on a kind cluster of their own."""
