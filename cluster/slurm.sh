#!/bin/bash
# Slurm: one Ray cluster for the length of one allocation, and one command of spire-ray on it:
#   sbatch cluster/slurm.sh speech-to-text s3://corpora/x s3://results/x --checkpoint SpireFull --languages de fr
#
# Change: the #SBATCH lines (nodes, GPUs, time, account; nodes without GPUs: no line with gpus); SPIRE, a folder that
# every node sees at the same path, with .venv and the weights, and may be read-only. Every node sees your home too.
# Watch: tail -f spire-JOBID.log, or spire-ray show OUT --follow from anywhere.
# Stop: scancel --signal=TERM --batch JOBID (shards that run commit); scancel JOBID (they are done again).
# Resume: the same sbatch. When its time is nearly over the job stops and puts itself back into the queue, to go on later.
#SBATCH --job-name=spire
#SBATCH --output=spire-%j.log
#SBATCH --open-mode=append
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@400
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: sbatch cluster/slurm.sh COMMAND with its options, as for spire-ray" >&2; exit 2; }

SPIRE=${SPIRE:-/shared/spire_ray}
PORT=$((20000 + SLURM_JOB_ID % 10000)) # two jobs of one user may share a node
export PATH="$SPIRE/.venv/bin:$PATH" OMP_NUM_THREADS=1
export HF_HOME="$SPIRE/huggingface" HF_HUB_OFFLINE=1 SPIRE_RAY_CACHE="$SPIRE/spire-ray"
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600 RAY_USAGE_STATS_ENABLED=0
export RAY_health_check_period_ms=1000 # a lost node is believed lost after five looks, not 3 s apart but one
# What is this job's own, in a folder that no other user can read: its token, and by way of files the driver's process
# and exit code, since symmetric-run has a code of its own.
own="$HOME/.ray/spire-$SLURM_JOB_ID"
driver="$own/driver" result="$own/exit"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$own/token"
rm -rf "$own"
mkdir -p "$HOME/.ray"
mkdir -m 700 "$own"
trap 'rm -rf "$own" || true' EXIT
python -c 'import secrets; print(secrets.token_hex(32), end="")' > "$RAY_AUTH_TOKEN_PATH"

nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes%%$'\n'*} # not by a pipe to head, which may kill scontrol, and so this script, with its second line
otherwise=1 requeue=0 cluster= # otherwise: the exit code where the driver has told none
# shellcheck disable=SC2329 # by the traps
stop() { # it commits what runs, and ends with 75; before it runs there is nothing to commit
  otherwise=75
  if pid=$(cat "$driver" 2>/dev/null) && [ -n "$pid" ]; then
    srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" bash -c "kill -TERM $pid" || true
  else
    [ -z "$cluster" ] || kill "$cluster" || true
  fi
}
trap stop TERM
trap 'requeue=1; stop' USR1

# shellcheck disable=SC2016 # for the shell on the head
srun --kill-on-bad-exit=0 ray symmetric-run --address "$head:$PORT" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus "${SLURM_CPUS_ON_NODE:-1}" --disable-usage-stats -- \
  bash -c 'driver=$1 result=$2; shift 2; "$@" & echo $! > "$driver"; code=0; wait $! || code=$?; echo "$code" > "$result"' \
  run "$driver" "$result" spire-ray "$@" --address "$head:$PORT" &
cluster=$!
while kill -0 "$cluster" 2>/dev/null; do wait "$cluster" || true; done # a trap ends a wait early
code=$(cat "$result" 2>/dev/null || echo "$otherwise")
if [ "$code" = 75 ] && [ "$requeue" = 1 ]; then
  echo "out of time: back into the queue, to go on later"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
