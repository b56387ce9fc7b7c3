"""Two operator processes and one Lease."""

from __future__ import annotations

import signal

from e2e.lab.kubectl import Kubectl, wait_for
from tests.integration.conftest import SYSTEM, Operator, Start, wait_until_time_passed
from tests.integration.test_reconcile import created, manifest


def pair(start: Start) -> tuple[Operator, Operator]:
    """The active one and the waiting one."""
    first, second = start("operator-a"), start("operator-b")

    def roles() -> tuple[Operator, Operator] | None:
        try:
            leading = [item for item in (first, second) if item.leads()]
        except OSError:
            return None
        if len(leading) != 1:
            return None
        return (first, second) if leading[0] is first else (second, first)

    return wait_for("one active operator", roles, 60)


def test_the_second_takes_over_at_once_after_a_graceful_stop(
    start_operator: Start, namespace: Kubectl
) -> None:
    active, waiting = pair(start_operator)
    assert active.stop() == 0
    wait_for("the other one to lead", waiting.leads, 4, every=0.1)
    created(namespace)


def test_the_second_takes_over_after_a_crash(start_operator: Start, namespace: Kubectl) -> None:
    active, waiting = pair(start_operator)
    active.stop(signal.SIGKILL)
    wait_for("the other one to lead", waiting.leads, 10, every=0.2)
    created(namespace)


def test_a_frozen_operator_that_wakes_up_ends_without_writing(
    admin: Kubectl, start_operator: Start, namespace: Kubectl
) -> None:
    active, waiting = pair(start_operator)
    # Whatever it has to do for the clusters of other tests is done by then.
    wait_until_time_passed(3)
    active.process.send_signal(signal.SIGSTOP)
    before_waking = len(active.log.read_text())
    wait_for("the other one to lead", waiting.leads, 12, every=0.2)
    namespace.apply(manifest())
    wait_for("the new one to work", lambda: namespace.get("deployment", "hub-loadbalancer"), 30)
    active.process.send_signal(signal.SIGCONT)
    assert active.process.wait(30) == 1
    lease = admin.in_namespace(SYSTEM).get("lease", "runnerhub-operator")
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == waiting.name
    after_waking = active.log.read_text()[before_waking:]
    writes = [line for line in after_waking.splitlines() if "created" in line or "changed" in line]
    assert writes == []
    wait_until_time_passed(1)
    assert waiting.leads()
