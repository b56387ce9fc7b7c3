"""The reference of the plugin as a page, from its own definition of commands and options."""

from __future__ import annotations

from typing import Any

from typer.main import get_command

from runnerhub_cli.app import app
from runnerhub_cli.errors import Exit
from tests.markdown import table

_INTRODUCTION = """\
# Reference: `kubectl runnerhub`

Made by `make generate` from the commands in `operator/runnerhub_cli/`; `kubectl runnerhub --help` and `kubectl
runnerhub COMMAND --help` tell the same.

## Install

```
make cli                 # in a checkout: one file, build/kubectl-runnerhub, for this kind of Python and processor
pip install '.[cli]'     # or all of it into a Python environment
pip install 'runnerhub_operator-VERSION-py3-none-any.whl[cli]'    # without a checkout: the wheel of a release
```

A release has the single file too, for Python 3.11 on Linux on amd64.

kubectl finds the program `kubectl-runnerhub` on PATH. It needs no more than kubectl itself, whose kubeconfig it
uses, and works with what your account may do: `kubectl runnerhub doctor` tells what you may not.

**Completion.** With kubectl's own completion set up (`kubectl completion --help`), `kubectl runnerhub <TAB>`
completes commands, options, clusters, members and namespaces by the program `kubectl_complete-runnerhub`; pip
installs it too. For the single file make a link of that name to it: `ln -s kubectl-runnerhub
kubectl_complete-runnerhub`. Who calls `kubectl-runnerhub` directly runs `kubectl-runnerhub
--install-completion` once.

**Output.** Colours and moving parts appear on a terminal only, and not with `NO_COLOR` set. Results go to
standard output, everything else to standard error. `-o json` and `-o yaml` give what the tables show under
names as in the API; fields may be added.

**Reading and writing.** `switchover` is the only command that changes anything; `psql` and `redis-cli` let you
do so. All others read.
"""

_SECRECY = """\
## Passwords

No password is part of a command line, on your machine or in a pod. `psql` gets in as the user that owns the
database's files, on the socket in the pod; `redis-cli` gets its password by a shell in the pod, from the file
there. `support-bundle` reads the Secrets of the namespace to take their values out of everything that it
writes, in plain, base64 and other spellings, and takes out what looks like a credential besides; of the Secrets
themselves it tells names, keys and lengths. Without permission to read them only the latter happens, which
README.txt in the archive tells. Names, addresses and ports that an application's Secret has beside its password stay
readable, unless they are a password in any Secret of the namespace; README.txt lists them by Secret and key.
"""


def _is_option(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "option")


def _spelling(parameter: Any) -> str:
    words = [*parameter.opts, *parameter.secondary_opts]
    if parameter.is_flag:
        return ", ".join(f"`{word}`" for word in words)
    return ", ".join(f"`{word}`" for word in words) + f" {parameter.metavar or parameter.name.upper()}"


def _default(parameter: Any) -> str:
    value = getattr(parameter.default, "value", parameter.default)
    if parameter.required:
        return "required"
    return "" if value in (None, False) or callable(value) else f"`{'on' if value is True else value}`"


def _command(name: str, command: Any) -> str:
    words = " ".join(
        item.metavar or item.human_readable_name for item in command.params if not _is_option(item)
    )
    text = "\n\n".join(" ".join(part.split()) for part in str(command.help).split("\n\n"))
    rows = [(_spelling(item), _default(item), item.help or "") for item in command.params if _is_option(item)]
    usage = f"kubectl runnerhub {name} [OPTIONS] {words}".rstrip()
    options = table(("Option", "Default", "Meaning"), rows)
    return f"### {name}\n\n```\n{usage}\n```\n\n{text}\n\n{options}"


def cli_reference() -> str:
    """The page."""
    group: Any = get_command(app)
    codes = table(
        ("Code", "Meaning"),
        [(f"`{code.value}`", code.meaning[0].upper() + code.meaning[1:] + ".") for code in Exit],
    )
    commands = "\n".join(_command(name, command) for name, command in group.commands.items())
    return "\n".join(
        [
            _INTRODUCTION,
            "## Exit codes\n",
            "Those of monitoring plugins, so `status` and `doctor` can be used as checks.\n",
            codes,
            "`psql`, `redis-cli` and `logs` end as the program does that they start; an interrupt gives 130.\n",
            _SECRECY,
            "## Commands\n",
            commands,
        ]
    )
