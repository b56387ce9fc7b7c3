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
def power_off(arena: Arena, before: Before) -> Break:
    """Cut the power of all members' nodes at once, and start them again, that of the primary last."""
    engine, last = arena.bed.cluster.engine, before.primary.node
    others = sorted({member.node for member in before.members} - {last})
    try:
        engine.output("kill", last, *others)
        engine.output("start", *others)
        yield
    finally:
        running = arena.bed.cluster.nodes("running")
        if left := [node for node in (*others, last) if node not in running]:
            engine.output("start", *left)


@contextmanager
def partition(arena: Arena, before: Before) -> Break:
    """Cut the node off from all others; what runs on it can talk among itself, as the engine can to it."""
    node = before.primary.node
    try:
        mend.cut_off(arena.bed, node)
        yield
    finally:
        mend.connect_again(arena.bed, node)
