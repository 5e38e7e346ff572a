#!/bin/bash
# Write train.beton and val.beton for the ffcv engine: a job for CPUs, once. What stands behind the script goes to src.ffcv_writer:
#
#   sbatch -A ACCOUNT scripts/slurm/write_ffcv.sh data.path=/datasets/imagenet target=/datasets/ffcv
#
# A split that is there already is kept, so the same job may be submitted again. The environment: see job.sh beside this file.
#
#SBATCH --job-name=write_ffcv
#SBATCH --nodes=1
#SBATCH --cpus-per-task=16
#SBATCH --time=4:00:00
#SBATCH --requeue
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
set -euo pipefail
# shellcheck source=scripts/slurm/job.sh
source "${PROJECT:-$SLURM_SUBMIT_DIR}/scripts/slurm/job.sh"
settle
exec python -m src.ffcv_writer "$@"
