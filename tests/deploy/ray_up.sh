#!/bin/bash
# Run by nodes.sh: starts sshd on three nodes, `ray up`, a sweep on the head, `ray down`. FOLDER has the configuration.
set -euo pipefail
FOLDER=$1
sed "s|^root:\([^:]*:[^:]*:[^:]*:[^:]*\):[^:]*:|root:\1:$FOLDER/home:|" /etc/passwd > "$FOLDER/passwd"
mount --bind "$FOLDER/passwd" /etc/passwd   # the home of all nodes, seen by nobody else
mkdir -p /run/sshd /tmp/ray
export RAY_TMPDIR=/tmp/ray HOME=$FOLDER/home
mount -t tmpfs none /tmp/ray
for node in 1 2 3; do
    on_node $node /usr/sbin/sshd -D -f "$FOLDER/sshd_config" -E "$FOLDER/sshd$node.log" &
done
unset RAY_TMPDIR
cd "$FOLDER"
ray up --yes --no-config-cache cluster.yaml
ray exec cluster.yaml "cd $FOLDER && kdsweep run sweep.yaml --address auto"
ray exec cluster.yaml 'ray status'
ray down --yes cluster.yaml
on_node_processes() { pgrep -fc 'raylet/raylet' || true; }
until [ "$(on_node_processes)" = 0 ]; do sleep 1; done
