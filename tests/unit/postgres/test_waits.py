"""Whose connection to the database stands, by the kernel's word."""

from __future__ import annotations

from images.postgres.runnerhub_postgres.waits import connected_peers

_HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
_REST = "00000000:00000000 00:00000000 00000000  1001        0 4711 1 0 20 4 30 10 -1\n"


def line(local: str, remote: str, state: str) -> str:
    return f"   0: {local} {remote} {state} {_REST}"


def test_only_connections_that_stand_and_to_this_port_count() -> None:
    text = _HEADER + "".join(
        (
            line("00000000:1538", "00000000:0000", "0A"),  # the server listens
            line("0201F40A:1538", "0301F40A:C350", "01"),
            line("0201F40A:1538", "0301F40A:C351", "08"),  # CLOSE_WAIT: the client has left
            line("0201F40A:1F48", "0301F40A:C352", "01"),  # Patroni's port
        )
    )
    assert connected_peers(text, 5432) == {("10.244.1.3", 50000)}


def test_addresses_are_those_that_postgres_tells() -> None:
    text = _HEADER + "".join(
        (
            line("0000000000000000FFFF00000201F40A:1538", "0000000000000000FFFF00000301F40A:C350", "01"),
            line("B80D0120000000000000000001000000:1538", "B80D0120000000000000000003000000:C351", "01"),
        )
    )
    assert connected_peers(text, 5432) == {("10.244.1.3", 50000), ("2001:db8::3", 50001)}
