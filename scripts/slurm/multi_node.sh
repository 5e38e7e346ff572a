#!/bin/bash
# Train on several nodes: one torchrun on each, which meet at the first. What stands behind the script goes to src.train:
#
#   sbatch -A ACCOUNT --nodes=4 scripts/slurm/multi_node.sh experiment=a40_adam data=ffcv
#
# runs_dir and the data must be on a disk that all nodes see (or COPY_TO takes the data to each node). The job ends with its first
# failing node; Slurm and the next start go on from the last checkpoint. More: 4xA40.sh and job.sh beside this file.
#
#SBATCH --job-name=multi_node
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gres=gpu:a40:4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
set -euo pipefail
# shellcheck source=scripts/slurm/job.sh
source "${PROJECT:-$SLURM_SUBMIT_DIR}/scripts/slurm/job.sh"
settle
named experiment "$@" || set -- experiment=a40_adam data=ffcv "$@"
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((10000 + SLURM_JOB_ID % 20000)) # its own for each job, below those that systems give away
train --nnodes="$SLURM_NNODES" --rdzv-backend=c10d --rdzv-endpoint="$first:$port" --rdzv-id="$SLURM_JOB_ID" -- "$@"
