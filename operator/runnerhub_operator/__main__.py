"""Command line: `run` the operator, or print the CustomResourceDefinition."""

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
    arguments = parser.parse_args()
    if arguments.command == "crd":
        from .api.crd import custom_resource_definition

        json.dump(custom_resource_definition(), sys.stdout, indent=2)
        return 0
    from .runtime import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
