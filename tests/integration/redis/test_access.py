"""Users of real servers: each gets in and does its part, none does more, and passwords change under load."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from images.redis.runnerhub_redis import access, config, handover, live
from images.redis.runnerhub_redis.config import SentinelState, redis_configuration, sentinel_configuration
from images.redis.runnerhub_redis.settings import Settings
from runnerhub_operator.resources import redis as builders
from tests.integration.redis.conftest import ADDRESSES, AT_ONCE, NAME, QUICK_MILLISECONDS, Pods, wait_until
from tests.unit.redis.test_redis_manifests import context
from tests.unit.redis.test_redis_pod_configuration import write_passwords


class Clock:
    """Time that passes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Guarded:
    """Three pods whose servers have passwords, as their start programs write it."""

    def __init__(self, pods: Pods, folder: Path) -> None:
        self.pods, self.clock = pods, Clock()
        self.secret = write_passwords(folder / "secret")
        self.settings = {ordinal: self._settings(ordinal) for ordinal in ADDRESSES}
        for ordinal in ADDRESSES:
            self._start_redis(ordinal)
        # Sentinel asks a master for its replicas when it begins, and ten seconds later.
        master = self.client("operator", "the-operator-password")
        wait_until(lambda: master.info("replication")["connected_slaves"] == 2)
        for ordinal in ADDRESSES:
            self._start_sentinel(ordinal)
        # Each pod's own programs, at the pod's own address; each container remembers for itself.
        self.access = [
            live.Access(self._of(ordinal, container), port, commands, lambda: ADDRESSES)
            for ordinal in ADDRESSES
            for container, port, commands in (
                ("redis", pods.port, live.redis_access),
                ("sentinel", pods.sentinel_port, live.sentinel_access),
            )
        ]

    def _settings(self, ordinal: int) -> Settings:
        settings = self.pods.settings(ordinal)
        settings.paths.configuration.mkdir(parents=True)
        for name, text in builders.configuration_config_map(context())["data"].items():
            (settings.paths.configuration / name).write_text(text)
        return replace(
            settings,
            credentials=access.Credentials(self.secret, settings.paths.passwords("redis"), self.clock),
        )

    def _of(self, ordinal: int, container: str) -> Settings:
        settings = self.settings[ordinal]
        memory = settings.paths.passwords(container)
        return replace(settings, credentials=access.Credentials(self.secret, memory, self.clock))

    def _start_redis(self, ordinal: int) -> None:
        settings = self.settings[ordinal]
        settings.paths.redis_data.mkdir(parents=True, exist_ok=True)
        text = redis_configuration(
            settings,
            announce=ADDRESSES[ordinal],
            master=ADDRESSES[0] if ordinal else None,
            static=settings.paths.configuration / "redis.conf",
        )
        self._start("redis", ordinal, text.replace("replica-priority 0", "replica-priority 100"))

    def _start_sentinel(self, ordinal: int) -> None:
        state = SentinelState(master=ADDRESSES[0], port=self.pods.port)
        text = sentinel_configuration(self.settings[ordinal], state, announce=ADDRESSES[ordinal])
        self._start("sentinel", ordinal, text, "--sentinel")

    def _start(self, kind: str, ordinal: int, text: str, *options: str) -> None:
        path = self.settings[ordinal].paths.data / f"{kind}.conf"
        text = text.replace("bind * -::*", f"bind {ADDRESSES[ordinal]}")
        path.write_text(f"{text}bind {ADDRESSES[ordinal]}\n")
        self.pods._start(kind, ordinal, "redis-server", str(path), *options)

    def client(self, user: str, password: str, ordinal: int = 0, *, sentinel: bool = False) -> redis.Redis:
        port = self.pods.sentinel_port if sentinel else self.pods.port
        return redis.Redis(
            ADDRESSES[ordinal], port, username=user, password=password, decode_responses=True, retry=AT_ONCE
        )

    def kill_master(self, password: str) -> None:
        """And have the operator's user tell the Sentinels to take it for dead soon."""
        self.pods.processes["redis", 0].kill()
        for ordinal in ADDRESSES:
            self.client("operator", password, ordinal, sentinel=True).execute_command(
                "SENTINEL", "SET", NAME, "down-after-milliseconds", QUICK_MILLISECONDS
            )

    def lets_in(self, user: str, password: str, *, sentinel: bool = False) -> bool:
        """Whether all three do."""
        found = set()
        for ordinal in ADDRESSES:
            try:
                found.add(self.client(user, password, ordinal, sentinel=sentinel).ping())
            except redis.AuthenticationError:
                found.add(False)
        assert len(found) == 1
        return found.pop()

    def change(self, *keys: str) -> None:
        for key in keys:
            (self.secret / key).write_text(f"new-{key}")

    def look(self, monkeypatch: pytest.MonkeyPatch, but: int | None = None) -> None:
        """What each pod does every two seconds, or all but one."""
        for number, found in enumerate(self.access):
            if number // 2 != but:
                monkeypatch.setattr(live, "LOCAL", ADDRESSES[number // 2])
                found.look()


@pytest.fixture
def guarded(pods: Pods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guarded:
    for module in (config, live):
        monkeypatch.setattr(module, "PORT_REDIS", pods.port)
        monkeypatch.setattr(module, "PORT_SENTINEL", pods.sentinel_port)
    found = Guarded(pods, tmp_path)
    for ordinal in ADDRESSES:
        watch = found.client("operator", "the-operator-password", ordinal, sentinel=True)
        wait_until(lambda watch=watch: watch.sentinel_master(NAME)["num-other-sentinels"] == 2)
        wait_until(lambda watch=watch: watch.sentinel_master(NAME)["num-slaves"] == 2)
    return found


CLOSED_TO_THE_APPLICATION = (
    "FLUSHALL", "FLUSHDB", "KEYS *", "CONFIG GET *", "CONFIG SET save 1", "SHUTDOWN", "REPLICAOF NO ONE",
    "ACL LIST", "MONITOR", "SAVE", "CLIENT KILL TYPE normal", "CLIENT PAUSE 1", "MODULE LIST", "SWAPDB 0 1",
)  # fmt: skip
CLOSED_TO_CLIENTS_OF_SENTINEL = (
    f"SENTINEL FAILOVER {NAME}", f"SENTINEL SET {NAME} quorum 1", f"SENTINEL REMOVE {NAME}", "SENTINEL RESET *",
    "SENTINEL CONFIG GET *", "SHUTDOWN", "ACL LIST", "CLIENT KILL TYPE normal",
)  # fmt: skip


def test_each_user_does_its_part_and_no_more(guarded: Guarded) -> None:
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(ADDRESSES[0], guarded.pods.port, password="the-password", retry=AT_ONCE).ping()
    application = guarded.client("app", "the-password")
    assert application.set("key", "value")
    assert application.eval("return redis.call('GET', KEYS[1])", 1, "key") == "value"
    assert application.info()["role"] == "master"
    assert application.client_list()
    refused(application, *CLOSED_TO_THE_APPLICATION)
    for user in ("monitoring", "replication", "sentinel"):
        client = guarded.client(user, f"the-{access.KEYS[user]}")
        assert client.ping()
        refused(client, "GET key", "SET key 1", "CONFIG GET masterauth", "FLUSHALL")
    asking = redis.Redis(ADDRESSES[0], guarded.pods.sentinel_port, password="the-sentinel-password")
    assert asking.sentinel_get_master_addr_by_name(NAME)
    assert asking.sentinel_slaves(NAME)
    refused(asking, *CLOSED_TO_CLIENTS_OF_SENTINEL)


# What a Sentinel would believe: a master of a higher epoch, at an address of whoever publishes it.
HELLO = f"127.0.0.1,7999,{'a' * 40},99,{NAME},10.6.6.6,6379,99"
BEFORE = "~* &* +@all -@admin -@dangerous +info +role +client|list"


@pytest.mark.parametrize("user", ["app", "default"])
def test_an_application_publishes_and_hears_everything_but_tells_the_sentinels_nothing(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, user: str
) -> None:
    for settings in guarded.settings.values():
        path = settings.paths.configuration / "settings.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "namelessClients": True}))
    guarded.look(monkeypatch)
    for ordinal in ADDRESSES:
        application = guarded.client(user, "the-password", ordinal)
        refused(application, f"PUBLISH __sentinel__:hello {HELLO}")
        with pytest.raises(redis.ResponseError, match="to the channel"):
            application.eval(f"return redis.call('PUBLISH', '__sentinel__:hello', '{HELLO}')", 0)
    application = guarded.client(user, "the-password")
    with application.pubsub() as heard:
        heard.psubscribe("*")
        assert heard.get_message(timeout=5)["type"] == "psubscribe"
        heard.subscribe("runnerhub:job-events")
        wait_until(lambda: (heard.get_message(timeout=5) or {}).get("type") == "subscribe")
        for channel in ("bull:events", "runnerhub:job-events", "_own", "__keyevent@0__:set"):
            assert application.publish(channel, "something") > 0


def test_who_listens_goes_on_when_rules_change(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod of before lets the application publish anywhere."""
    guarded.client("operator", "the-operator-password").execute_command(
        "ACL", "SETUSER", "app", "reset", "on", *BEFORE.split(), ">the-password"
    )
    application = guarded.client("app", "the-password")
    with application.pubsub() as heard:
        heard.psubscribe("*")
        heard.subscribe("__sentinel__:hello")
        wait_until(lambda: (heard.get_message(timeout=5) or {}).get("type") == "subscribe")
        connection = heard.connection
        guarded.access[0].forget()
        guarded.look(monkeypatch)
        refused(application, f"PUBLISH __sentinel__:hello {HELLO}")
        application.publish("bull:events", "something")

        def hears() -> bool:
            return (heard.get_message(timeout=5) or {}).get("channel") == "bull:events"

        wait_until(hears)
        assert heard.connection is connection


def refused(client: redis.Redis, *commands: str) -> None:
    for command in commands:
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.execute_command(*command.split())


def test_a_master_hands_over_with_these_users(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "LOCAL", ADDRESSES[0])
    handover.hand_over(guarded.settings[0], ADDRESSES)
    watch = guarded.client("operator", "the-operator-password", 1, sentinel=True)
    successor = watch.sentinel_get_master_addr_by_name(NAME)[0]
    assert successor != ADDRESSES[0]
    ordinal = next(number for number, address in ADDRESSES.items() if address == successor)
    wait_until(
        lambda: guarded.client("app", "the-password", ordinal).info("replication")["connected_slaves"] == 2
    )


def test_a_crashed_master_is_replaced_with_these_users(guarded: Guarded) -> None:
    guarded.kill_master("the-operator-password")
    watch = guarded.client("operator", "the-operator-password", 1, sentinel=True)
    wait_until(lambda: watch.sentinel_get_master_addr_by_name(NAME)[0] != ADDRESSES[0])


def test_clients_that_have_the_password_in_their_environment_have_an_hour(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    for settings in guarded.settings.values():
        path = settings.paths.configuration / "settings.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "namelessClients": True}))
    guarded.change("password")
    for _ in range(2):
        guarded.look(monkeypatch)
    guarded.clock.now += access.ACCEPT_SECONDS
    guarded.look(monkeypatch)
    assert guarded.lets_in("default", "the-password")
    assert guarded.lets_in("default", "new-password")
    guarded.clock.now += access.PATIENT_SECONDS - access.ACCEPT_SECONDS
    guarded.look(monkeypatch)
    assert not guarded.lets_in("default", "the-password")
    assert guarded.lets_in("default", "new-password")


def test_all_passwords_change_under_load_without_a_failed_command_or_a_new_connection(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, errors, written = threading.Event(), [], [0]
    client = redis.Redis(
        ADDRESSES[0],
        guarded.pods.port,
        username="app",
        password="the-password",
        single_connection_client=True,
    )
    connection = client.client_id()

    def write() -> None:
        while not over.is_set():
            try:
                client.incr("counter")
                written[0] += 1
            except redis.RedisError as error:
                errors.append(error)
            time.sleep(0.005)

    writer = threading.Thread(target=write)
    writer.start()
    keys = (*access.KEYS.values(), access.SENTINEL_CLIENTS_KEY)
    try:
        guarded.change(*keys)
        # While one member does not know them, as on a node that Kubernetes does not reach, all use the former ones.
        guarded.look(monkeypatch, but=2)
        assert not any(found._settings.credentials.agreed for found in guarded.access[:4])
        guarded.look(monkeypatch)
        for user, key in access.KEYS.items():
            assert guarded.lets_in(user, f"new-{key}")
            assert guarded.lets_in(user, f"the-{key}")
        guarded.look(monkeypatch)
        assert all(found._settings.credentials.agreed for found in guarded.access)
        guarded.clock.now += access.ACCEPT_SECONDS
        guarded.look(monkeypatch)
        for user, key in access.KEYS.items():
            assert guarded.lets_in(user, f"new-{key}")
            assert not guarded.lets_in(user, f"the-{key}")
        assert guarded.lets_in("operator", "new-operator-password", sentinel=True)
        assert not guarded.lets_in("operator", "the-operator-password", sentinel=True)
        assert guarded.lets_in("default", "new-sentinel-password", sentinel=True)
        assert not guarded.lets_in("default", "the-sentinel-password", sentinel=True)
    finally:
        over.set()
        writer.join()
    assert not errors
    assert written[0] > 20
    assert client.client_id() == connection
    operator = guarded.client("operator", "new-operator-password")
    assert int(operator.get("counter")) == written[0]
    # Links are made anew with the new ones: of the replicas, and of the Sentinels to everybody.
    for ordinal in ADDRESSES:
        other = guarded.client("operator", "new-operator-password", ordinal)
        for found in other.client_list():
            if found["user"] in ("replication", "sentinel"):
                with contextlib.suppress(redis.RedisError):
                    other.client_kill_filter(_id=found["id"])
    guarded.kill_master("new-operator-password")
    watch = guarded.client("operator", "new-operator-password", 1, sentinel=True)
    wait_until(lambda: watch.sentinel_get_master_addr_by_name(NAME)[0] != ADDRESSES[0])
    successor = watch.sentinel_get_master_addr_by_name(NAME)[0]
    ordinal = next(number for number, address in ADDRESSES.items() if address == successor)
    wait_until(
        lambda: guarded.client("app", "new-password", ordinal).info("replication")["connected_slaves"] == 1
    )
