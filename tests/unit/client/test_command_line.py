import json
from datetime import UTC, datetime

import pytest
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError

from runnerhub_client.__main__ import main
from runnerhub_client.journal import Journal
from runnerhub_client.probes.context import unique_ids
from runnerhub_client.probes.queue import was_refused
from runnerhub_client.record import Outcome, Record
from runnerhub_client.settings import Targets


def test_gaps_are_printed_as_json(tmp_path, capsys):
    lines = [
        Record("rows", "insert", Outcome.ACKED, wall, wall, str(wall)).line() for wall in (100, 101, 105)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    since = datetime.fromtimestamp(99, UTC).isoformat()
    assert main(["gaps", "--log", str(tmp_path), "--since", since, "--until", "106"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["probes"]["rows"]["gap_seconds"] == 4
    assert list(printed["probes"]) == ["rows"]


def test_no_verdict_is_not_a_good_verdict(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://app:x@127.0.0.1:1/none")
    Journal(tmp_path, "rows").write(
        "insert", Outcome.ACKED, identifier="6f9619ff-8b86-d011-b42d-00c04fc964ff"
    )
    assert main(["verify", "--log", str(tmp_path), "--patience", "0"]) == 3
    assert "undecided" in json.loads(capsys.readouterr().out)


def test_where_nothing_was_acknowledged_nothing_is_proved(tmp_path, capsys):
    assert main(["verify", "--log", str(tmp_path)]) == 3
    assert "undecided" in json.loads(capsys.readouterr().out)
    with pytest.raises(SystemExit) as caught:
        main(["verify", "--log", str(tmp_path / "mistyped")])
    assert caught.value.code == 2


def test_a_window_is_needed_for_gaps(tmp_path):
    with pytest.raises(SystemExit) as caught:
        main(["gaps", "--log", str(tmp_path)])
    assert caught.value.code == 2


def test_addresses_come_from_the_orchestrators_variables():
    targets = Targets.from_environment(
        {
            "LOAD_BALANCER_URL": "http://hub/",
            "REDIS_SENTINEL_HOSTS": "a:26379,b:26379",
            "REDIS_HOST": "hub-redis-master",
            "JWT_SECRET": "very-secret",
        }
    )
    assert targets.hub_url == "http://hub"
    assert targets.websocket_url == "ws://hub:3002/ws"
    assert targets.sentinels == (("a", 26379), ("b", 26379))
    assert (targets.redis_host, targets.redis_port) == ("hub-redis-master", 6379)
    assert "very-secret" not in repr(targets)


def test_ids_are_unique_and_fit_into_a_json_number():
    ids = unique_ids()
    some = [next(ids) for _ in range(1000)]
    assert len(set(some)) == 1000
    assert 0 < some[0] < some[-1] < 2**53


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (ReadOnlyError("You can't write against a read only replica."), True),
        (
            ResponseError("Command # 1 (SADD) of pipeline caused error: NOREPLICAS Not enough good replicas"),
            True,
        ),
        (MasterNotFoundError("no master"), True),
        (RedisConnectionError("Connection closed by server."), False),
        (TimeoutError(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_refused_write_is_certain_and_a_broken_one_is_not(error, refused):
    assert was_refused(error) is refused
