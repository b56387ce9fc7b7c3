"""How the plugin ends: four exit codes for scripts, and one error whose text is a sentence for people."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes, those of monitoring plugins.

    Source: https://www.monitoring-plugins.org/doc/guidelines.html#AEN78
    """

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3

    @property
    def meaning(self) -> str:
        """What a script can conclude."""
        return {
            Exit.OK: "it was done; of `status` and `doctor`: nothing is wrong",
            Exit.WARNING: "the cluster serves, but something needs a look: less redundancy than asked for, paused, "
            "no operator, a warning of `doctor`",
            Exit.CRITICAL: "the cluster does not serve, `doctor` found an error, a request or a manifest was refused",
            Exit.UNKNOWN: "it could not be found out: wrong arguments, no kubectl, no answer from the API server, no "
            "permission, no such cluster, time over",
        }[self]


class CliError(Exception):
    """Ends the program with a sentence on standard error."""

    def __init__(self, message: str, code: Exit = Exit.UNKNOWN) -> None:
        super().__init__(message)
        self.code = code
