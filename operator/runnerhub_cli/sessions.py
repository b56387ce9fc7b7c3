"""Command lines of what kubectl does in the cluster's pods: logs, psql, redis-cli. Pure.

No password is part of one: psql is let in as the user that owns the database's files, on the socket in the pod, and
redis-cli is started by a shell in the pod, which reads the password from a file there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from runnerhub_operator import names
from runnerhub_operator.resources.patroni import RUN_DIRECTORY, SUPERUSER
from runnerhub_operator.resources.redis import CREDENTIALS_PATH

from .errors import CliError, Exit
from .objects import Pod
from .picture import COMPONENTS, Picture, View

OPERATOR: Final = "operator"
LOG_COMPONENTS: Final = (*COMPONENTS, OPERATOR)
ALL_CONTAINERS: Final = "all"
# What kubectl opens at most at a time; each pod and container is one.
_MAX_STREAMS: Final = 100


@dataclass(frozen=True, slots=True)
class Session:
    """Words for kubectl; `note` is told first, on standard error."""

    words: tuple[str, ...]
    note: str = ""


# --- Logs ---


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What of the logs is wanted. `container` None: all. `since` as kubectl takes it, such as 10m."""

    container: str | None = None
    follow: bool = False
    since: str | None = None
    tail: int | None = None
    prefix: bool = True
    timestamps: bool = False
    previous: bool = False


def log_words(selector: str, pods: Sequence[Pod], options: LogOptions, what: str) -> list[str]:
    """kubectl's words for the logs of all pods that a selector finds; `pods` are those that there are now."""
    if not pods:
        raise CliError(f"there is no pod of {what}")
    containers = sorted({name for pod in pods for name in pod.containers})
    chosen = options.container
    if chosen is not None and chosen != ALL_CONTAINERS and chosen not in containers:
        raise CliError(
            f"pods of {what} have no container {chosen}; there are: {', '.join(containers)}, or {ALL_CONTAINERS}"
        )
    words = ["logs", "--selector", selector, f"--max-log-requests={_MAX_STREAMS}"]
    words += ["--all-containers"] if chosen in (None, ALL_CONTAINERS) else ["--container", str(chosen)]
    # With a selector kubectl gives ten lines of each unless it is told otherwise.
    words.append(f"--tail={-1 if options.tail is None else options.tail}")
    words += ["--follow"] if options.follow else []
    words += [f"--since={options.since}"] if options.since is not None else []
    words += ["--prefix"] if options.prefix else []
    words += ["--timestamps"] if options.timestamps else []
    words += ["--previous"] if options.previous else []
    # A container that has not started, or was never restarted, must not hide the others.
    return [*words, "--ignore-errors"]


# --- Programs ---


def psql(view: View, arguments: Sequence[str], *, read_only: bool, terminal: bool) -> Session:
    """psql in the primary's pod, as the superuser.

    `read_only`: in the pod of the replica that is least behind, which cannot write; without one in the primary's, where
    transactions begin as read-only ones.
    """
    primary = view.status.postgres.primary
    running = {pod.name for pod in view.picture.pods if pod.component == names.POSTGRES and pod.ready}
    command = ["psql", "-h", RUN_DIRECTORY, "-U", SUPERUSER, "-d", names.DATABASE_NAME, *arguments]
    if not read_only:
        if primary is None:
            raise CliError(
                "there is no Postgres primary now; --read-only reads from a replica, `kubectl runnerhub status` tells "
                "what is going on",
                Exit.CRITICAL,
            )
        return Session(_exec(primary, names.POSTGRES, command, terminal=terminal), f"{primary}, the primary")
    replicas = [
        item
        for item in view.status.postgres.instances
        if item.name in running and item.name != primary and item.state == "streaming"
    ]
    guarded = ["env", "PGOPTIONS=-c default_transaction_read_only=on", *command]
    if replicas:
        # One of which it is not known how far it is behind comes last.
        best = min(replicas, key=lambda item: (item.lag_bytes is None, item.lag_bytes or 0, item.name))
        words = _exec(best.name, names.POSTGRES, guarded, terminal=terminal)
        return Session(words, f"{best.name}, a replica: it cannot write")
    if primary is None:
        raise CliError("there is neither a Postgres primary nor a replica that streams now", Exit.CRITICAL)
    note = f"{primary}, the primary, because no replica streams; transactions are read-only unless told otherwise"
    return Session(_exec(primary, names.POSTGRES, guarded, terminal=terminal), note)


def redis_cli(view: View, arguments: Sequence[str], *, sentinel: bool, terminal: bool) -> Session:
    """redis-cli in the master's pod, or with `sentinel` that of a Sentinel beside it."""
    pod = view.status.redis.master
    if pod is None and sentinel:
        ready = (item.name for item in view.picture.pods if item.component == names.REDIS and item.ready)
        pod = next(ready, names.member(view.picture.name, names.REDIS, 0))
    if pod is None:
        raise CliError(
            "there is no Redis master now; `kubectl runnerhub redis-cli --sentinel` asks a Sentinel",
            Exit.CRITICAL,
        )
    container, port = ("sentinel", names.PORT_SENTINEL) if sentinel else ("redis", names.PORT_REDIS)
    # redis-cli reads the password from its environment, where `ps` does not show it, in the pod either.
    user = names.REDIS_OPERATOR_USER
    script = f'REDISCLI_AUTH="$(cat {CREDENTIALS_PATH}/{user}-password)" exec redis-cli --user {user} -p {port} "$@"'
    command = ["sh", "-c", script, "redis-cli", *arguments]
    note = f"{pod}, the Sentinel there" if sentinel else f"{pod}, the master"
    return Session(_exec(pod, container, command, terminal=terminal), note)


def _exec(pod: str, container: str, command: Sequence[str], *, terminal: bool) -> tuple[str, ...]:
    way = ["--stdin", "--tty"] if terminal else ["--stdin"]
    return ("exec", *way, pod, "--container", container, "--", *command)


def members(picture: Picture) -> list[str]:
    """Names of the pods of the database."""
    return [pod.name for pod in picture.pods if pod.component == names.POSTGRES]
