"""Benches: what the operator costs, and how fast it is."""
