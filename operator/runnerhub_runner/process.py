"""The runner as the first process of its container, and what its jobs must not see of it.

Jobs run as the user that the runner runs as, and that user may read the environment and the memory of its processes:
there is GITHUB_TOKEN, which manages all runners of the organisation. So the runner is made a process that only root can
look into. An init of somebody else's would have the token in its environment too, so the runner is its own.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from types import FrameType

# Source: https://man7.org/linux/man-pages/man2/PR_SET_DUMPABLE.2const.html
_PR_SET_DUMPABLE = 4
_FORWARDED = (signal.SIGTERM, signal.SIGINT)


def hide_from_jobs() -> None:
    """Let nobody without privileges read this process, nor what is forked from it; what they start is as ever."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the process cannot be hidden from jobs")


def under_init(main: Callable[[], int]) -> int:
    """Run `main`; in a child, when this is the first process, which takes in what jobs leave behind."""
    if os.getpid() != 1:
        return main()
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    child = os.fork()
    if child:

        def forward(number: int, _frame: FrameType | None) -> None:
            os.kill(child, number)

        for number in _FORWARDED:
            signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    return _wait_for(child) if child else main()


def _wait_for(child: int) -> int:
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
