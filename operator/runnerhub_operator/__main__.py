"""Command line: `run` or `check` the operator, show the `plan` of a manifest, or print the definition."""

from __future__ import annotations

import argparse
import json
import sys


def main() -> int:
    """Entry point; gives the exit code."""
    parser = argparse.ArgumentParser(prog="runnerhub-operator", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="run the operator (settings come from the environment)")
    commands.add_parser("crd", help="print the CustomResourceDefinition as JSON")
    check = commands.add_parser(
        "check", help="tell whether the definition is served and an operator is active"
    )
    check.add_argument("--timeout", type=float, default=60, help="seconds until it must be so (60)")
    plan = commands.add_parser(
        "plan", help="print what a RunnerHubCluster manifest would change and restart; writes nothing"
    )
    plan.add_argument("-f", "--filename", required=True, help="file with the manifest, - for standard input")
    plan.add_argument("-n", "--namespace", default="default", help="namespace of manifests that name none")
    plan.add_argument("--kubeconfig", help="kubeconfig to use instead of the usual one")
    arguments = parser.parse_args()
    if arguments.command == "crd":
        from .api.crd import custom_resource_definition

        json.dump(custom_resource_definition(), sys.stdout, indent=2)
        return 0
    if arguments.command == "check":
        from .check import run as run_check

        return run_check(arguments.timeout)
    if arguments.command == "plan":
        from .preview import run as run_plan

        return run_plan(arguments.filename, arguments.namespace, arguments.kubeconfig)
    from .runtime import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
