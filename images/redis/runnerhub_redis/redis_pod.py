"""The redis container: decides the role, runs Redis, hands mastership over before it stops."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from types import FrameType

from . import state_server, volume
from .config import REPLICA_PRIORITY, redis_configuration
from .decision import StartMaster, StartReplica, Volume
from .handover import hand_over
from .log import log
from .network import LOCAL, NO_ANSWER, Resolver
from .resp import Connection
from .settings import PORT_REDIS, Settings
from .start import redis_role

WATCH_SECONDS = 0.3
STOP_SECONDS = 15.0


class RedisPod:
    """One life of the container: it ends when Redis ends, and the kubelet starts the next one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._resolver = Resolver(settings)
        self._server: subprocess.Popen[bytes] | None = None
        self._wake = threading.Event()
        self._terminating = False

    def run(self) -> int:
        """Run until Redis ends or the pod is stopped; return the exit code."""
        os.umask(0o077)
        signal.signal(signal.SIGTERM, self._terminate)
        signal.signal(signal.SIGINT, self._terminate)
        state_server.serve(self._settings, lambda: self._server is not None)
        threading.Thread(target=self._start, daemon=True).start()
        self._wake.wait()
        if self._server is None:
            # Without a signal the start failed; its traceback is in the log.
            log("stopping before Redis was started", terminating=self._terminating)
            return 0 if self._terminating else 1
        if self._terminating:
            return self._stop(self._server)
        code = self._server.wait()
        log("Redis ended by itself", code=code)
        return code if code > 0 else 1

    def _terminate(self, _signal: int, _frame: FrameType | None) -> None:
        self._terminating = True
        self._wake.set()

    def _start(self) -> None:
        try:
            descriptor = volume.lock(self._settings.paths.redis_data)
            decision, address = redis_role(self._settings, self._resolver)
            if self._terminating:
                return
            state = volume.inspect(self._settings.paths)
            if isinstance(decision, StartMaster):
                # Noted before the first write: from here on this volume may hold the only copy.
                volume.mark_complete(self._settings.paths)
            master = decision.master if isinstance(decision, StartReplica) else None
            configuration = redis_configuration(
                self._settings,
                announce=address,
                master=master,
                promotable=master is None or state is Volume.COMPLETE,
                static=self._settings.paths.configuration / "redis.conf",
            )
            volume.write_private(self._settings.paths.redis_configuration, configuration)
            self._server = subprocess.Popen(
                ["redis-server", str(self._settings.paths.redis_configuration)], pass_fds=(descriptor,)
            )
            if master is not None and state is not Volume.COMPLETE:
                threading.Thread(target=self._await_first_synchronisation, daemon=True).start()
            self._server.wait()
        finally:
            self._wake.set()

    def _await_first_synchronisation(self) -> None:
        """Allow the promotion of this replica once it holds the master's data."""
        while self._server is not None and self._server.poll() is None:
            try:
                if self._synchronised():
                    return
            except NO_ANSWER:
                # Redis is starting or loading; it is asked again.
                pass
            time.sleep(WATCH_SECONDS)

    def _synchronised(self) -> bool:
        with Connection(LOCAL, PORT_REDIS, self._settings.password, deadline_seconds=1.0) as connection:
            info = connection.info("replication")
            if info["role"] == "slave" and info["master_link_status"] != "up":
                return False
            volume.mark_complete(self._settings.paths)
            connection.call("CONFIG", "SET", "replica-priority", str(REPLICA_PRIORITY))
        log("first synchronisation done; this replica may be promoted")
        return True

    def _stop(self, server: subprocess.Popen[bytes]) -> int:
        try:
            hand_over(self._settings, self._resolver.addresses())
        except NO_ANSWER as error:
            log("stopping without a hand-over", error=str(error))
        server.terminate()
        try:
            return server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            log("Redis does not stop; it is left to the kubelet")
            return 1
