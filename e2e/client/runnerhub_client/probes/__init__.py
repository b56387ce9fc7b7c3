"""The probes: each writes its own log and never ends because of its target."""
