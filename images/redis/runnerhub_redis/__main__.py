"""`python3 -m runnerhub_redis redis|sentinel`."""

from __future__ import annotations

import sys

from . import sentinel_pod
from .log import log
from .redis_pod import RedisPod
from .settings import Paths, load


def main(arguments: list[str]) -> int:
    """Run one container."""
    if arguments not in (["redis"], ["sentinel"]):
        log("expected one argument: redis or sentinel", arguments=arguments)
        return 2
    try:
        settings = load(Paths(), arguments[0])
    except (OSError, KeyError, ValueError) as error:
        log("the pod is set up wrongly", error=repr(error))
        return 2
    if arguments == ["redis"]:
        return RedisPod(settings).run()
    return sentinel_pod.run(settings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
