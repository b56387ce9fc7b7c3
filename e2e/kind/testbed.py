#!/usr/bin/env python3
"""The test bed's command line: from an empty machine to a kind cluster with the product's images on it.

Needs nothing but Python: it runs before any virtual environment exists.
"""

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from kindbed import (
    baseimage,
    cluster,
    engine,
    gotools,
    guard,
    nodeimage,
    paths,
    prerequisites,
    productimages,
    pythonenv,
    versions,
)
from kindbed.console import TestBedError, say, step


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 when it worked, 1 after a sentence on standard error, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    try:
        _COMMANDS[options.command](options)
    except TestBedError as problem:
        print(f"test bed: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("test bed: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="testbed.py", description=__doc__)
    parser.add_argument("--name", default=versions.DEFAULT_CLUSTER, help="name of the kind cluster")
    parser.add_argument("--kubeconfig", type=Path, default=paths.KUBECONFIG, help="kubeconfig file to write")
    parser.add_argument("--venv", type=Path, default=paths.BUILD_DIR / "venv", help=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, command in _COMMANDS.items():
        sub = commands.add_parser(name, help=(command.__doc__ or "").splitlines()[0])
        if name == "venv":
            sub.add_argument("venv", type=Path, help="folder of the environment")
        if name == "plugin":
            sub.add_argument("output", type=Path, help="file to write")
    return parser


def _cluster(options: argparse.Namespace) -> cluster.Cluster:
    return cluster.Cluster(engine.choose(), options.name, options.kubeconfig)


def _check(_options: argparse.Namespace) -> None:
    """Check the machine and install missing packages (Debian, as root)."""
    prerequisites.ensure()
    kind = "upstream images" if engine.choose().is_docker else "images made from packages"
    say(f"the machine is fit; engine: {engine.choose().command}, {kind}")


def _tools(_options: argparse.Namespace) -> None:
    """Build the pinned Go tools that the cluster, the tests and the checks use."""
    prerequisites.ensure()
    needed = set(gotools.CLUSTER_TOOLS + gotools.DEVELOPER_TOOLS + gotools.API_SERVER_TOOLS)
    if not engine.choose().is_docker:
        needed.update(gotools.NODE_IMAGE_TOOLS)
    for name, path in sorted(gotools.ensure(*gotools.in_build_order(needed)).items()):
        say(f"{name:24} {path}")


def _base(_options: argparse.Namespace) -> None:
    """Make the Debian base image."""
    prerequisites.ensure()
    say(baseimage.ensure(engine.choose()))


def _node_image(_options: argparse.Namespace) -> None:
    """Make the node image."""
    prerequisites.ensure()
    say(nodeimage.ensure(engine.choose()))


def _images(_options: argparse.Namespace) -> None:
    """Build the product's images whose inputs changed."""
    prerequisites.ensure()
    for name in productimages.build(engine.choose()):
        say(productimages.image_name(name))


def _up(options: argparse.Namespace) -> None:
    """Create the cluster, or leave it as it is when it is healthy."""
    prerequisites.ensure()
    cluster.up(_cluster(options))


def _load(options: argparse.Namespace) -> None:
    """Build the product's images and load them onto the cluster's nodes."""
    prerequisites.ensure()
    productimages.load(_cluster(options))


def _down(options: argparse.Namespace) -> None:
    """Delete the cluster."""
    cluster.down(_cluster(options))


def _clean(options: argparse.Namespace) -> None:
    """Delete the cluster, the traffic guard and build/; caches and images stay for the next time."""
    chosen = engine.choose()
    for name in cluster.names(chosen):
        cluster.down(cluster.Cluster(chosen, name, options.kubeconfig))
    guard.lower_guard(chosen)
    with step(f"remove {paths.BUILD_DIR}"):
        shutil.rmtree(paths.BUILD_DIR, ignore_errors=True)


def _venv(options: argparse.Namespace) -> None:
    """Make the Python environment."""
    pythonenv.make(options.venv)


def _plugin(options: argparse.Namespace) -> None:
    """Build the plugin for kubectl as one file."""
    pythonenv.plugin(options.output)


def _servers(_options: argparse.Namespace) -> None:
    """Install the servers that the integration tests start for themselves: Postgres, Redis, PgBouncer, HAProxy."""
    # Debian keeps Postgres' programs out of PATH; what starts them is in it.
    prerequisites.ensure_packages(
        {
            "postgresql": "pg_ctlcluster",
            "redis-server": "redis-server",
            "pgbouncer": "pgbouncer",
            "haproxy": "haproxy",
            "openssl": "openssl",
        }
    )


def _lint(options: argparse.Namespace) -> None:
    """Check Dockerfiles, chart and workflows."""
    pythonenv.lint(options.venv)


_COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "check": _check,
    "tools": _tools,
    "base": _base,
    "node-image": _node_image,
    "images": _images,
    "cluster": _up,
    "load": _load,
    "down": _down,
    "clean": _clean,
    "venv": _venv,
    "plugin": _plugin,
    "servers": _servers,
    "lint": _lint,
}

if __name__ == "__main__":
    sys.exit(main())
