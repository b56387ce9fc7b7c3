"""Stands in for kubectl where there is no API server: answers from a scene, and tells how it was called.

The scene is the file that SCENE names. `annotate` changes it as the operator would answer. `exec` and `logs` print
their own command line. Kinds under "forbidden" in the scene may not be read.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

FILE = Path(os.environ["SCENE"])
scene: dict[str, Any] = json.loads(FILE.read_text())


def fail(message: str) -> NoReturn:
    sys.stderr.write(f"{message}\n")
    sys.exit(1)


def option(*names: str) -> str | None:
    for index, word in enumerate(sys.argv):
        if word in names:
            return sys.argv[index + 1]
    return None


def items(kind: str) -> list[dict[str, Any]]:
    if kind in scene.get("forbidden", ()):
        fail(f'Error from server (Forbidden): {kind} is forbidden: User "dev" cannot list resource "{kind}"')
    if kind.startswith("runnerhubclusters"):
        return [scene["cluster"]] if scene["cluster"] else []
    if kind == "leases" and option("--field-selector"):
        return [*([scene["operator"]] if scene["operator"] else []), *scene.get("other operators", ())]
    found = scene.get(kind, [])
    selector = option("--selector") or ""
    for term in selector.split(","):
        if "=" in term:
            key, value = term.split("=")
            found = [item for item in found if item["metadata"].get("labels", {}).get(key) == value]
    return list(found)


def annotate(change: str) -> None:
    cluster = scene["cluster"]
    annotations = cluster["metadata"].setdefault("annotations", {})
    postgres = cluster["status"]["postgres"]
    if change.endswith("-"):
        annotations.pop(change[:-1], None)
        postgres.pop("switchover", None)
    else:
        key, value = change.split("=")
        annotations[key] = value
        result = scene.get("answer", "Done")
        said = {"request": value, "result": result, "message": f"said of {value}", "at": scene["now"]}
        postgres["switchover"] = said
        if result == "Done":
            postgres["primary"] = value
    scene.setdefault("annotated", []).append(change)
    FILE.write_text(json.dumps(scene))


def main() -> None:
    if scene.get("unreachable"):
        fail("The connection to the server 127.0.0.1:1 was refused - did you specify the right host or port?")
    match sys.argv[1:]:
        case ["config", "view", *_]:
            sys.stdout.write(scene["cluster"]["metadata"]["namespace"] if scene["cluster"] else "empty")
        case ["get", kind, name, *_] if not name.startswith("-"):
            sys.stdout.write(json.dumps(items(kind)[0]))
        case ["get", kind, *_]:
            found = items(kind)
            if (option("--output") or "").startswith("go-template"):
                sys.stdout.write("".join(f"{item['metadata']['name']}\n" for item in found))
            else:
                sys.stdout.write(json.dumps({"kind": "List", "items": found}))
        case ["apply", "--dry-run=server", *_]:
            pass
        case ["annotate", _, _, change, *_]:
            annotate(change)
        case ["exec" | "logs", *_]:
            sys.stdout.write(json.dumps(sys.argv[1:]))
            sys.exit(scene.get("exit", 0))
        case words:
            fail(f"the stand-in does not know {words}")


main()
