"""The Gateway API's definitions of HTTPRoute and Gateway, as far as the operator uses them."""

from __future__ import annotations

from typing import Any

GROUP = "gateway.networking.k8s.io"


def _definition(kind: str) -> dict[str, Any]:
    plural = f"{kind.lower()}s"
    return {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": f"{plural}.{GROUP}",
        "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api/pull/3328"},
    },
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {
            "kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()
        },
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            name: {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                            for name in ("spec", "status")
                        },
                    }
                },
            }
        ],
    },
}  # fmt: skip


DEFINITION = _definition("HTTPRoute")
GATEWAY_DEFINITION = _definition("Gateway")
