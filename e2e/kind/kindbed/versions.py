"""Versions and names that several parts share. The Go components' versions live in tools/*/go.mod."""

import os

from kindbed.console import TestBedError
from kindbed.paths import REPOSITORY

KUBERNETES = "v1.35.4"
# The image names below are the ones that kubeadm of this Kubernetes version asks for
# (`kubeadm config images list`); the node image carries our own builds under these names.
ETCD_IMAGE = "registry.k8s.io/etcd:3.6.6-0"
COREDNS_IMAGE = "registry.k8s.io/coredns/coredns:v1.13.1"
PAUSE_IMAGE = "registry.k8s.io/pause:3.10.1"
KUBE_IMAGES = "registry.k8s.io"

# The supported versions of Kubernetes, oldest first: those that CI tests. Documents, charts, workflow, doctor follow.
# Each with its newest published node image, by digest, for machines with Docker and a registry. The last four are
# those of the pinned kind; older ones come from earlier releases of kind. Before 1.30 a preStop hook could not sleep.
NODE_IMAGES = {
    "1.30": "kindest/node:v1.30.13@sha256:397209b3d947d154f6641f2d0ce8d473732bd91c87d9575ade99049aa33cd648",
    "1.31": "kindest/node:v1.31.14@sha256:6f86cf509dbb42767b6e79debc3f2c32e4ee01386f0489b3b2be24b0a55aac2b",
    "1.32": "kindest/node:v1.32.11@sha256:5fc52d52a7b9574015299724bd68f183702956aa4a2116ae75a63cb574b35af8",
    "1.33": "kindest/node:v1.33.12@sha256:3f5c8443c620245e4d355cfe09e96a91ead32ceaa569d3f1ca9edf0cb2fe2ff4",
    "1.34": "kindest/node:v1.34.11@sha256:44e222ee2132dab25ff87301682f89eb82c7880ea3a1bf543bfe9708fd08d67d",
    "1.35": "kindest/node:v1.35.8@sha256:07b2536e30b803ed61d1677a79df6115f798ce64c80f9e22f6ed45afd09323c0",
    "1.36": "kindest/node:v1.36.4@sha256:099e049362a1526b2db71494e1947aae99bd16290d7c895f2b7ea312e3cbfaed",
    "1.37": "kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5",
}
# Names another one of them than the version of KUBERNETES.
KUBERNETES_VARIABLE = "RUNNERHUB_KUBERNETES"
UPSTREAM_BASE_IMAGE = "debian:trixie-slim"

DEBIAN_SUITE = "trixie"
# Read and not imported, because the test bed runs before the operator's libraries are there.
_SAYS_VERSION = REPOSITORY / "operator" / "runnerhub_operator" / "__init__.py"
PRODUCT_VERSION = _SAYS_VERSION.read_text().partition('__version__ = "')[2].partition('"')[0]
PRODUCT_REGISTRY = "ghcr.io/runnerhub"
DEFAULT_CLUSTER = "runnerhub"


def kubernetes_minor() -> str:
    """The wanted minor version of Kubernetes, such as 1.35; raises TestBedError for one that is not supported."""
    wanted = os.environ.get(KUBERNETES_VARIABLE) or ".".join(KUBERNETES.lstrip("v").split(".")[:2])
    if wanted not in NODE_IMAGES:
        raise TestBedError(f"{KUBERNETES_VARIABLE} must be one of {', '.join(NODE_IMAGES)}, not {wanted!r}")
    return wanted


def upstream_node_image() -> str:
    """The published node image of the wanted version."""
    return NODE_IMAGES[kubernetes_minor()]
