"""Where the program begins: completion for kubectl, errors as one sentence, exit codes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PROGRAM = "kubectl-runnerhub"
# kubectl calls a program of this name for the words after `kubectl runnerhub`.
COMPLETION_PROGRAM = "kubectl_complete-runnerhub"
# For people who look for an error in this program.
TRACEBACK = "RUNNERHUB_TRACEBACK"
# What a shell makes of SIGINT.
_INTERRUPTED = 130


def main() -> None:
    """Entry point of both programs; ends the process."""
    try:
        import typer  # noqa: F401
    except ImportError:
        sys.exit(
            "error: the plugin needs the libraries of its extra: pip install 'WHEEL[cli]' with the wheel of the "
            "release, or pip install '.[cli]' in a checkout"
        )
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    if Path(sys.argv[0]).name.startswith("kubectl_complete"):
        from .completion import complete

        sys.exit(complete(sys.argv[1:]))
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command; gives the exit code."""
    from .errors import CliError, Exit

    try:
        from typer.main import get_command

        from .app import app

        # Not standalone, so that errors come here and not in boxes, and wrong arguments have our exit code.
        code = get_command(app).main(
            args=arguments, prog_name=PROGRAM.replace("-", " ", 1), standalone_mode=False
        )
        sys.stdout.flush()
    except CliError as error:
        return _fail(str(error), error.code)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read has enough, such as `head`. Python would complain once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        if hasattr(error, "format_message"):
            # Wrong arguments, in the words of the library.
            return _fail(f"{error.format_message()} (see --help)", Exit.UNKNOWN)
        return _fail(
            f"this is a fault of the plugin: {type(error).__name__}: {error}; {TRACEBACK}=1 shows where",
            Exit.UNKNOWN,
        )
    return int(code or 0)


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"error: {message}\n")
    return int(code)
