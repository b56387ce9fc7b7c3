#!/bin/sh
# cgroup v2: kubelet expects its root group to exist with all controllers. systemd has moved every process out
# of the container's root group by the time kubelet starts, so controllers can be handed down now and not earlier.
set -eu

root=/sys/fs/cgroup
[ -f "$root/cgroup.controllers" ] || exit 0
for group in kubelet kubelet.slice; do
    mkdir -p "$root/$group"
done
for folder in "$root" "$root/kubelet" "$root/kubelet.slice"; do
    for controller in $(cat "$folder/cgroup.controllers"); do
        echo "+$controller" >"$folder/cgroup.subtree_control" || echo "cannot hand down $controller in $folder"
    done
done
