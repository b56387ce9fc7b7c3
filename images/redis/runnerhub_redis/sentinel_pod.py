"""The sentinel container: writes Sentinel's configuration, then runs Sentinel."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from . import live, readdress, steward, volume
from .config import (
    SentinelState,
    forget_strangers,
    parse_sentinel_state,
    sentinel_configuration,
    translated,
    with_master,
)
from .files import write_private
from .log import log
from .network import Resolver
from .settings import PORT_SENTINEL, Settings
from .start import own_address, sentinel_master

# Other pods' Services are found as fast as the own one, if they are there.
ADDRESSES_SECONDS = 2.0
POLL_SECONDS = 0.1
# Keeps Sentinel from spinning over a refused connection; see connect.c.
PRELOAD = {"LD_PRELOAD": str(Path(__file__).parents[1] / "connect.so")}


def run(settings: Settings) -> int:
    """Run Sentinel with today's settings and its memory of before, or with what the others know; the exit code."""
    os.umask(0o077)
    descriptor = volume.lock(settings.paths.sentinel_state.parent)
    resolver = Resolver(settings)
    state = remembered_state(settings)
    if state is None:
        master, address = sentinel_master(settings, resolver)
        log("watching a master for the first time", master=master)
        known = resolver.addresses()
        members = tuple(known[ordinal] for ordinal in sorted(known))
        state = SentinelState(master=master, members=members)
    else:
        address = own_address(settings, resolver)
        state = _of_today(settings, state, resolver)
        log("going on", master=state.master, config_epoch=state.config_epoch, known=len(state.known))
    path = settings.paths.sentinel_state
    users = live.Access(settings, PORT_SENTINEL, live.sentinel_access, resolver.addresses)
    try:
        write_private(path, sentinel_configuration(settings, state, announce=address))
    except OSError as error:
        if not path.exists():
            raise
        # The volume is full. Sentinel can go on with what it wrote itself; it is told today's settings while it runs.
        log("its configuration cannot be written; it starts with the last one", error=str(error))
        users.forget()
    threading.Thread(target=steward.watch, args=(settings,), daemon=True).start()
    moved = (settings, resolver, state.members)
    threading.Thread(target=readdress.end_when_moved, args=moved, daemon=True).start()
    threading.Thread(target=users.run, args=(lambda: True,), daemon=True).start()
    return _until_told(["redis-sentinel", str(path)], descriptor)


def _until_told(command: Sequence[str], descriptor: int) -> int:
    """The exit code of a process that ends by itself or as this one is told to; it inherits a descriptor."""
    told = threading.Event()
    process: subprocess.Popen[bytes] | None = None

    def end(*_: object) -> None:
        told.set()
        if process is not None:
            process.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    process = subprocess.Popen(command, env=os.environ | PRELOAD, pass_fds=(descriptor,))
    if told.is_set():  # before there was anybody to tell
        process.terminate()
    return process.wait()


def _of_today(settings: Settings, state: SentinelState, resolver: Resolver) -> SentinelState:
    """The memory without what is gone for good; as it is while not all addresses can be looked up."""
    ends = time.monotonic() + ADDRESSES_SECONDS
    while len(addresses := resolver.looked_up()) < settings.replicas:
        if time.monotonic() > ends:
            return state
        time.sleep(POLL_SECONDS)
    members = frozenset(addresses.values())
    today = translated(state, addresses)
    if today.master != state.master:
        log("the master has another address now", remembered=state.master, master=today.master)
    clean = forget_strangers(today, members)
    if len(clean.known) < len(state.known):
        log(
            "forgotten: Sentinels and replicas that are no members", count=len(state.known) - len(clean.known)
        )
    if clean.master not in members:
        master, _ = sentinel_master(settings, resolver)
        log("the master that it remembers is no member", remembered=clean.master, master=master)
        clean = with_master(clean, master)
    return clean


def remembered_state(settings: Settings) -> SentinelState | None:
    """What this Sentinel wrote last; None at the first start."""
    path = settings.paths.sentinel_state
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    state = parse_sentinel_state(text, settings.master_name)
    if state is None:
        log("the state file names no master; it is put aside", path=path)
        path.replace(path.with_suffix(".broken"))
    return state
