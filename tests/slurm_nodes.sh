#!/bin/bash
# Two nodes of a real Slurm on one machine: tests/slurm_nodes.sh COMMAND … runs COMMAND beside slurmctld, then ends all.
#
# As root, on Debian, after: apt-get install slurm-wlm munge. Each node is a slurmd in namespaces of its own (network,
# processes, /tmp, host name), so that Ray's processes see no others, and `ray stop` stops none. FOLDER, which all see,
# is /srv/slurm-nodes. Nothing of the machine's own configuration is written.
set -euo pipefail
FOLDER=${FOLDER:-/srv/slurm-nodes}
export SLURM_CONF="$FOLDER/slurm.conf"
mkdir -p "$FOLDER/state"
cd "$FOLDER"
printf '127.0.0.1 localhost\n10.77.0.254 control\n10.77.0.1 node1\n10.77.0.2 node2\n' > hosts
head -c 128 /dev/urandom > munge.key
chown -R munge: munge.key && chmod 400 munge.key
install -d -o munge -m 755 munge
cat > slurm.conf <<CONF
ClusterName=two
SlurmctldHost=control(10.77.0.254)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$FOLDER/munge/socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
StateSaveLocation=$FOLDER/state
SlurmdSpoolDir=/tmp/slurmd-%n
SlurmctldPidFile=$FOLDER/slurmctld.pid
SlurmdPidFile=/tmp/slurmd.pid
SlurmctldLogFile=$FOLDER/slurmctld.log
SlurmdLogFile=$FOLDER/slurmd-%n.log
ReturnToService=2
KillWait=10
NodeName=node1 NodeAddr=10.77.0.1 CPUs=$(nproc --all) RealMemory=4000
NodeName=node2 NodeAddr=10.77.0.2 CPUs=$(nproc --all) RealMemory=4000
PartitionName=all Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP
CONF

started=()
end() { # the nodes and all that runs on them; munge last, which they speak through
  trap "" INT TERM
  for _ in $(seq 30); do
    [ -z "$(squeue --noheader 2>/dev/null)" ] && break
    sleep 1
  done
  kill -KILL "${started[@]:1}" 2>/dev/null || true
  kill "${started[0]}" || true
  wait || true
  ip link del br77 2>/dev/null || true
}
trap end EXIT

runuser -u munge -- munged --foreground --key-file="$FOLDER/munge.key" --socket="$FOLDER/munge/socket" --num-threads=2 \
  --log-file="$FOLDER/munge/log" --pid-file="$FOLDER/munge/pid" --seed-file="$FOLDER/munge/seed" & started+=($!)
ip link add br77 type bridge
ip address add 10.77.0.254/24 dev br77
ip link set br77 up
# shellcheck disable=SC2016 # for the shell of the node
node='mount --bind hosts /etc/hosts; mount -t tmpfs tmpfs /tmp; hostname "node$1"
  until ip link set dev "n$1" name eth0 2>/dev/null; do sleep 0.1; done
  ip address add "10.77.0.$1/24" dev eth0; ip link set eth0 up; ip link set lo up
  slurmd -D -N "node$1" & wait # a shell, not slurmd, is the first process: it takes up what others leave'
for number in 1 2; do
  unshare --net --uts --mount --pid --fork --kill-child --mount-proc bash -c "$node" node "$number" & started+=($!)
  ip link add "b$number" type veth peer name "n$number"
  ip link set "b$number" master br77 up
  ip link set "n$number" netns "$!"
done
# shellcheck disable=SC2016 # for the shell of the controller
unshare --mount --uts --fork --kill-child bash -c 'mount --bind hosts /etc/hosts; hostname control; exec slurmctld -D -c' & started+=($!)
for _ in $(seq 60); do
  [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ] && break
  sleep 1
done
sinfo
"$@"
