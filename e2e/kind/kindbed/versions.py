"""Versions and names that several parts share. The Go components' versions live in tools/*/go.mod."""

KUBERNETES = "v1.35.4"
# The image names below are the ones that kubeadm of this Kubernetes version asks for
# (`kubeadm config images list`); the node image carries our own builds under these names.
ETCD_IMAGE = "registry.k8s.io/etcd:3.6.6-0"
COREDNS_IMAGE = "registry.k8s.io/coredns/coredns:v1.13.1"
PAUSE_IMAGE = "registry.k8s.io/pause:3.10.1"
KUBE_IMAGES = "registry.k8s.io"

# Newest published node image of the same minor version, by digest, for machines with Docker and a registry.
UPSTREAM_NODE_IMAGE = (
    "kindest/node:v1.35.5@sha256:ce977ae6d65918d0b58a5f8b5e940429c2ce42fa3a5619ec2bbc60b949c0ac95"
)
UPSTREAM_BASE_IMAGE = "debian:trixie-slim"

DEBIAN_SUITE = "trixie"
PRODUCT_VERSION = "0.1.0"
PRODUCT_REGISTRY = "ghcr.io/runnerhub"
DEFAULT_CLUSTER = "runnerhub"
