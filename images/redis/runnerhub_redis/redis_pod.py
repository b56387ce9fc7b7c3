"""The redis container: decides the role, runs Redis, hands mastership over before it stops."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from types import FrameType

from . import aof, deposed, hang, live, readdress, snapshots, standing, state_server, volume
from .config import PRIORITY_IN_STEP, PRIORITY_LAST_RESORT, redis_configuration
from .decision import (
    LAST_RESORT_SECONDS,
    HandOver,
    PeerState,
    StartMaster,
    StartReplica,
    Volume,
    decide,
    is_last_resort,
)
from .files import write_private
from .handover import hand_over, request_failover
from .history import has_diverged
from .log import log
from .network import LOCAL, NO_ANSWER, Resolver, ask_states, replication_of
from .resp import Connection
from .settings import PORT_REDIS, Settings
from .start import gather, redis_role

WATCH_SECONDS = 0.3
STOP_SECONDS = 15.0
SAVE_AGAIN_SECONDS = 5.0
ANSWER_SECONDS = 5.0
GIVING_WAY_SECONDS = 5.0
ENDED_SECONDS = 0.5


class RedisPod:
    """One life of the container: it ends when Redis ends, and the kubelet starts the next one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._resolver = Resolver(settings)
        self._server: subprocess.Popen[bytes] | None = None
        self._wake = threading.Event()
        self._terminating = False
        # Redis has ended, or was told to.
        self._stopped = False
        self._configuration = live.Configuration(settings)
        self._mastership = deposed.Watch(settings, self._resolver.addresses, self._watch_return)

    def run(self) -> int:
        """Run until Redis ends or the pod is stopped; return the exit code."""
        os.umask(0o077)
        signal.signal(signal.SIGTERM, self._terminate)
        signal.signal(signal.SIGINT, self._terminate)
        state_server.serve(
            self._settings,
            lambda: self._server is not None,
            lambda: {"configuration": self._configuration.applied, "onDisk": self._mastership.on_disk},
        )
        threading.Thread(target=self._start, daemon=True).start()
        self._wake.wait()
        if self._server is None:
            # Without a signal the start failed; its traceback is in the log.
            log("stopping before Redis was started", terminating=self._terminating)
            return 0 if self._terminating else 1
        if self._terminating:
            return self._stop(self._server)
        code = self._server.wait()
        log("Redis has ended", code=code)
        self._last_will()
        return code if code > 0 else 1

    def _last_will(self) -> None:
        """Have another promoted at once when the master died: the kubelet may take its time with the restart."""
        addresses = self._resolver.addresses()
        if isinstance(decide(gather(self._settings, addresses, own_redis=False, waited=0.0)), HandOver):
            request_failover(self._settings, addresses)

    def _terminate(self, _signal: int, _frame: FrameType | None) -> None:
        self._terminating = True
        self._wake.set()

    def _start(self) -> None:
        try:
            descriptor = volume.lock(self._settings.paths.redis_data)
            volume.tidy(self._settings.paths)
            # A start that did not get as far as to serve has found something that it could not load.
            aof.mend(self._settings.paths, all_of_it=self._settings.paths.starting.exists())
            decision, address = redis_role(self._settings, self._resolver)
            if self._terminating:
                return
            state = volume.inspect(self._settings.paths)
            if isinstance(decision, StartMaster):
                # Noted before the first write: from here on this volume may hold the only copy.
                volume.mark_complete(self._settings.paths)
            master = decision.master if isinstance(decision, StartReplica) else None
            if master is not None:
                self._save_before(master, descriptor)
            # Before the configuration, so that what changes in between is not taken for done.
            users = live.Access(self._settings, PORT_REDIS, live.redis_access, self._resolver.addresses)
            configuration = redis_configuration(
                self._settings,
                announce=address,
                master=master,
                static=self._settings.paths.configuration / "redis.conf",
            )
            write_private(self._settings.paths.redis_configuration, configuration)
            self._configuration.begin()
            with suppress(OSError):  # the volume may be full
                self._settings.paths.starting.touch()
            self._server = subprocess.Popen(
                ["redis-server", str(self._settings.paths.redis_configuration)], pass_fds=(descriptor,)
            )
            if master is not None:
                threading.Thread(target=self._watch_promotability, args=(state,), daemon=True).start()
            moved = readdress.Watch(self._settings, self._resolver.addresses(), self._resolver.looked_up)
            hanging = hang.Watch(self._settings, self._resolver.addresses, self._server.kill)
            for watch in (self._mastership.run, self._configuration.run, users.run, moved.run):
                threading.Thread(target=watch, args=(self._goes_on,), daemon=True).start()
            # Also while mastership is handed over.
            threading.Thread(target=hanging.run, args=(lambda: not self._stopped,), daemon=True).start()
            self._server.wait()
        finally:
            self._stopped = True
            self._wake.set()

    def _save_before(self, master: str, descriptor: int) -> None:
        """Save what this pod had of its own when it was master last: a copy of the other one's data replaces it."""
        paths = self._settings.paths
        own = standing.read(paths)
        if own is None or not own.was_master or not has_diverged(own.info, self._answer_of(master)):
            return
        offset, ends = int(own.info["master_repl_offset"]), time.monotonic() + snapshots.SAVE_SECONDS
        while not self._terminating:
            try:
                saved = snapshots.save_at_rest(paths, offset, descriptor)
            except snapshots.NotSavedError as error:
                if time.monotonic() > ends:
                    snapshots.tell_unsaved(paths, offset, str(error))
                    break
                log("the data of this former master is not saved yet", error=str(error))
                time.sleep(SAVE_AGAIN_SECONDS)
            else:
                log("what this former master had of its own is saved", master=master, saved=saved.name)
                break
        else:
            return
        # Another life would save the same again.
        with suppress(OSError):
            standing.note_saved(paths)

    def _answer_of(self, master: str) -> Mapping[str, str]:
        """INFO replication of a master that may be starting too; empty when it does not answer for long."""
        ends = time.monotonic() + ANSWER_SECONDS
        while not (info := replication_of(self._settings, master)):
            if self._terminating or time.monotonic() > ends:
                break
            time.sleep(WATCH_SECONDS)
        return info

    def _watch_promotability(self, state: Volume) -> None:
        """Allow the promotion of this replica once it is in step with the master."""
        started = time.monotonic()
        in_step, last_resort = False, state is not Volume.COMPLETE
        while self._server is not None and self._server.poll() is None:
            try:
                with self._connect() as connection:
                    info = connection.info("replication")
                    is_master = info["role"] == "master"
                    linked = is_master or info["master_link_status"] == "up"
                    if linked:
                        if not in_step:
                            connection.call("CONFIG", "SET", "replica-priority", str(PRIORITY_IN_STEP))
                            log("in step with the master; this replica may be promoted")
                            in_step = True
                        if standing.is_on_disk(connection):
                            volume.mark_complete(self._settings.paths)
                            return
                # Another connection: to ask pods that do not answer takes as long as one may be used.
                waits = not (linked or in_step or last_resort)
                if waits and self._is_last_resort(time.monotonic() - started):
                    with self._connect() as connection:
                        connection.call("CONFIG", "SET", "replica-priority", str(PRIORITY_LAST_RESORT))
                    last_resort = True
                    log("no master for long; this replica may be promoted as a last resort")
            except (*NO_ANSWER, RuntimeError):
                # Redis is starting or loading, the volume is full, or there are too few threads; it is asked again.
                pass
            time.sleep(WATCH_SECONDS)

    def _connect(self) -> Connection:
        return Connection(LOCAL, PORT_REDIS, self._settings.redis_login, deadline_seconds=1.0)

    def _is_last_resort(self, waited: float) -> bool:
        if waited < LAST_RESORT_SECONDS:
            return False
        settings, paths = self._settings, self._settings.paths
        hosts = {n: host for n, host in self._resolver.addresses().items() if n != settings.ordinal}
        own = PeerState(settings.ordinal, volume.inspect(paths), running=True, standing=standing.read(paths))
        return is_last_resort(settings.ordinal, settings.replicas, [own, *ask_states(hosts)], waited)

    def _goes_on(self) -> bool:
        server = self._server
        return server is not None and server.poll() is None and not self._terminating

    def _watch_return(self) -> None:
        """Allow the promotion of this pod, which was master, once it is in step with the one after it."""
        threading.Thread(target=self._watch_promotability, args=(Volume.COMPLETE,), daemon=True).start()

    def _stop(self, server: subprocess.Popen[bytes]) -> int:
        # What a former master saves would end with Redis.
        self._mastership.busy.acquire(timeout=GIVING_WAY_SECONDS)
        try:
            hand_over(self._settings, self._resolver.addresses())
        except NO_ANSWER as error:
            log("stopping without a hand-over", error=str(error))
            with suppress(subprocess.TimeoutExpired):
                # It may have hung, and have been ended.
                server.wait(ENDED_SECONDS)
                self._last_will()
        finally:
            self._stopped = True
            server.terminate()
        try:
            return server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            log("Redis does not stop; it is left to the kubelet")
            return 1
