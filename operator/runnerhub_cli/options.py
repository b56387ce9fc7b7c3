"""Arguments and options that commands share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from .errors import CliError
from .kubectl import CLUSTERS, Kubectl
from .output import Format
from .sessions import LOG_COMPONENTS


def _from_line(context: typer.Context) -> Kubectl:
    """kubectl as the words that are there already name its target."""
    words = context.params
    return Kubectl(words.get("namespace"), words.get("context"), words.get("kubeconfig"))


def complete_clusters(context: typer.Context, incomplete: str) -> Iterator[str]:
    """Names of RunnerHubClusters."""
    yield from _names(context, incomplete, CLUSTERS, "")


def complete_members(context: typer.Context, incomplete: str) -> Iterator[str]:
    """Names of the pods of the database."""
    yield from _names(context, incomplete, "pods", "runnerhub.io/cluster,runnerhub.io/component=postgres")


def complete_namespaces(context: typer.Context, incomplete: str) -> Iterator[str]:
    """Names of namespaces."""
    yield from _names(context, incomplete, "namespaces", "")


def complete_contexts(context: typer.Context, incomplete: str) -> Iterator[str]:
    """Contexts of the kubeconfig."""
    yield from _lines(_from_line(context), incomplete, "config", "get-contexts", "--output", "name")


def complete_components(incomplete: str) -> Iterator[str]:
    """Components with logs."""
    yield from (name for name in LOG_COMPONENTS if name.startswith(incomplete))


def _names(context: typer.Context, incomplete: str, kind: str, selector: str) -> Iterator[str]:
    words = ["get", kind, "--output", 'go-template={{range .items}}{{.metadata.name}}{{"\\n"}}{{end}}']
    words += ["--selector", selector] if selector else []
    yield from _lines(_from_line(context), incomplete, *words, "--request-timeout=3s")


def _lines(kubectl: Kubectl, incomplete: str, *words: str) -> Iterator[str]:
    try:
        lines = kubectl.text(*words, seconds=3).split()
    except CliError:
        # Nothing to offer is no reason to disturb somebody who types.
        return
    yield from (line for line in lines if line.startswith(incomplete))


Name = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]",
        help="The RunnerHubCluster; may be left out when the namespace has exactly one.",
        autocompletion=complete_clusters,
        show_default=False,
    ),
]
Member = Annotated[
    str,
    typer.Argument(
        metavar="POD", help="The Postgres member that shall be the primary.", autocompletion=complete_members
    ),
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="NAME",
        help="The RunnerHubCluster; may be left out when the namespace has exactly one.",
        autocompletion=complete_clusters,
        show_default=False,
    ),
]
LogComponent = Annotated[
    str,
    typer.Argument(
        metavar="COMPONENT",
        help=f"One of: {', '.join(LOG_COMPONENTS)}.",
        autocompletion=complete_components,
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        metavar="NAMESPACE",
        help="The namespace of the cluster. Default: that of the kubeconfig's context.",
        autocompletion=complete_namespaces,
        show_default=False,
    ),
]
Context = Annotated[
    str | None,
    typer.Option(
        "--context",
        metavar="CONTEXT",
        help="The context of the kubeconfig.",
        autocompletion=complete_contexts,
        show_default=False,
    ),
]
Kubeconfig = Annotated[
    str | None,
    typer.Option("--kubeconfig", metavar="FILE", help="The kubeconfig to use.", show_default=False),
]
Output = Annotated[
    Format,
    typer.Option(
        "--output",
        "-o",
        metavar="FORMAT",
        help="table, wide (with more columns), or json and yaml for programs.",
    ),
]
Filename = Annotated[
    str,
    typer.Option(
        "--filename", "-f", metavar="FILE", help="The manifest; - for standard input.", show_default=False
    ),
]
ManifestToCheck = Annotated[
    str | None,
    typer.Option(
        "--filename",
        "-f",
        metavar="FILE",
        help="Judge a manifest before it is applied; - for standard input.",
        show_default=False,
    ),
]
Programs = Annotated[
    list[str] | None,
    typer.Argument(metavar="[-- ARGUMENTS]", help="Arguments for the program itself.", show_default=False),
]


def target(
    context: typer.Context, namespace: str | None, kube_context: str | None, kubeconfig: str | None
) -> Kubectl:
    """kubectl for a command: its own options, else those before its name."""
    before: Any = context.obj if isinstance(context.obj, Kubectl) else Kubectl()
    return Kubectl(
        namespace or before.namespace, kube_context or before.context, kubeconfig or before.kubeconfig
    )
