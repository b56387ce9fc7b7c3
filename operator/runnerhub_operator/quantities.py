"""Amounts as Kubernetes writes them: 500m, 1.5Gi, 2."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

# Source: k8s.io/apimachinery/pkg/api/resource; without the exponent form, which nobody writes.
_SUFFIXES: Final = {
    "": Decimal(1),
    "n": Decimal("0.000000001"),
    "u": Decimal("0.000001"),
    "m": Decimal("0.001"),
    "k": Decimal(10**3),
    "Ki": Decimal(2**10),
    "M": Decimal(10**6),
    "Mi": Decimal(2**20),
    "G": Decimal(10**9),
    "Gi": Decimal(2**30),
    "T": Decimal(10**12),
    "Ti": Decimal(2**40),
    "P": Decimal(10**15),
    "Pi": Decimal(2**50),
    "E": Decimal(10**18),
    "Ei": Decimal(2**60),
}


_QUANTITY: Final = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?)([numkMGTPE]|[KMGTPE]i)?", re.ASCII)


def parse_quantity(text: str) -> Decimal | None:
    """The amount in units (cores, bytes); None when the text is no quantity."""
    found = _QUANTITY.fullmatch(text)
    return Decimal(found[1]) * _SUFFIXES[found[2] or ""] if found is not None else None


def quantity(text: str) -> Decimal:
    """The amount of a text that is known to be a quantity; raises ValueError when it is none."""
    amount = parse_quantity(text)
    if amount is None:
        raise ValueError(f"not a quantity: {text!r}")
    return amount
