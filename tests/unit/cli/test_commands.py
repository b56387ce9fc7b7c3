"""The program as it is called: exit codes, what is printed where, what kubectl is told."""

from __future__ import annotations

import copy
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from runnerhub_cli.completion import complete
from runnerhub_cli.entry import run
from runnerhub_operator import __version__
from tests.generate import ROOT
from tests.unit.cli.scenes import SCENES, recorded, set_pod_waiting

STAND_IN = Path(__file__).parent / "kubectl_stand_in.py"
Change = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Done:
    """How a run ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Program:
    """The plugin with a stand-in for kubectl on PATH."""

    folder: Path

    @property
    def scene_file(self) -> Path:
        return self.folder / "scene.json"

    def play(self, name: str, change: Change = lambda _: None) -> None:
        """Set the scene."""
        source, first = SCENES[name]
        made = recorded(source)
        first(made)
        change(made)
        self.scene_file.write_text(json.dumps(made))

    def __call__(self, *words: str, **more: str) -> Done:
        """Run it in this process, which is quicker; where kubectl takes its place, in one of its own."""
        if {"psql", "redis-cli", "logs"} & set(words):
            return self.alone(*words, **more)
        out, err = io.StringIO(), io.StringIO()
        with patch.dict(os.environ, self.environment(more)), redirect_stdout(out), redirect_stderr(err):
            code = run(list(words))
        return Done(code, out.getvalue(), err.getvalue())

    def alone(self, *words: str, program: str = "kubectl-runnerhub", **more: str) -> Done:
        """Run it as a process under one of its two names."""
        code = f"import sys; sys.argv[0] = {program!r}; from runnerhub_cli.entry import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env=self.environment(more),
            timeout=60,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        return {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "operator"),
            "SCENE": str(self.scene_file),
            **more,
        }

    def scene(self) -> dict[str, Any]:
        """The scene as it is now."""
        found: dict[str, Any] = json.loads(self.scene_file.read_text())
        return found


@pytest.fixture
def program(tmp_path: Path) -> Program:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {STAND_IN} "$@"\n')
    kubectl.chmod(0o755)
    made = Program(tmp_path)
    made.play("healthy")
    return made


def test_status_prints_plain_text_where_no_terminal_is(program: Program) -> None:
    done = program.alone("status")
    assert done.code == 1, "the recorded Lease of the operator is old by now"
    assert done.out.startswith("WARNING  hub in runnerhub: Ready")
    assert "\x1b" not in done.out
    assert not any(line.endswith(" ") for line in done.out.splitlines())
    assert done.err == ""


def test_status_of_a_cluster_that_does_not_serve_is_critical(program: Program) -> None:
    program.play("no-primary")
    done = program("status", "hub", "-o", "json")
    assert done.code == 2
    assert json.loads(done.out)["level"] == "critical"


def test_options_may_stand_before_the_command_too(program: Program) -> None:
    before = program("-n", "elsewhere", "--context", "c", "psql", "--", "-c", "select 1")
    after = program("psql", "-n", "elsewhere", "--context", "c", "--", "-c", "select 1")
    assert before == after
    assert "--context" in json.loads(before.out)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["bogus"], "No such command 'bogus'"),
        (["status", "a", "b"], "unexpected extra argument"),
        (["status", "-o", "xml"], "Invalid value"),
        (["logs", "kitchen"], "kitchen is no component; there are: postgres"),
        (["logs", "redis", "-c", "nginx"], "have no container nginx; there are: redis, sentinel, or all"),
        (["plan", "-f", "/nonexistent"], "/nonexistent cannot be read: No such file or directory"),
        (
            ["status", "other"],
            "there is no RunnerHubCluster other in the namespace runnerhub; there are: hub",
        ),
        (
            ["switchover", "hub-postgres-9"],
            "hub-postgres-9 is no Postgres member of hub; there are: hub-postgres-0, ",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(program: Program, words: list[str], sentence: str) -> None:
    done = program(*words)
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith("error: ")
    assert sentence in done.err
    assert len(done.err.splitlines()) == 1


def test_a_missing_kubectl_is_told(program: Program, tmp_path: Path) -> None:
    done = program("status", PATH=str(tmp_path / "empty"))
    assert (done.code, done.err) == (
        3,
        "error: kubectl is not on PATH; install it: https://kubernetes.io/docs/tasks/tools/\n",
    )


def test_an_api_server_that_is_away_is_told(program: Program) -> None:
    program.play("healthy", lambda scene: scene.update(unreachable=True))
    done = program("status")
    assert done.code == 3
    assert done.err.startswith("error: the API server does not answer: ")


def test_missing_permissions_are_told_and_those_for_the_operator_only_shown(program: Program) -> None:
    program.play("healthy", lambda scene: scene.update(forbidden=["pods"]))
    done = program("status")
    assert done.code == 3
    assert done.err.startswith("error: no permission: pods is forbidden")


def test_elections_are_listed(program: Program) -> None:
    done = program("failovers", "-o", "yaml")
    assert done.code == 0
    assert done.out.startswith("- component: ")
    assert len(program("failovers").out.splitlines()) == 11


def test_leases_are_listed_with_what_they_are_for(program: Program) -> None:
    names = [line.split()[0] for line in program("leases").out.splitlines()[1:]]
    assert names == [
        "hub-disruption",
        "hub-leader",
        "hub-postgres-primary",
        "hub-redis-master",
        "runnerhub-operator",
    ]


def test_logs_are_those_of_all_pods_and_containers(program: Program) -> None:
    words = json.loads(program("logs", "redis", "--since", "5m", "-f").out)
    assert words[:3] == ["logs", "--selector", "runnerhub.io/cluster=hub,runnerhub.io/component=redis"]
    assert {"--all-containers", "--prefix", "--follow", "--since=5m", "--tail=-1"} <= set(words)
    assert words[-2:] == ["--namespace", "runnerhub"]


def test_logs_of_the_operator_are_looked_for_where_it_runs(program: Program) -> None:
    def add_operator_pod(scene: dict[str, Any]) -> None:
        labels = {"app.kubernetes.io/name": "runnerhub-operator"}
        scene["pods"].append({"metadata": {"name": "operator-1", "labels": labels}, "spec": {}, "status": {}})

    program.play("healthy", add_operator_pod)
    assert json.loads(program("logs", "operator").out)[-2:] == ["--namespace", "runnerhub-system"]


def several_operators(scene: dict[str, Any], ours: str) -> None:
    """A second operator serves "builds", with a fresher Lease than the first one, which serves `ours`."""
    labels = {"app.kubernetes.io/name": "runnerhub-operator"}
    for namespace, watched in (("runnerhub-system", ours), ("builds-system", "builds")):
        variables = [{"name": "RUNNERHUB_WATCH_NAMESPACES", "value": watched}]
        scene["pods"].append(
            {
                "metadata": {"name": f"operator-of-{namespace}", "namespace": namespace, "labels": labels},
                "spec": {"containers": [{"name": "operator", "env": variables}]},
                "status": {},
            }
        )
    other = copy.deepcopy(scene["operator"])
    other["metadata"]["namespace"] = "builds-system"
    other["spec"] |= {"holderIdentity": "builds-1", "renewTime": "2999-01-01T00:00:00.000000Z"}
    scene["other operators"] = [other]


@pytest.mark.parametrize("ours", ["runnerhub,more", ""])
def test_of_several_operators_the_one_that_serves_the_namespace_is_meant(program: Program, ours: str) -> None:
    program.play("healthy", lambda scene: several_operators(scene, ours))
    assert json.loads(program("logs", "operator").out)[-2:] == ["--namespace", "runnerhub-system"]
    # Its Lease is old, whatever the other one's says.
    assert "Find out why it does not run." in program("status").out


@pytest.mark.parametrize(
    ("written", "asked"), [({}, "runnerhub-system"), ({"namespace": "builds"}, "builds-system")]
)
def test_a_plan_is_that_of_the_operator_that_serves_the_manifests_namespace(
    program: Program, tmp_path: Path, written: dict[str, str], asked: str
) -> None:
    program.play("healthy", lambda scene: several_operators(scene, "runnerhub"))
    manifest = {"kind": "RunnerHubCluster", "metadata": {"name": "hub", **written}, "spec": {}}
    file = tmp_path / "hub.yaml"
    file.write_text(json.dumps(manifest))
    words = json.loads(program("plan", "-f", str(file)).out)
    own = words.index("--")
    assert words[own - 2 : own] == ["--namespace", asked]
    assert words[words.index("--namespace", own) + 1] == written.get("namespace", "runnerhub")


def test_psql_goes_to_the_primary_and_its_exit_code_is_psqls(program: Program) -> None:
    program.play("healthy", lambda scene: scene.update(exit=7))
    done = program("psql", "--", "-c", "select 1")
    words = json.loads(done.out)
    assert done.code == 7
    primary = recorded("healthy")["cluster"]["status"]["postgres"]["primary"]
    assert words[:3] == ["exec", "--stdin", primary]
    assert words[words.index("--") + 1] == "psql"
    assert words[-2:] == ["-c", "select 1"]


def test_psql_that_only_reads_goes_to_a_replica_that_streams(program: Program) -> None:
    words = json.loads(program("psql", "--read-only").out)
    instances = {
        item["name"]: item for item in recorded("healthy")["cluster"]["status"]["postgres"]["instances"]
    }
    assert instances[words[2]]["state"] == "streaming"
    assert "PGOPTIONS=-c default_transaction_read_only=on" in words


def test_psql_that_only_reads_falls_back_to_the_primary_and_still_only_reads(program: Program) -> None:
    def no_replicas(scene: dict[str, Any]) -> None:
        for name in ("hub-postgres-0", "hub-postgres-1", "hub-postgres-2"):
            if name != scene["cluster"]["status"]["postgres"]["primary"]:
                set_pod_waiting(scene, name, "CrashLoopBackOff", "")

    program.play("healthy", no_replicas)
    words = json.loads(program("psql", "--read-only").out)
    assert words[2] == program.scene()["cluster"]["status"]["postgres"]["primary"]
    assert "PGOPTIONS=-c default_transaction_read_only=on" in words


def test_without_a_primary_psql_says_so(program: Program) -> None:
    program.play("no-primary")
    done = program("psql")
    assert done.code == 2
    assert done.err.startswith("error: there is no Postgres primary now")


def test_redis_cli_gets_its_password_in_the_pod(program: Program) -> None:
    words = json.loads(program("redis-cli", "--", "info").out)
    assert words[:3] == ["exec", "--stdin", "hub-redis-0"]
    assert words[-4:] == [
        "-c",
        'REDISCLI_AUTH="$(cat /etc/runnerhub/credentials/operator-password)" '
        'exec redis-cli --user operator -p 6379 "$@"',
        "redis-cli",
        "info",
    ]
    sentinel = json.loads(program("redis-cli", "--sentinel").out)
    assert "-p 26379" in sentinel[-2]
    assert sentinel[sentinel.index("--container") + 1] == "sentinel"


def test_a_switchover_is_asked_for_and_waited_for(program: Program) -> None:
    done = program("switchover", "hub-postgres-2")
    assert done.code == 0
    assert done.out.startswith("Done: said of hub-postgres-2; it was hub-postgres-1; ")
    assert program.scene()["annotated"] == ["runnerhub.io/switch-primary-to=hub-postgres-2"]


def test_the_same_switchover_again_takes_the_earlier_request_back_first(program: Program) -> None:
    program.play(
        "healthy",
        lambda scene: scene["cluster"]["metadata"].update(
            annotations={"runnerhub.io/switch-primary-to": "hub-postgres-2"}
        ),
    )
    assert program("switchover", "hub-postgres-2").code == 0
    assert program.scene()["annotated"] == [
        "runnerhub.io/switch-primary-to-",
        "runnerhub.io/switch-primary-to=hub-postgres-2",
    ]


def test_a_switchover_to_the_primary_asks_for_nothing(program: Program) -> None:
    done = program("switchover", "hub-postgres-1")
    assert (done.code, "is the primary already" in done.out) == (0, True)
    assert "annotated" not in program.scene()


@pytest.mark.parametrize(("answer", "code"), [("Refused", 2), ("Pending", 3)])
def test_a_switchover_that_did_not_take_place_is_no_success(program: Program, answer: str, code: int) -> None:
    program.play("healthy", lambda scene: scene.update(answer=answer))
    done = program("switchover", "hub-postgres-2", "--timeout", "1", "-o", "json")
    assert done.code == code
    assert json.loads(done.out)["result"] == answer


def test_a_paused_cluster_is_not_asked_for_a_switchover(program: Program) -> None:
    program.play("paused")
    done = program("switchover", "hub-postgres-2")
    assert done.code == 2
    assert "is paused" in done.err
    assert "annotated" not in program.scene()


def test_the_version_is_that_of_the_product(program: Program) -> None:
    assert program("--version").out.strip() == __version__


def test_a_reader_that_has_enough_is_no_error(program: Program) -> None:
    code = "import sys; sys.argv[0] = 'kubectl-runnerhub'; from runnerhub_cli.entry import main; main()"
    run = subprocess.run(
        ["sh", "-c", f'{sys.executable} -c "{code}" status 2>err.txt | true; cat err.txt'],
        capture_output=True,
        text=True,
        cwd=program.folder,
        env=program.environment({}),
        timeout=60,
        check=True,
    )
    assert run.stdout == ""


# --- Completion ---


def completed(program: Program, *words: str) -> list[str]:
    out = io.StringIO()
    with patch.dict(os.environ, program.environment({})), redirect_stdout(out):
        assert complete(words) == 0
    return out.getvalue().splitlines()


def test_the_program_answers_kubectl_under_its_second_name(program: Program) -> None:
    done = program.alone("status", "--wi", program="kubectl_complete-runnerhub")
    assert (done.code, done.out, done.err) == (0, ":4\n", "")


def test_kubectl_is_told_the_commands_that_fit(program: Program) -> None:
    assert [line.split("\t")[0] for line in completed(program, "s")] == [
        "status",
        "switchover",
        "support-bundle",
        ":4",
    ]


def test_kubectl_is_told_clusters_members_and_components(program: Program) -> None:
    assert completed(program, "status", "") == ["hub", ":4"]
    assert completed(program, "switchover", "hub-postgres-") == [
        *(f"hub-postgres-{n}" for n in range(3)),
        ":4",
    ]
    assert completed(program, "logs", "p") == ["postgres", "pooler", ":4"]


def test_options_and_their_values_are_completed(program: Program) -> None:
    assert [line.split("\t")[0] for line in completed(program, "status", "--wa")] == ["--watch", ":4"]
    assert [line.split("\t")[0] for line in completed(program, "status", "-o", "")] == [
        "table",
        "wide",
        "json",
        "yaml",
        ":4",
    ]


def test_files_are_left_to_the_shell(program: Program) -> None:
    assert completed(program, "plan", "-f", "") == [":0"]


def test_completion_is_silent_when_nobody_answers(program: Program) -> None:
    program.play("healthy", lambda scene: scene.update(unreachable=True))
    assert completed(program, "status", "") == [":4"]
