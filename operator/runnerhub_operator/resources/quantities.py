"""Kubernetes quantities as numbers."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

_FACTORS: Final = {
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


def bytes_of(quantity: str) -> int:
    """Bytes that a validated quantity stands for, such as 10Gi; parts of a byte are cut off.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
    """
    number = quantity.rstrip("kKMGTim")
    return int(Decimal(number) * _FACTORS.get(quantity[len(number) :], Decimal(1)))
