"""Amounts as Kubernetes writes them: 500m, 1.5Gi, 2."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Final

# Source: k8s.io/apimachinery/pkg/api/resource; without the exponent form, which nobody writes.
_SUFFIXES: Final = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    "k": Decimal(10**3),
    "Ki": Decimal(2**10),
    "M": Decimal(10**6),
    "Mi": Decimal(2**20),
    "G": Decimal(10**9),
    "Gi": Decimal(2**30),
    "T": Decimal(10**12),
    "Ti": Decimal(2**40),
}


def parse_quantity(text: str) -> Decimal | None:
    """The amount in units (cores, bytes); None when the text is no quantity."""
    if not text[:1].isdigit():
        return None
    number = text.rstrip("kKMGTim")
    factor = _SUFFIXES.get(text[len(number) :])
    if factor is None:
        return None
    try:
        return Decimal(number) * factor
    except InvalidOperation:
        return None


def quantity(text: str) -> Decimal:
    """The amount of a text that is known to be a quantity; raises ValueError when it is none."""
    amount = parse_quantity(text)
    if amount is None:
        raise ValueError(f"not a quantity: {text!r}")
    return amount
