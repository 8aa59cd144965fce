#!/bin/bash
# Runs a script in a network of three nodes with addresses and processes of their own: nodes.sh SCRIPT [ARGUMENT]...
# `on_node N COMMAND...` (N = 1, 2, 3) runs a command on a node, whose address is 10.77.0.N and whose RAY_TMPDIR is its own.
# Everything ends with the script.
set -euo pipefail
if [ "${1:-}" != --inside ]; then
    exec unshare --net --mount --pid --fork --kill-child --mount-proc "$0" --inside "$@"
fi
shift
mount -t tmpfs none /run        # for `ip netns`, and nobody else sees it
ip link set lo up
ip link add switch type bridge
ip addr add 10.77.0.254/24 dev switch      # of this script
ip link set switch up
for node in 1 2 3; do
    ip netns add "node$node"
    ip link add "port$node" type veth peer name eth0 netns "node$node"
    ip link set "port$node" master switch up
    ip -n "node$node" addr add "10.77.0.$node/24" dev eth0
    ip -n "node$node" link set eth0 up
    ip -n "node$node" link set lo up
    ip -n "node$node" route add default via 10.77.0.254   # leads nowhere; Ray finds out a node's address by it
done
on_node() {
    local node=$1
    shift
    ip netns exec "node$node" unshare --pid --fork --kill-child --mount-proc \
        bash -c 'mount -t tmpfs none "$RAY_TMPDIR" && exec "$@"' - "$@"
}
export -f on_node
"$@"
