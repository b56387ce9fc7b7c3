"""Longest gaps between acknowledged writes, by the logs alone.

Asked again and again while a fault is under way, so nothing is imported here that takes long.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import oracle, terms
from .journal import read
from .oracle import Window


def gaps(directory: Path, window: Window) -> dict[str, Any]:
    """The longest gap of each probe within the window, and of each store over all its writers; a JSON object.

    Where WebSockets were held, or somebody asked who leads, also what came of that.
    """
    probes = [probe for probe in oracle.GAP_KINDS if (directory / f"{probe}.jsonl").exists()]
    stores = {store: [probe for probe in of if probe in probes] for store, of in oracle.STORES.items()}
    return {
        "since": window.since,
        "until": window.until,
        "probes": {probe: _gap(directory, (probe,), window) for probe in probes},
        "stores": {store: _gap(directory, writers, window) for store, writers in stores.items() if writers},
        **{
            probe: judge(read(directory, probe, window.since), window)
            for probe, judge in (("websocket", oracle.judge_websockets), ("leaders", terms.judge))
            if (directory / f"{probe}.jsonl").exists()
        },
    }


def _gap(directory: Path, probes: Sequence[str], window: Window) -> dict[str, Any]:
    records = itertools.chain.from_iterable(read(directory, probe, window.since) for probe in probes)
    kinds = {oracle.GAP_KINDS[probe] for probe in probes}
    return oracle.longest_gap(records, kinds, window).as_json()
