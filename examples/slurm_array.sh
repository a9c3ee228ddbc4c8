#!/usr/bin/env bash
# Evaluate on a cluster: every task of the array takes the cells that no other one runs.
#
#     sbatch --array=0-7 examples/slurm_array.sh
#
# Settings by environment variables: MODEL, SUITE or TASK, RESULTS and BENCH_CACHE (both on a file
# system that all machines see), and BENCH_DATA (a mirror, where machines have no internet).
#SBATCH --job-name=bench
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --output=bench-%A_%a.log
set -euo pipefail

MODEL=${MODEL:-all}
RESULTS=${RESULTS:-results}
if [ -n "${TASK:-}" ]; then WHAT=(--task "$TASK"); else WHAT=(--suite "${SUITE:-quick}"); fi

# A task that has nothing left to do ends, instead of holding its device until the others end.
bench run --model "$MODEL" "${WHAT[@]}" --results "$RESULTS" --keep-going --no-wait
