"""The health checks: when something counts as down, and that nobody ever waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from runnerhub_operator.agent.candidacy import (
    FAILING_SECONDS_UNTIL_UNFIT,
    REFUSALS_UNTIL_UNFIT,
    Candidacy,
    Orchestrator,
    Outcome,
)
from runnerhub_operator.agent.checks import Check, CheckState, Status
from runnerhub_operator.agent.settings import CheckTiming
from runnerhub_operator.errors import ProbeError

TIMING = CheckTiming(10, 5, 3)


def test_unknown_is_not_healthy_and_the_first_failure_is_down() -> None:
    state = CheckState()
    assert not state.healthy(0, TIMING)
    assert state.failed("refused", 1, 3).status is Status.DOWN


def test_so_many_failures_in_a_row_make_it_down() -> None:
    state = CheckState().succeeded({}, 0, 1)
    for now, expected in ((2, Status.UP), (3, Status.UP), (4, Status.DOWN), (5, Status.DOWN)):
        state = state.failed("refused", now, 3)
        assert state.status is expected
    assert state.changed_at == 4
    back = state.succeeded({"primary": "a"}, 5, 6)
    assert back.status is Status.UP
    assert (back.failures, back.error, back.changed_at) == (0, None, 6)


def test_a_success_between_failures_starts_the_count_anew() -> None:
    state = CheckState().succeeded({}, 0, 1).failed("x", 2, 3).failed("x", 3, 3).succeeded({}, 4, 4)
    assert state.failed("x", 5, 3).failed("x", 6, 3).status is Status.UP


def test_an_old_result_is_not_believed() -> None:
    state = CheckState().succeeded({}, 0, 1)
    assert state.healthy(26, TIMING)
    assert not state.healthy(26.1, TIMING)
    assert state.render(30, TIMING)["status"] == "overdue"


def test_old_details_are_marked_as_such_when_it_fails() -> None:
    state = CheckState().succeeded({"master": "a"}, 0, 1)
    assert state.render(1, TIMING)["master"] == "a"
    failing = state.failed("refused", 2, 3).render(2, TIMING)
    assert failing["error"] == "refused"
    assert failing["lastGood"] == {"master": "a"}
    assert "master" not in failing


async def test_a_probe_that_hangs_and_ignores_cancellation_costs_its_deadline_only() -> None:
    free = asyncio.Event()
    started = 0

    async def stubborn() -> Mapping[str, Any]:
        nonlocal started
        started += 1
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue
        return {}

    check = Check("database", stubborn, CheckTiming(0.01, 0.05, 2))
    loop = asyncio.get_running_loop()
    begin = loop.time()
    try:
        for _ in range(5):
            await check.once()
        assert loop.time() - begin < 10
        assert check.state.status is Status.DOWN
        assert started == 2, "hanging probes do not pile up"
    finally:
        # Otherwise the end of the test waits for ever.
        free.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await check.once()
    assert check.healthy


async def test_what_passed_while_the_agent_was_frozen_is_no_gap() -> None:
    gaps: list[float | None] = []
    now = [0.0]

    async def probe() -> dict[str, Any]:
        return {}

    check = Check(
        "database", probe, TIMING, on_success=lambda gap, _latency: gaps.append(gap), clock=lambda: now[0]
    )
    for moment in (0.0, 10.0, 700.0, 710.0):
        now[0] = moment
        await check.once()
    assert gaps == [None, 10.0, None, 10.0]


async def test_the_gap_between_two_successes_is_told() -> None:
    now, fails = 0.0, False
    gaps: list[float | None] = []

    async def probe() -> Mapping[str, Any]:
        if fails:
            raise ProbeError("refused")
        return {}

    check = Check(
        "database", probe, TIMING, on_success=lambda gap, _latency: gaps.append(gap), clock=lambda: now
    )
    await check.once()
    now, fails = 10.0, True
    await check.once()
    now, fails = 17.0, False
    await check.once()
    assert gaps == [None, 17.0]


async def test_a_programming_error_is_not_a_failed_check() -> None:
    async def broken() -> Mapping[str, Any]:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await Check("database", broken, TIMING).once()


def test_nobody_leads_before_the_orchestrator_was_well_once() -> None:
    candidacy = Candidacy()
    assert not candidacy.fit(0)
    assert not candidacy.after(Outcome.FAILING, "HTTP 503", 1).fit(1)
    assert candidacy.after(Outcome.OK, "HTTP 200", 2).fit(2)


def test_a_gone_orchestrator_loses_fitness_after_some_refusals() -> None:
    candidacy = Candidacy().after(Outcome.OK, "", 0)
    for number in range(1, REFUSALS_UNTIL_UNFIT + 1):
        candidacy = candidacy.after(Outcome.REFUSED, "", number / 2)
        assert candidacy.fit(number / 2) is (number < REFUSALS_UNTIL_UNFIT)
    assert candidacy.after(Outcome.OK, "", 5).fit(5)


def test_an_orchestrator_that_says_503_keeps_fitness_for_a_while() -> None:
    candidacy = Candidacy().after(Outcome.OK, "", 0)
    for now in range(1, 11):
        candidacy = candidacy.after(Outcome.FAILING, "HTTP 503", now)
    assert candidacy.fit(1 + FAILING_SECONDS_UNTIL_UNFIT - 0.1)
    assert not candidacy.fit(1 + FAILING_SECONDS_UNTIL_UNFIT)


def test_it_is_asked_again_soon_after_a_failure() -> None:
    well = Candidacy().after(Outcome.OK, "", 0)
    assert well.after(Outcome.REFUSED, "", 1).next_ask_seconds < well.next_ask_seconds


async def test_bad_answers_of_the_orchestrator_count_after_the_retries_and_for_leadership_by_time() -> None:
    answers = [503, 200, 503, 503, 503, 200]

    async def health(_: web.Request) -> web.Response:
        return web.Response(status=answers.pop(0))

    application = web.Application()
    application.router.add_get("/health", health)
    async with TestServer(application) as server, aiohttp.ClientSession() as session:
        orchestrator = Orchestrator(session, str(server.make_url("/health")), retries=3)
        told = []
        for _ in range(len(answers)):
            await orchestrator.once()
            told.append((orchestrator.render()["status"], orchestrator.healthy))
        assert told == [
            ("down", False),
            ("up", True),
            ("failing", True),
            ("failing", True),
            ("down", False),
            ("up", True),
        ]
