"""The program beside PgBouncer: clients are held back for a bounded time, whatever happens to whoever asked for it."""

from __future__ import annotations

import json
import threading
import time

import pytest

from images.pooler.runnerhub_pooler.console import ConsoleError, GoneError, StillBusyError
from images.pooler.runnerhub_pooler.gate import MAX_PAUSE_SECONDS, Gate, RefusedError
from images.pooler.runnerhub_pooler.haproxy import ProxyError, ProxyGoneError, Server, parse_servers
from images.pooler.runnerhub_pooler.server import authorization, parse_pause

OLD, NEW = "hub-postgres-0", "hub-postgres-1"


class Surroundings:
    """PgBouncer, HAProxy and the time, as a test wants them."""

    def __init__(self) -> None:
        self.now = 100.0
        self.is_paused = False
        self.patience: list[float] = []
        self.pause_error: ConsoleError | None = None
        self.resume_error: ConsoleError | None = None
        self.primaries: tuple[str, ...] = (OLD,)
        self.next: str | None = None
        self.takes_writes = True
        self.rested = 0
        self.proxy_error: ProxyError | None = None
        self.gate = Gate(self, self, lambda: self.now)

    def pause(self, patience_seconds: float) -> None:
        self.patience.append(patience_seconds)
        self.is_paused = True
        if self.pause_error is not None:
            raise self.pause_error

    def resume(self) -> None:
        if self.resume_error is not None:
            raise self.resume_error
        self.is_paused = False

    def running(self) -> tuple[str, ...]:
        if self.proxy_error is not None:
            raise self.proxy_error
        return self.primaries

    def successor(self, _leaving: str) -> str | None:
        return self.next

    def serves(self, member: str) -> bool:
        return member in self.running() and self.takes_writes

    def rest(self) -> None:
        self.rested += 1


@pytest.fixture
def around() -> Surroundings:
    """A gate that is open and knows it."""
    found = Surroundings()
    found.gate.tick()
    return found


def test_what_an_earlier_process_left_closed_is_opened_first() -> None:
    around = Surroundings()
    around.is_paused = True
    around.gate.tick()
    assert not around.is_paused
    around.gate.close(OLD, 5)
    assert around.is_paused


def test_transactions_have_longer_at_the_next_try_when_they_did_not_end(around: Surroundings) -> None:
    def refuse(error: ConsoleError) -> None:
        around.pause_error = error
        with pytest.raises(RefusedError):
            around.gate.close(OLD, 5)
        around.now += 15

    refuse(ConsoleError("says something else"))
    for _ in range(4):
        refuse(StillBusyError("busy"))
    assert around.patience == [1.5, 1.5, 2.0, 2.5, 2.5]
    around.now += 60
    refuse(StillBusyError("busy"))
    assert around.patience[-1] == 1.5


def test_a_pooler_that_starts_later_is_tried_until_it_answers() -> None:
    around = Surroundings()
    around.is_paused = True
    around.resume_error = ConsoleError("connection refused")
    around.gate.tick()
    assert around.gate.is_closed
    with pytest.raises(RefusedError, match="not there yet"):
        around.gate.close(OLD, 5)
    around.resume_error = None
    around.gate.tick()
    assert not around.gate.is_closed
    assert not around.is_paused


def test_a_pooler_that_is_not_there_yet_has_nobody_to_hold_back() -> None:
    around = Surroundings()
    around.pause_error = around.resume_error = GoneError("connection refused")
    with pytest.raises(RefusedError) as refused:
        around.gate.close(OLD, 5)
    assert refused.value.status == 410
    assert not around.gate.is_closed


def test_it_opens_when_another_primary_takes_writes(around: Surroundings) -> None:
    around.gate.close(OLD, 10)
    around.gate.tick()
    assert around.is_paused
    around.next = NEW
    around.gate.tick()
    assert not around.is_paused


def test_nobody_looks_for_a_successor_once_it_is_open(around: Surroundings) -> None:
    threading.Thread(target=around.gate.watch, daemon=True).start()
    for pauses in (1, 2):
        around.gate.close(OLD, 10)
        before = around.rested
        around.gate.resume("a test")
        deadline = time.monotonic() + 10
        while around.rested == before:
            assert time.monotonic() < deadline, f"pause {pauses}"
            time.sleep(0.01)


def test_it_opens_when_the_same_primary_was_away_and_takes_writes_again(around: Surroundings) -> None:
    around.gate.close(OLD, 15)
    around.gate.tick()
    assert around.is_paused, "it has not left yet"
    around.primaries = ()
    around.gate.tick()
    around.proxy_error = ProxyError("HAProxy does not answer")
    around.gate.tick()
    around.proxy_error, around.primaries, around.takes_writes = None, (OLD,), False
    around.gate.tick()
    assert around.is_paused, "it is still being promoted"
    around.takes_writes = True
    around.gate.tick()
    assert not around.is_paused


def test_a_proxy_that_is_silent_does_not_tell_that_the_primary_was_away(around: Surroundings) -> None:
    around.gate.close(OLD, 15)
    around.proxy_error = ProxyError("HAProxy does not answer")
    around.gate.tick()
    around.proxy_error = None
    around.gate.tick()
    assert around.is_paused


def test_it_opens_when_the_time_is_over(around: Surroundings) -> None:
    around.gate.close(OLD, 10)
    around.now += 9.9
    around.gate.tick()
    assert around.is_paused
    around.now += 0.1
    around.gate.tick()
    assert not around.is_paused


def test_it_opens_when_it_is_asked_to_and_that_is_fine_any_time(around: Surroundings) -> None:
    around.gate.close(OLD, 10)
    around.gate.resume("a test")
    assert not around.is_paused
    around.gate.resume("a test")


@pytest.mark.parametrize(
    ("error", "status"), [(StillBusyError("busy"), 409), (GoneError("x"), 410), (ConsoleError("x"), 503)]
)
def test_a_pause_that_fails_half_way_is_taken_back(
    around: Surroundings, error: ConsoleError, status: int
) -> None:
    around.pause_error = error
    with pytest.raises(RefusedError) as refused:
        around.gate.close(OLD, 10)
    assert refused.value.status == status
    assert not around.is_paused
    assert not around.gate.is_closed


def test_a_resume_that_fails_is_tried_again(around: Surroundings) -> None:
    around.gate.close(OLD, 10)
    around.resume_error = ConsoleError("no answer")
    around.gate.resume("a test")
    assert around.gate.is_closed
    around.resume_error = None
    around.gate.tick()
    assert not around.is_paused


@pytest.mark.parametrize(("primaries", "status"), [((), 410), ((NEW,), 409)])
def test_nobody_is_held_back_for_a_member_that_is_not_the_primary(
    around: Surroundings, primaries: tuple[str, ...], status: int
) -> None:
    around.primaries = primaries
    with pytest.raises(RefusedError) as refused:
        around.gate.close(OLD, 10)
    assert refused.value.status == status
    assert not around.is_paused


def test_nobody_is_held_back_when_the_proxy_cannot_tell_the_end(around: Surroundings) -> None:
    around.proxy_error = ProxyError("HAProxy does not answer")
    with pytest.raises(RefusedError, match="HAProxy") as refused:
        around.gate.close(OLD, 10)
    assert refused.value.status == 503
    assert not around.is_paused
    around.proxy_error = ProxyGoneError("HAProxy does not answer")
    with pytest.raises(RefusedError, match="HAProxy") as refused:
        around.gate.close(OLD, 10)
    assert refused.value.status == 410


def test_two_that_want_the_same_prolong_it_up_to_the_bound_of_one(around: Surroundings) -> None:
    around.gate.close(OLD, 2)
    around.now += 1
    around.gate.close(OLD, 10)
    around.now += 9
    around.gate.tick()
    assert around.is_paused
    around.gate.close(OLD, MAX_PAUSE_SECONDS)
    around.now = 100 + MAX_PAUSE_SECONDS
    around.gate.tick()
    assert not around.is_paused


def test_two_that_want_different_things_do_not_mix(around: Surroundings) -> None:
    around.gate.close(OLD, 10)
    with pytest.raises(RefusedError, match=f"paused for {OLD}"):
        around.gate.close(NEW, 10)
    assert around.is_paused


def test_no_pause_is_longer_than_the_bound(around: Surroundings) -> None:
    around.gate.close(OLD, 3600)
    around.now += MAX_PAUSE_SECONDS
    around.gate.tick()
    assert not around.is_paused


def test_a_pause_that_is_over_makes_room_for_the_next(around: Surroundings) -> None:
    around.gate.close(OLD, 2)
    around.now += 2
    around.primaries = (NEW,)
    around.gate.close(NEW, 10)
    assert around.is_paused
    around.now += 9
    around.gate.tick()
    assert around.is_paused


# --- What it reads ---


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'{"primary": "x"}',
        b'{"primary": "", "seconds": 1}',
        b'{"primary": 1, "seconds": 1}',
        b'{"primary": "x", "seconds": 0}',
        b'{"primary": "x", "seconds": 16}',
        b'{"primary": "x", "seconds": true}',
        b'{"primary": "x", "seconds": NaN}',
        b"\xff",
    ],
)
def test_requests_that_make_no_sense_are_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"primary|seconds|Expecting|decode"):
        parse_pause(body)


def test_a_request_is_a_primary_and_seconds() -> None:
    assert parse_pause(json.dumps({"primary": OLD, "seconds": 10}).encode()) == (OLD, 10.0)


def test_only_the_one_login_is_let_in() -> None:
    assert authorization("r") == "Basic cGdib3VuY2VyOnI="


# As HAProxy 3.0 tells it, two members shortened to the columns' number.
_STATE = """\
1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight \
srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state \
bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr \
srv_agent_port
4 primary 1 hub-postgres-0 10.0.0.1 2 0 1 1 9 15 3 3 6 0 0 0 hub-postgres-0.d.svc 5432 - 0 8008 - - 0
4 primary 2 hub-postgres-1 - 0 32 1 1 9 1 0 0 14 0 0 0 hub-postgres-1.d.svc 5432 - 0 8008 - - 0

"""


def test_the_members_are_read_from_haproxy() -> None:
    up, unknown = parse_servers(_STATE)
    assert up == Server(OLD, "10.0.0.1", 5432, 8008, is_up=True)
    assert (unknown.is_up, unknown.is_known) == (False, False)


@pytest.mark.parametrize("text", ["", "Can't find backend.\n", "1\n# a b c d\n1 2 3 4\n"])
def test_an_answer_of_haproxy_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(ProxyError, match="tells no servers"):
        parse_servers(text)
