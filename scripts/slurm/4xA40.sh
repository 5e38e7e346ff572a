#!/bin/bash
# Train on one node with four A40. What stands behind the script goes to src.train:
#
#   sbatch -A ACCOUNT scripts/slurm/4xA40.sh                            experiment=a40_adam data=ffcv
#   sbatch -A ACCOUNT scripts/slurm/4xA40.sh data.path=/datasets/ffcv   the same, and what you add
#   sbatch -A ACCOUNT scripts/slurm/4xA40.sh experiment=a40_sgd data=tar    with experiment=, nothing but what you type
#
# What stands before it replaces a line below:
#
#   sbatch --gres=gpu:a100:4 --time=8:00:00 scripts/slurm/4xA40.sh ...  other GPUs, less time
#   NPROC=4 sbatch --gres=none scripts/slurm/4xA40.sh ...               four processes on the CPU
#
# The environment and more is chosen by variables: see job.sh beside this file. Submit from the project's folder.
#
#SBATCH --job-name=4xA40
#SBATCH --nodes=1
#SBATCH --gres=gpu:a40:4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300    # 300 seconds before the time is over: save, and go back into the queue
#SBATCH --requeue
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append     # one log, however often the job starts
set -euo pipefail
# shellcheck source=scripts/slurm/job.sh
source "${PROJECT:-$SLURM_SUBMIT_DIR}/scripts/slurm/job.sh"
settle
named experiment "$@" || set -- experiment=a40_adam data=ffcv "$@"
train --standalone -- "$@" # --standalone: a free port, so that two jobs fit on one node
