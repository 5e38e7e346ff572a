#!/bin/bash
# A sweep: one training for each task of a job array. What stands behind the script goes to every one.
#
#   sbatch -A ACCOUNT --array=0-4 scripts/slurm/array.sh experiment=a40_adam data=ffcv        seeds 0 to 4
#   SWEEP=settings.txt sbatch -A ACCOUNT --array=1-3%2 scripts/slurm/array.sh experiment=...  line 1, 2, 3 of the file; two at once
#
# where a line of settings.txt holds what is added for its task, such as: optim=adam optim.peak_lr=1e-3
# Each task is a job of its own, with its own folder in runs/, stopped and requeued alone. More: 4xA40.sh and job.sh beside this file.
#
#SBATCH --job-name=array
#SBATCH --array=0-4
#SBATCH --nodes=1
#SBATCH --gres=gpu:4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --output=%x-%A_%a.log
#SBATCH --open-mode=append
set -euo pipefail
# shellcheck source=scripts/slurm/job.sh
source "${PROJECT:-$SLURM_SUBMIT_DIR}/scripts/slurm/job.sh"
settle
named experiment "$@" || set -- experiment=a40_adam data=ffcv "$@"
if [[ -n ${SWEEP:-} ]]; then
    read -ra settings < <(sed -n "${SLURM_ARRAY_TASK_ID}p" "$SWEEP") || { say "$SWEEP has no line $SLURM_ARRAY_TASK_ID" && exit 2; }
else
    ! named seed "$@" || { say "the seed is the task's number here: leave seed= away, or write a SWEEP file" && exit 2; }
    settings=("seed=$SLURM_ARRAY_TASK_ID")
fi
train --standalone -- "$@" "${settings[@]}"
