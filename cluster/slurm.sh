#!/bin/bash
# Slurm: one Ray cluster for the length of one allocation: sbatch cluster/slurm.sh s3://corpora/x s3://results/x
#
# Change: the #SBATCH lines (nodes, GPUs, time, account), SPIRE (a folder that every node sees, with .venv and weights),
# OPTIONS. Watch: tail -f spire-JOBID.log, or spire-ray show OUT --follow from anywhere. Stop: scancel --signal=TERM --batch
# JOBID (shards that run commit), scancel JOBID (they are done again). Resume: the same sbatch.
# When its time is nearly over the job stops and puts itself back into the queue, to go on later.
#SBATCH --job-name=spire
#SBATCH --output=spire-%j.log
#SBATCH --open-mode=append
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@400
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: sbatch cluster/slurm.sh CORPUS OUT [options of spire-ray speech-to-text]" >&2; exit 2; }

SPIRE=${SPIRE:-/shared/spire_ray}
PORT=$((20000 + SLURM_JOB_ID % 10000)) # two jobs of one user may share a node
export PATH="$SPIRE/.venv/bin:$PATH" HF_HOME="$SPIRE/huggingface" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600 RAY_USAGE_STATS_ENABLED=0
# A token of this job's own, in a file that no other user can read.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/token-$SLURM_JOB_ID}"
mkdir -p "$(dirname "$RAY_AUTH_TOKEN_PATH")"
(umask 077 && python -c 'import secrets; print(secrets.token_hex(32), end="")' > "$RAY_AUTH_TOKEN_PATH")
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT

OPTIONS=(--checkpoint SpireFull --languages de fr)

# The driver's exit code by way of a file: symmetric-run has its own.
result="$SPIRE/.exit-$SLURM_JOB_ID"
rm -f "$result"
requeue=0
# shellcheck disable=SC2329 # by the traps
stop() { # the driver, and nothing that has its words among its own: it commits what runs, and ends with 75
  srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" pkill -TERM -u "$(id -u)" -f "/[s]pire-ray speech-to-text" || true
}
trap stop TERM
trap 'requeue=1; stop' USR1

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
corpus=$1 out=$2
shift 2
# shellcheck disable=SC2016 # for the shell on the head
srun --kill-on-bad-exit=0 ray symmetric-run --address "$head:$PORT" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus "${SLURM_CPUS_ON_NODE:-1}" --disable-usage-stats -- \
  bash -c 'result=$1; shift; code=0; "$@" || code=$?; echo "$code" > "$result"' run "$result" \
  spire-ray speech-to-text "$corpus" "$out" --address "$head:$PORT" "${OPTIONS[@]}" "$@" &
while jobs -r | grep -q .; do wait || true; done # a trap ends a wait early
code=$(cat "$result" 2>/dev/null || echo 1)
rm -f "$result"
if [ "$code" = 75 ] && [ "$requeue" = 1 ]; then
  echo "out of time: back into the queue, to go on later"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
