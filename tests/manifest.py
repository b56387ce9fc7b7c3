"""Write one file that installs the operator with `kubectl apply --server-side -f`; `make manifest` runs it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.charts import NAMESPACE, installation
from tests.generate import to_yaml


def main(arguments: list[str] | None = None) -> int:
    """Write the file; what is not known here goes to Helm, such as --set and --values."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="file to write")
    parser.add_argument("--namespace", default=NAMESPACE, help=f"the operator's namespace ({NAMESPACE})")
    options, for_helm = parser.parse_known_args(arguments)
    text = to_yaml(*installation(*for_helm, namespace=options.namespace))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text)
    sys.stdout.write(f"{options.output}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
