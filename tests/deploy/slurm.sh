#!/bin/bash
# Run by nodes.sh: a Slurm cluster of three nodes, then COMMAND. FOLDER holds its configuration and state.
# usage: slurm.sh FOLDER COMMAND...
set -euo pipefail
FOLDER=$1
shift
export SLURM_CONF=$FOLDER/slurm.conf
printf '%s %s\n' 127.0.0.1 localhost 10.77.0.254 control 10.77.0.1 node1 10.77.0.2 node2 10.77.0.3 node3 > "$FOLDER/hosts"
mount --bind "$FOLDER/hosts" /etc/hosts     # of all nodes, seen by nobody else
mkdir -p /run/munge "$FOLDER/state"
head -c 128 /dev/urandom > "$FOLDER/key"
chmod 400 "$FOLDER/key"
munged --force --foreground --key-file="$FOLDER/key" --log-file="$FOLDER/munged.log" \
    --pid-file="$FOLDER/munged.pid" --seed-file="$FOLDER/seed" 2> "$FOLDER/munged.err" &
until [ -S /run/munge/munge.socket.2 ]; do sleep 0.1; done
unshare --uts bash -c 'hostname control; exec slurmctld -D -i' > "$FOLDER/slurmctld.log" 2>&1 &
for node in 1 2 3; do
    # The shell stays, as the first process of the node: it waits for processes whose parent has ended, as slurmd does not.
    on_node $node unshare --uts bash -c "hostname node$node; slurmd -D -N node$node; exit" > "$FOLDER/slurmd$node.log" 2>&1 &
done
for _ in {1..300}; do
    [ "$(sinfo --noheader --states=idle --format=%D 2> /dev/null)" != 3 ] || exec "$@"
    sleep 0.2
done
cat "$FOLDER"/*.log >&2
exit 1
