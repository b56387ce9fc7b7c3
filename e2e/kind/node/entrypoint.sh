#!/bin/bash
# First process of a node container: makes the container look like a machine to systemd and kubelet, then
# becomes systemd. It runs again at every start of the container, also after a crash with a new address.
set -euo pipefail

# Volumes that kubelet mounts must be seen by the containers it starts.
mount --make-rshared /

prepare_cgroup_v1() {
    # kind waits for this line (or for systemd's) before it goes on.
    echo "detected cgroup v1"
    mount --make-rprivate /sys/fs/cgroup
    local hierarchy group
    for hierarchy in $(findmnt --list --noheadings --output TARGET --types cgroup); do
        for group in kubelet kubelet.slice; do
            mkdir -p "$hierarchy/$group"
            if [[ -f $hierarchy/cpuset.cpus ]]; then
                # A new cpuset is empty and would refuse every process.
                cat "$hierarchy/cpuset.cpus" >"$hierarchy/$group/cpuset.cpus"
                cat "$hierarchy/cpuset.mems" >"$hierarchy/$group/cpuset.mems"
            fi
            # systemd removes groups it does not know; a mount point it cannot remove.
            mount --bind "$hierarchy/$group" "$hierarchy/$group"
        done
    done
}

prepare_names() {
    # The engine's DNS server knows the nodes, and forwards every other question to the outside. Node and pods
    # ask a resolver on the node instead, which passes on the names of nodes and refuses all others: nothing
    # that a pod looks up leaves the machine. Its address is a link-local one, because that stays the same
    # when the node comes back with another address, and pods can reach it.
    ip address add "$NODE_DNS" dev lo 2>/dev/null || true
    local upstream cluster role number
    upstream=$(awk -v own="$NODE_DNS" '$1 == "nameserver" && $2 != own {print $2; exit}' /etc/resolv.conf)
    if [[ -z $upstream ]]; then
        upstream=$(ip -4 route show default | awk '{print $3; exit}')
    fi
    cluster=$(hostname | sed -E 's/-(control-plane|worker)[0-9]*$//')
    {
        printf '%s\n' "listen-address=$NODE_DNS" bind-interfaces user=root no-resolv no-hosts cache-size=0
        for role in control-plane worker; do
            for number in "" {2..9}; do
                echo "server=/$cluster-$role$number/$upstream"
            done
        done
    } >/etc/node-dns.conf
    echo "nameserver $NODE_DNS" >/etc/resolv.conf
}

follow_new_address() {
    # Kubernetes wrote the node's address into these files when the cluster was made.
    local current old file
    current=$(ip -4 -o address show dev eth0 | awk '{split($4, part, "/"); print part[1]; exit}')
    old=$(cat /kind/node-address 2>/dev/null || true)
    echo "$current" >/kind/node-address
    if [[ -z $old || $old == "$current" ]]; then
        return
    fi
    echo "node address changed from $old to $current"
    for file in /etc/kubernetes/*.conf /etc/kubernetes/manifests/*.yaml /kind/kubeadm.conf \
        /var/lib/kubelet/kubeadm-flags.env; do
        if [[ -f $file ]]; then
            sed -i "s/\b${old//./\\.}\b/$current/g" "$file"
        fi
    done
    if [[ -f /etc/kubernetes/pki/apiserver.crt ]]; then
        rm /etc/kubernetes/pki/apiserver.crt /etc/kubernetes/pki/apiserver.key
        kubeadm init phase certs apiserver --config /kind/kubeadm.conf
    fi
}

NODE_DNS=169.254.20.10

if [[ ! -f /sys/fs/cgroup/cgroup.controllers ]]; then
    prepare_cgroup_v1
fi
# All nodes come from one image; kubelet tells them apart by this identifier.
rm -f /etc/machine-id
systemd-machine-id-setup
prepare_names
follow_new_address

exec /sbin/init
