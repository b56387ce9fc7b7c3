"""The commands. Each reads its arguments, calls what does the work, and shows what came of it."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live

from runnerhub_operator import __version__, names
from runnerhub_operator.api import parse_status

from . import bundle, preview, sessions
from .doctor.findings import exit_code
from .doctor.gather import gather
from .doctor.judge import judge
from .doctor.report import findings_screen
from .errors import CliError
from .kubectl import Kubectl, KubectlError
from .objects import Lease, Pod
from .operators import OPERATOR_SELECTOR, operator_namespace
from .options import (
    ClusterOption,
    Context,
    Filename,
    Kubeconfig,
    LogComponent,
    ManifestToCheck,
    Member,
    Name,
    Namespace,
    Output,
    Programs,
    target,
)
from .output import Format, console_for, is_plain, progress, show, show_data, text_of
from .picture import look
from .reading import read_cluster, read_picture
from .screen import failovers_table, leases_table, summary_screen
from .status import Summary, summarise
from .switchover import TIMEOUT_SECONDS, Switchover, check

app = typer.Typer(
    name="runnerhub",
    help="See and steer RunnerHubClusters: what is going on, what is wrong, what to do.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"{__version__}\n")
        raise typer.Exit


@app.callback()
def before_commands(
    context: typer.Context,
    namespace: Namespace = None,
    kube_context: Context = None,
    kubeconfig: Kubeconfig = None,
    version: Annotated[  # noqa: ARG001 - its callback has done all
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Options for all commands may stand before a command's name, too."""
    context.obj = Kubectl(namespace, kube_context, kubeconfig)


@app.command(short_help="One cluster on one screen, and what to do next")
def status(
    context: typer.Context,
    name: Name = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on showing it until interrupted, anew when it changes.")
    ] = False,
    interval: Annotated[
        float,
        typer.Option("--interval", metavar="SECONDS", min=1, help="Seconds between two looks of --watch."),
    ] = 2.0,
    output: Output = Format.TABLE,
    namespace: Namespace = None,
    kube_context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show one cluster on one screen: its state, who has which role, what is going on, and what to do next.

    Exit code: 0 it serves and nothing is missing, 1 it serves but needs a look, 2 it does not serve, 3 not known.
    """
    kubectl = target(context, namespace, kube_context, kubeconfig)
    if watch:
        _watch(kubectl, name, output, interval)
        return
    summary, now = _look(kubectl, name)
    _show_summary(summary, now, output)
    raise typer.Exit(summary.level)


def _look(kubectl: Kubectl, name: str | None) -> tuple[Summary, datetime]:
    picture = read_picture(kubectl, name)
    return summarise(picture), picture.now


def _show_summary(summary: Summary, now: datetime, output: Format) -> None:
    if output in (Format.JSON, Format.YAML):
        show_data(summary, output)
    else:
        show(summary_screen(summary, now, wide=output is Format.WIDE))


def _watch(kubectl: Kubectl, name: str | None, output: Format, interval: float) -> None:
    if output in (Format.JSON, Format.YAML) or is_plain(sys.stdout):
        _follow(kubectl, name, output, interval)
        return
    console = console_for(sys.stdout)
    wide = output is Format.WIDE
    with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            try:
                summary, now = _look(kubectl, name)
                live.update(summary_screen(summary, now, wide=wide), refresh=True)
            except KubectlError as error:
                # During a failover of the API server the last picture would lie; the next look may succeed.
                live.update(f"{datetime.now(UTC):%H:%M:%S} UTC: {error}", refresh=True)
            time.sleep(interval)


def _follow(kubectl: Kubectl, name: str | None, output: Format, interval: float) -> None:
    """One text after the other, each time something other than its age changed."""
    last = None
    while True:
        try:
            summary, now = _look(kubectl, name)
        except KubectlError as error:
            # As on a screen: the next look may succeed.
            sys.stderr.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {error}\n")
            time.sleep(interval)
            continue
        # The operator's own heartbeat and ages are no change.
        essence = (
            [(item.status, item.reason, item.message) for item in summary.conditions],
            summary.components,
        )
        if essence != last:
            last = essence
            if output is Format.TABLE or output is Format.WIDE:
                sys.stdout.write(f"--- {now:%Y-%m-%dT%H:%M:%SZ}\n")
            elif output is Format.YAML:
                sys.stdout.write("---\n")
            _show_summary(summary, now, output)
            sys.stdout.flush()
        time.sleep(interval)


@app.command(short_help="What is wrong, and what to do about it")
def doctor(
    context: typer.Context,
    name: Name = None,
    filename: ManifestToCheck = None,
    output: Output = Format.TABLE,
    namespace: Namespace = None,
    kube_context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Find out what is wrong, or would be: Kubernetes, the operator, permissions, storage, room, pods, Secrets.

    Each finding comes with what to do. Without a cluster it tells whether one could be made. It reads only.

    Exit code: 0 nothing to do, 1 warnings, 2 errors, 3 it could not be found out.
    """
    kubectl = target(context, namespace, kube_context, kubeconfig)
    manifest = None
    if filename is not None:
        manifests = preview.manifests_of(preview.read_file(filename, sys.stdin), filename)
        if len(manifests) > 1:
            raise CliError(f"{filename} has several RunnerHubClusters; doctor looks at one")
        manifest = manifests[0]
    with progress("looking"):
        facts = gather(kubectl, name, manifest, __version__)
    findings = judge(facts)
    code = exit_code(findings)
    if output in (Format.JSON, Format.YAML):
        show_data({"level": code, "findings": findings}, output)
    else:
        show(findings_screen(findings))
    raise typer.Exit(code)


@app.command(short_help="The last ten elections")
def failovers(
    context: typer.Context,
    name: Name = None,
    output: Output = Format.TABLE,
    namespace: Namespace = None,
    kube_context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List the last ten elections: who took over from whom, when, why, and how long it took."""
    body, _ = read_cluster(target(context, namespace, kube_context, kubeconfig), name)
    found = parse_status(body).failovers
    if output in (Format.JSON, Format.YAML):
        show_data(found, output)
    elif found:
        show(failovers_table(found, datetime.now(UTC), wide=output is Format.WIDE))
    else:
        sys.stderr.write("no election was seen\n")


@app.command(short_help="Who has which role, and who may disrupt")
def leases(
    context: typer.Context,
    name: Name = None,
    output: Output = Format.TABLE,
    namespace: Namespace = None,
    kube_context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List the Leases: who has which role, who may disrupt, which operator is at work."""
    picture = read_picture(target(context, namespace, kube_context, kubeconfig), name)
    purposes = {
        names.postgres_primary_lease(picture.name): "tells the Postgres primary; changes follow the timeline",
        names.redis_master_lease(picture.name): "tells the Redis master; changes follow Sentinel's epoch",
        names.leader_lease(picture.name): "the orchestrator that does the singleton work",
        names.disruption_lease(picture.name): "the right to disrupt: rolling change, repair",
    }
    rows = [(lease, purposes[lease.name]) for lease in picture.leases if lease.name in purposes]
    if isinstance(picture.operator, Lease):
        rows.append((picture.operator, "the operator that is at work"))
    if output in (Format.JSON, Format.YAML):
        show_data([lease for lease, _ in rows], output)
    else:
        show(leases_table(rows, picture.now, wide=output is Format.WIDE))


@app.command(short_help="The logs of all pods of a component")
def logs(
    context: typer.Context,
    component: LogComponent,
    cluster: ClusterOption = None,
    container: Annotated[
        str | None,
        typer.Option(
            "--container", "-c", help="One container of the pods. Default: all.", show_default=False
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until interrupted.")] = False,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="TIME", help="Only newer than this, such as 10m.", show_default=False
        ),
    ] = None,
    tail: Annotated[
        int | None,
        typer.Option(
            "--tail",
            metavar="LINES",
            min=0,
            help="Only so many of the newest lines of each container.",
            show_default=False,
        ),
    ] = None,
    previous: Annotated[
        bool, typer.Option("--previous", "-p", help="Of the containers before their last restart.")
    ] = False,
    prefix: Annotated[bool, typer.Option(help="Pod and container at the beginning of each line.")] = True,
    timestamps: Annotated[
        bool, typer.Option("--timestamps", help="The time at which Kubernetes got each line.")
    ] = False,
    namespace: Namespace = None,
    kube_context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show the logs of all pods of a component, or of the operator.

    --follow shows the pods that there are now; start it anew when one was replaced.
    """
    if component not in sessions.LOG_COMPONENTS:
        raise CliError(f"{component} is no component; there are: {', '.join(sessions.LOG_COMPONENTS)}")
    kubectl = target(context, namespace, kube_context, kubeconfig)
    options = sessions.LogOptions(container, follow, since, tail, prefix, timestamps, previous)
    if component == sessions.OPERATOR:
        there, selector = kubectl.in_namespace(operator_namespace(kubectl)), OPERATOR_SELECTOR
        what = f"the operator in {there.namespace}"
    else:
        body, there = read_cluster(kubectl, cluster)
        chosen = body["metadata"]["name"]
        labels = names.selector_labels(chosen, component)
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        what = f"{component} of {chosen}"
    pods = [Pod.of(item) for item in there.items("pods", selector=selector)]
    there.become(*sessions.log_words(selector, pods, options, what))


@app.command(short_help="psql in the primary's pod, or a replica's")
def psql(
    context: typer.Context,
    arguments: Programs = None,
    cluster: ClusterOption = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="In a replica, which cannot write and is not in the way.")
    ] = False,
    namespace: Namespace = None,
    kube_context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Open psql in the pod of the Postgres primary, as the superuser. No password is needed or shown.

    Arguments for psql come after --: `kubectl runnerhub psql -- -c 'select 1'`. Its exit code is psql's.
    """
    picture = read_picture(target(context, namespace, kube_context, kubeconfig), cluster)
    session = sessions.psql(look(picture), arguments or (), read_only=read_only, terminal=_has_terminal())
    _enter(context, session, picture.namespace, kube_context, kubeconfig)


@app.command("redis-cli", short_help="redis-cli in the master's pod")
def redis_cli(
    context: typer.Context,
    arguments: Programs = None,
    cluster: ClusterOption = None,
    sentinel: Annotated[bool, typer.Option("--sentinel", help="Ask the Sentinel beside the master.")] = False,
    namespace: Namespace = None,
    kube_context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Open redis-cli in the pod of the Redis master. The password is read in the pod and shown nowhere.

    Arguments for redis-cli come after --: `kubectl runnerhub redis-cli -- info replication`. Its exit code is
    redis-cli's.
    """
    picture = read_picture(target(context, namespace, kube_context, kubeconfig), cluster)
    session = sessions.redis_cli(look(picture), arguments or (), sentinel=sentinel, terminal=_has_terminal())
    _enter(context, session, picture.namespace, kube_context, kubeconfig)


def _has_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _enter(
    context: typer.Context,
    session: sessions.Session,
    namespace: str,
    kube_context: str | None,
    kubeconfig: str | None,
) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"in {session.note}\n")
    target(context, namespace, kube_context, kubeconfig).become(*session.words)


@app.command(short_help="What a manifest would change and restart")
def plan(
    context: typer.Context,
    filename: Filename,
    output: Output = Format.TABLE,
    namespace: Namespace = None,
    kube_context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show what the operator would change and restart, and in which order, if a manifest were applied.

    The API server is asked whether it would take it, then the operator that runs, in its pod. Nothing is written.

    Exit code: 0 also when nothing would change, 2 the manifest would be refused, 3 it could not be found out.
    """
    kubectl = target(context, namespace, kube_context, kubeconfig)
    manifests = preview.manifests_of(preview.read_file(filename, sys.stdin), filename)
    as_data = output in (Format.JSON, Format.YAML)
    with progress("asking the operator"):
        for manifest in manifests:
            preview.check(kubectl, manifest)
        plans = [preview.plan(kubectl, manifest, as_json=as_data) for manifest in manifests]
    if as_data:
        show_data([item for text in plans for item in preview.parsed(text)], output)
    else:
        sys.stdout.write("\n".join(plans))


@app.command(short_help="Make another Postgres member the primary")
def switchover(
    context: typer.Context,
    pod: Member,
    cluster: ClusterOption = None,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            min=1,
            help="Seconds to wait; the operator itself gives up after ten minutes.",
        ),
    ] = TIMEOUT_SECONDS,
    output: Output = Format.TABLE,
    namespace: Namespace = None,
    kube_context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Make a Postgres member the primary, and wait until it is. Clients see a delay of a second or two, no error.

    Exit code: 0 done, 2 refused, 3 not decided in time (the request stays).
    """
    body, kubectl = read_cluster(target(context, namespace, kube_context, kubeconfig), cluster)
    check(body, pod)
    name = body["metadata"]["name"]
    with progress(f"switching over to {pod}") as shown:

        def tell(line: str) -> None:
            if is_plain(sys.stderr):
                sys.stderr.write(f"{line}\n")
            else:
                shown.console.print(line)

        try:
            outcome = Switchover(kubectl, name, pod, tell).run(body, timeout)
        except KeyboardInterrupt:
            undo = f"kubectl annotate rhc {name} {names.ANNOTATION_SWITCH_PRIMARY}- -n {kubectl.namespace}"
            sys.stderr.write(f"the request stays; to take it back: {undo}\n")
            raise
    if output in (Format.JSON, Format.YAML):
        show_data(outcome, output)
    else:
        sys.stdout.write(
            f"{outcome.result}: {outcome.message}; it was {outcome.primary_before or 'nobody'}; "
            f"{outcome.seconds:.1f} s\n"
        )
    raise typer.Exit(outcome.code)


@app.command("support-bundle", short_help="An archive for those who help, without passwords")
def support_bundle(
    context: typer.Context,
    name: Name = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="Where to write it. Default: a name with cluster and time.",
            show_default=False,
        ),
    ] = None,
    namespace: Namespace = None,
    kube_context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Write an archive with everything that others need to help: objects, Events, logs. Passwords are taken out."""
    kubectl = target(context, namespace, kube_context, kubeconfig)
    body, there = read_cluster(kubectl, name)
    chosen, now = body["metadata"]["name"], datetime.now(UTC)
    path = file or Path(bundle.default_name(body, now))
    if path.exists():
        raise CliError(f"{path} exists already")
    screens = {
        "status.txt": lambda: _status_text(there, chosen),
        "doctor.txt": lambda: text_of(findings_screen(judge(gather(there, chosen, None, __version__)))),
    }
    with progress("gathering") as shown:
        made = bundle.collect(
            there, body, screens, lambda what: shown.update(shown.task_ids[0], description=what)
        )
    bundle.write(made, path, body, now)
    if made.missing:
        sys.stderr.write(
            f"{len(made.missing)} things could not be had, README.txt in the archive names them\n"
        )
    sys.stdout.write(f"{path}\n")


def _status_text(kubectl: Kubectl, name: str) -> str:
    summary, now = _look(kubectl, name)
    return text_of(summary_screen(summary, now, wide=True))
