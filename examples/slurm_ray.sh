#!/usr/bin/env bash
# Run the benchmark on all nodes of a Slurm job, with Ray.
#
#   sbatch --nodes 4 --gpus-per-node 8 examples/slurm_ray.sh --model all --suite quip-paper
#
# All arguments go to `bench run`. The environment must be active where the job is submitted, and
# the results folder must be on a file system that the first node sees.
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
set -euo pipefail

export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN
port=$((20000 + ${SLURM_JOB_ID:-0} % 20000))

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')

start=(ray start --block --disable-usage-stats --num-cpus="${SLURM_CPUS_PER_TASK:-1}")
srun --nodes=1 --ntasks=1 --nodelist="$head" \
    "${start[@]}" --head --node-ip-address="$address" --port="$port" --include-dashboard=false &
until ray health-check --address "$address:$port" 2>/dev/null; do sleep 2; done

if [ "${#nodes[@]}" -gt 1 ]; then
    others=$(IFS=,; echo "${nodes[*]:1}")
    count=$((${#nodes[@]} - 1))
    srun --nodes="$count" --ntasks="$count" --nodelist="$others" \
        "${start[@]}" --address="$address:$port" &
fi
until [ "$(python -c "
import ray
ray.init('$address:$port', log_to_driver=False, logging_level='ERROR')
print(sum(node['Alive'] for node in ray.nodes()))
")" -ge "${#nodes[@]}" ]; do sleep 2; done

bench run --ray "$address:$port" --keep-going "$@"
