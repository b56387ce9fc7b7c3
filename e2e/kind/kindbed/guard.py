"""The traffic guard: what runs in the cluster can reach the cluster and this machine, and nothing beyond.

A table of its own in nftables, ordered before the engine's rules: an accept in the engine's chains cannot
undo a reject in this one, whatever order the engine inserts its rules in, and removing it is one command.
"""

import json
import subprocess

from kindbed.console import TestBedError, output_of, succeeds
from kindbed.engine import NETWORK, Engine, as_root
from kindbed.versions import upstream_node_image

TABLE = "runnerhub_testbed"
# Packets to the address of a pod that is gone take the nodes' default route. They are dropped in silence, as
# in real networks: a quick refusal would make failovers look faster than they are.
POD_SUBNET = "10.244.0.0/16"


def ensure_network(engine: Engine) -> str:
    """Create the cluster's network when it is missing; returns the name of its bridge interface."""
    if not engine.succeeds("network", "inspect", NETWORK):
        engine.output("network", "create", "--driver", "bridge", NETWORK)
    network = json.loads(engine.output("network", "inspect", NETWORK))[0]
    if engine.is_docker:
        named = network.get("Options", {}).get("com.docker.network.bridge.name")
        return str(named or f"br-{network['Id'][:12]}")
    return str(network["network_interface"])


def raise_guard(engine: Engine, bridge: str) -> None:
    """Reject what the bridge would forward to other interfaces, IPv4 and IPv6; keeps an existing guard."""
    current = _current_rules(engine)
    if f'"{bridge}"' in current and POD_SUBNET in current:
        return
    _nft(
        engine,
        f"""
        table inet {TABLE} {{}}
        delete table inet {TABLE}
        table inet {TABLE} {{
            chain forward {{
                type filter hook forward priority filter - 10; policy accept;
                iifname "{bridge}" oifname != "{bridge}" ip daddr {POD_SUBNET} counter drop
                iifname "{bridge}" oifname != "{bridge}" counter reject with icmpx type admin-prohibited
            }}
        }}
        """,
    )


def lower_guard(engine: Engine) -> None:
    """Remove the guard and the network; harmless when there is none."""
    if _current_rules(engine):
        _nft(engine, f"delete table inet {TABLE}")
    if engine.succeeds("network", "inspect", NETWORK):
        engine.output("network", "rm", NETWORK)


def rejected_packets(engine: Engine) -> int:
    """How many packets the guard has turned back."""
    for line in _current_rules(engine).splitlines():
        words = line.split()
        if "reject" in words:
            return int(words[words.index("packets") + 1])
    return 0


def _nft_command(engine: Engine, *arguments: str) -> list[str]:
    command = as_root(["nft", *arguments])
    if command and succeeds(as_root(["nft", "--version"]) or []):
        return command
    if engine.is_docker:
        # Who may use Docker may do this too; the node image brings nft.
        return [
            "docker", "run", "--rm", "--interactive", "--privileged", "--network", "host",
            "--entrypoint", "nft", upstream_node_image(), *arguments,
        ]  # fmt: skip
    raise TestBedError("the traffic guard needs nft (Debian package nftables)")


def _current_rules(engine: Engine) -> str:
    try:
        return output_of(_nft_command(engine, "list", "table", "inet", TABLE))
    except TestBedError:
        return ""


def _nft(engine: Engine, script: str) -> None:
    done = subprocess.run(
        _nft_command(engine, "-f", "-"), input=script, text=True, capture_output=True, check=False
    )
    if done.returncode != 0:
        raise TestBedError(f"the traffic guard could not be set: {done.stderr.strip()}")
