"""Faults of the primary's node."""

from __future__ import annotations

from contextlib import contextmanager

from . import mend
from .arena import Arena, Before
from .fault import Break


@contextmanager
def freeze(arena: Arena, before: Before) -> Break:
    """Stop every process of the node, and let them go on later as if nothing had been."""
    engine, node = arena.bed.cluster.engine, before.primary.node
    try:
        engine.output("pause", node)
        yield
    finally:
        if node in arena.bed.cluster.nodes("paused"):
            engine.output("unpause", node)


@contextmanager
def kill(arena: Arena, before: Before) -> Break:
    """Cut the node's power, and start it again; with podman it comes back with another address."""
    engine, node = arena.bed.cluster.engine, before.primary.node
    try:
        engine.output("kill", node)
        yield
    finally:
        if node not in arena.bed.cluster.nodes("running"):
            engine.output("start", node)


@contextmanager
def partition(arena: Arena, before: Before) -> Break:
    """Cut the node off from all others; what runs on it can talk among itself, as the engine can to it."""
    node = before.primary.node
    try:
        mend.cut_off(arena.bed, node)
        yield
    finally:
        mend.connect_again(arena.bed, node)
