"""Quantities mean what Kubernetes means by them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from runnerhub_operator.api import ResourceRequirements
from runnerhub_operator.quantities import parse_quantity, quantity
from runnerhub_operator.resources.common import resource_requirements


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1", 1),
        ("64Mi", 2**26),
        ("1.5Gi", 3 * 2**29),
        ("2k", 2000),
        ("1Ki", 1024),
        ("100m", Decimal("0.1")),
        ("1E", 10**18),
        ("100n", Decimal("1e-7")),
    ],
)
def test_quantities(text: str, amount: int) -> None:
    assert quantity(text) == amount


@pytest.mark.parametrize("text", ["", "much", "1Xi", "1.2.3", "-1", "12e9876543210", "1e3", "1."])
def test_what_is_no_quantity(text: str) -> None:
    assert parse_quantity(text) is None
    with pytest.raises(ValueError, match="not a quantity"):
        quantity(text)


def test_default_requests_never_exceed_a_limit() -> None:
    given = ResourceRequirements.model_validate({"limits": {"memory": "128Mi"}})
    assert resource_requirements(given, cpu="50m", memory="256Mi") == {
        "requests": {"cpu": "50m", "memory": "128Mi"},
        "limits": {"memory": "128Mi"},
    }
