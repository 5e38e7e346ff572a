# shellcheck shell=bash
# What the job scripts of this folder share. It is sourced by them, not submitted.
#
# Variables, set in front of sbatch (VENV=~/venv MODULES=CUDA sbatch scripts/slurm/4xA40.sh ...):
#   VENV          the virtual environment's folder, or conda:<name>, or none      [.venv here, if there is one]
#   MODULES       modules to load first, such as "CUDA/13.0 Python/3.12"          [none]
#   COPY_TO       a folder on each node's own disk: the data are copied there first; '$TMPDIR' is looked up in the job  [none]
#   NPROC         processes on each node                                          [its allocated GPUs, or 1]
#   REQUEUE       auto: when stopped, the job goes back into the queue, or where the site forbids that, as chain does;
#                 chain: the same job is submitted anew; never: the job fails, and you submit it again  [auto]
#   MAX_REQUEUES  so often at most                                                [100]
#   MAX_RESTARTS  so often torchrun starts all processes again after one has died [3]
#   TORCHRUN_OPTIONS  further options of torchrun                                 [none]
#   PROJECT       this project's folder                                           [where sbatch was called]
#
# What the states of a job mean then: COMPLETED, the training is finished; FAILED, it is not and nobody goes on; CANCELLED, scancel.

readonly NOT_FINISHED=75 # a job that was stopped and is not finished must not count as COMPLETED
readonly ARGUMENTS=("$@")
JOB=$SLURM_JOB_ID # of an array the bare number may mean all of its tasks
[[ -z ${SLURM_ARRAY_JOB_ID:-} ]] || JOB=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID

say() { echo "$(date '+%F %T') job $JOB: $*" >&2; }

# Go to the project, and choose its Python.
settle() {
    cd "${PROJECT:-$SLURM_SUBMIT_DIR}" || exit 2
    NPROC=${NPROC:-${SLURM_GPUS_ON_NODE:-1}}
    set +u # others' scripts need not be written for it
    # shellcheck disable=SC2086 # several words
    [[ -z ${MODULES:-} ]] || module load $MODULES
    case ${VENV:-} in
        none) ;;
        conda:*) eval "$(conda shell.bash hook)" && conda activate "${VENV#conda:}" ;;
        "") [[ ! -d .venv ]] || export PATH=$PWD/.venv/bin:$PATH ;;
        *) [[ -x $VENV/bin/python ]] || { say "VENV=$VENV has no bin/python" && exit 2; }
            export PATH=$VENV/bin:$PATH ;;
    esac
    set -u
    export PYTHONUNBUFFERED=1                    # what is printed is in the log at once
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1  # each round has a store of its own: else who starts again never meets the others
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # the trainer sets torch's own threads from the CPUs that the job has
    export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=240    # torchrun passes a SIGTERM on, and kills so many seconds later (30 by itself)
}

# Whether a group or key is among the arguments: named experiment "$@"
named() {
    local key=$1 argument
    for argument in "${@:2}"; do
        [[ $argument != "$key="* ]] || return 0
    done
    return 1
}

# Train with torchrun's given options on every node of the job, stop in time, and see to it that the training goes on.
#     train <torchrun options> -- <arguments of src.train>
train() {
    local options=() before code=0
    while [[ $1 != -- ]]; do options+=("$1") && shift; done
    shift
    [[ ${COPY_TO:-} != \$* ]] || { local name=${COPY_TO#\$} && COPY_TO=${!name}; }
    [[ -z ${COPY_TO:-} ]] || set -- "$@" "data.copy_to=$COPY_TO"

    RUN_DIR=$(python -m src.train --run-dir "$@") || exit 2 # what is wrong with the arguments is in the log now
    before=$(status_line)
    stopping=no
    trap 'stopping=time && say "the time is nearly over: stopping"' USR1 # from --signal
    trap 'stopping=now && say "Slurm ends this start: stopping"' TERM    # scancel, or another job needs the node now
    say "$RUN_DIR, $NPROC processes on each of $SLURM_NNODES nodes, start $((${SLURM_RESTART_COUNT:-0} + ${CHAINED:-0} + 1))"

    # By srun, because Slurm tells only what srun started that another job needs the node. In the background, because bash
    # runs a trap only after what it waits for.
    # shellcheck disable=SC2086 # several words
    srun --ntasks="$SLURM_NNODES" --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
        --kill-on-bad-exit=1 --input=none \
        python -m torch.distributed.run "${options[@]}" --nproc-per-node="$NPROC" --max-restarts="${MAX_RESTARTS:-3}" \
        ${TORCHRUN_OPTIONS:-} -m src.train "$@" &
    watch "$!" "$before" || code=$?
    go_on "$before" "$code"
}

# Wait for the process; once the job is asked to stop, ask the training again and again: a STOP while it starts is lost.
watch() {
    local pid=$1 before=$2
    while kill -0 "$pid" 2>/dev/null; do
        wait "$pid" || true # also returns when a signal came
        [[ $stopping != no ]] || continue
        if [[ $(status_line) == "$before" ]]; then
            kill -TERM "$pid" 2>/dev/null || true # it has not begun to train: nothing is lost
        else
            touch "$RUN_DIR/STOP" 2>/dev/null || true
        fi
        sleep 2
    done
    wait "$pid"
}

# The training has ended: is it finished, or has this job to run again? Exits.
go_on() {
    local before=$1 code=$2 status=none
    [[ $(status_line) == "$before" ]] || status=$(status_line | sed -n 's/.*"status": *"\([a-z]*\)".*/\1/p')
    if [[ $status == finished || ($code == 0 && $status != preempted && $stopping == no) ]]; then
        exit 0
    elif [[ $status == failed || ($status != preempted && $stopping == no) ]]; then
        say "failed (exit code $code): the reason stands above. The job does not run again."
        exit "$((code ? code : 1))"
    elif [[ $stopping == no && $(job_says PreemptTime) == @(|None) ]]; then
        say "stopped and saved by a STOP file or a signal that was not Slurm's. Submit the same job to go on."
        exit "$NOT_FINISHED"
    elif [[ $stopping == time && $status == none && $(job_says PreemptTime) == @(|None) ]]; then
        say "the time was over before the training began. Give it more: sbatch --time=8:00:00 ..."
        exit "$NOT_FINISHED"
    fi
    again
    exit "$NOT_FINISHED"
}

# Let the job run again; exits with 0 if Slurm starts this very job again.
again() {
    local state count=$((${SLURM_RESTART_COUNT:-0} + ${CHAINED:-0})) how=${REQUEUE:-auto}
    state=$(job_says JobState)
    if [[ $state != RUNNING ]]; then # scancel; or Slurm itself has put it back into the queue
        say "stopped and saved. Slurm has ended this start itself ($state)."
    elif [[ $how == never ]] || ((count >= ${MAX_REQUEUES:-100})); then
        say "stopped and saved after $((count + 1)) starts (REQUEUE=$how, MAX_REQUEUES=${MAX_REQUEUES:-100}). Submit the same job to go on."
    elif [[ $how == auto ]] && scontrol requeue "$JOB"; then
        say "stopped and saved. The job is in the queue again."
        exit 0
    else
        chain
    fi
}

# Submit this job anew, with the options and arguments that it has. It starts when this one has ended.
chain() {
    local options=(--dependency="afterany:$JOB" --open-mode=append) pair value next
    for pair in JobName:job-name Partition:partition Account:account QOS:qos Reservation:reservation TimeLimit:time NumNodes:nodes \
        CPUs/Task:cpus-per-task MinMemoryNode:mem MinMemoryCPU:mem-per-cpu Features:constraint StdOut:output StdErr:error; do
        value=$(job_says "${pair%:*}")
        [[ $value == @(|0|N/A|"(null)") ]] || options+=("--${pair#*:}=$value")
    done
    value=$(job_says TresPerNode)
    value=${value#gres?}
    options+=(--gres="${value:-none}")
    [[ -z ${SLURM_ARRAY_TASK_ID:-} ]] || options+=(--array="$SLURM_ARRAY_TASK_ID")
    # Slurm's own copy of the script is submitted. This job's variables are not handed on: the next one has its own.
    next=$(
        export CHAINED=$((${CHAINED:-0} + 1)) PROJECT=$PWD
        cd "$SLURM_SUBMIT_DIR" || exit
        for name in "${!SLURM_@}"; do [[ $name == SLURM_CONF ]] || unset "$name"; done
        sbatch --parsable "${options[@]}" "$0" "${ARGUMENTS[@]}"
    ) || { say "stopped and saved, but neither requeued nor submitted anew. Submit the same job to go on." && return; }
    say "stopped and saved. Job $next goes on."
}

# What Slurm says of this job: job_says TimeLimit
job_says() { scontrol show job "$JOB" | sed 's| \([A-Za-z/:]*=\)|\n\1|g' | sed -n "s|^ *$1=||p" | head -n 1; }

# The run's status.json: other bytes from every process that writes it.
status_line() { cat "$RUN_DIR/status.json" 2>/dev/null || true; }
