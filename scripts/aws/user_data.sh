#!/bin/bash
# User data of `python -m scripts.aws instance launch`. Anybody on the instance can read it: no key stands here, nor may one.
#
# cloud-init runs a boothook at every boot, unlike a user-data script, which runs once, and never again when an interruption cut
# it short. It must not hold the boot up: it only writes a unit, and lets systemd do the work beside it. When the work is done, a file
# says so, and all of this is over: the volume is in fstab, the training is a service of its own.
set -euo pipefail
umask 022

@VALUES@

SELF=/usr/local/sbin/imagenet-setup
DONE=/var/lib/imagenet-trainer/set-up
UNIT=/etc/systemd/system/imagenet-setup.service

# At every boot.
write_unit() {
    [[ ! -e $DONE ]] || return 0
    mkdir -p "${SELF%/*}" "${UNIT%/*}"
    install -m 755 "$1" "$SELF.partial" && mv "$SELF.partial" "$SELF"
    cat >"$UNIT.partial" <<UNIT
[Unit]
Description=Set this instance up for a training, once
Wants=network-online.target
# The user's account is made in the stage before.
After=network-online.target cloud-config.target
ConditionPathExists=!$DONE
StartLimitIntervalSec=1h
StartLimitBurst=10
[Service]
Type=oneshot
ExecStart=$SELF work
TimeoutStartSec=infinity
# 2: refused, and would be again.
Restart=on-failure
RestartSec=60
RestartPreventExitStatus=2
UNIT
    mv "$UNIT.partial" "$UNIT"
    systemctl daemon-reload
    systemctl start --no-block "${UNIT##*/}"
}

# What is missing for the first steps.
install_programs() {
    if command -v apt-get >/dev/null; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get -o DPkg::Lock::Timeout=600 update --quiet
        apt-get -o DPkg::Lock::Timeout=600 install --yes --quiet git python3-venv
    else
        dnf install --assumeyes --quiet git python3.11
    fi
}

# By systemd, until it has ended well.
work() {
    local beside=${FOLDER%/*}/.${FOLDER##*/}.partial
    if ! command -v git >/dev/null || ! python3 -c 'import ensurepip' 2>/dev/null; then
        install_programs
    fi
    if [[ ! -d $FOLDER/.git ]]; then # what is there is not touched: it may hold somebody's work
        rm -rf "$beside"
        mkdir -p "${FOLDER%/*}"
        as_owner git clone --quiet --recurse-submodules -- "$REPOSITORY" "$beside"
        [[ -z $REVISION ]] || as_owner git -C "$beside" checkout --quiet "$REVISION" --
        mv "$beside" "$FOLDER"
    fi
    cd "$FOLDER"
    "$BOOTSTRAP_PYTHON" -m scripts.aws instance setup "${SETUP[@]}"
    mkdir -p "${DONE%/*}"
    touch "$DONE"
}

as_owner() { runuser -u "$OWNER" -- env GIT_TERMINAL_PROMPT=0 "$@"; }

if [[ ${1:-} == work ]]; then
    work
else
    write_unit "$0"
fi
