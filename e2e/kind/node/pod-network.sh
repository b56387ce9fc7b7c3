#!/bin/sh
# The pod network of the test cluster: each node gives its pods addresses from its own podCIDR over veth pairs
# (CNI plugin ptp) and has one route per other node. Runs on every node and follows the node list, so that
# nodes which come back with a new address are reachable again.
set -eu

: "${NODE_NAME:?}" "${POD_SUBNET:?}" "${CONTROL_PLANE_ENDPOINT:?}"
account=/var/run/secrets/kubernetes.io/serviceaccount
config=/etc/cni/net.d/10-pod-network.conflist
# The watch ends after this time; the next one begins with a full list, which repairs whatever was missed.
resync_seconds=60

nodes() {
    # By the control plane's name and not by the Service's address: this must work before kube-proxy does.
    kubectl --server="https://$CONTROL_PLANE_ENDPOINT" --certificate-authority="$account/ca.crt" \
        --token="$(cat "$account/token")" --request-timeout="${resync_seconds}s" get nodes --watch \
        -o 'jsonpath={.metadata.name} {.spec.podCIDR} {.status.addresses[?(@.type=="InternalIP")].address}{"\n"}'
}

configure_own_pods() {
    cidr=$1
    mtu=$(cat /sys/class/net/eth0/mtu)
    # Addresses are kept in /run: after a restart of the node no pod of before holds one any more.
    cat >"$config.new" <<EOF
{
  "cniVersion": "0.4.0",
  "name": "pod-network",
  "plugins": [
    {
      "type": "ptp",
      "mtu": $mtu,
      "ipMasq": false,
      "ipam": {
        "type": "host-local",
        "dataDir": "/run/cni-addresses",
        "ranges": [[{"subnet": "$cidr"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
EOF
    if cmp -s "$config.new" "$config"; then
        rm "$config.new"
    else
        mv "$config.new" "$config"
        echo "pods of this node get addresses from $cidr"
    fi
}

masquerade() {
    # Only the nodes know the way back to a pod, so what leaves a node for anything else carries its address.
    rule="-s $POD_SUBNET ! -d $POD_SUBNET -o eth0 -j MASQUERADE"
    # shellcheck disable=SC2086 # the rule is a list of words
    iptables -w 10 -t nat -C POSTROUTING $rule 2>/dev/null || iptables -w 10 -t nat -A POSTROUTING $rule
}

follow() {
    while read -r name cidr address; do
        if [ -z "$cidr" ] || [ -z "$address" ]; then
            continue # a node that has just joined
        elif [ "$name" = "$NODE_NAME" ]; then
            configure_own_pods "$cidr"
        elif ! ip route show "$cidr" | grep -q "via $address "; then
            echo "pods $cidr are behind $name at $address"
            # Fails while that address is not on this network; the next event or resync tries again.
            ip route replace "$cidr" via "$address" || true
        fi
    done
}

while true; do
    masquerade || true
    nodes 2>/dev/null | follow || true
    sleep 1
done
