#!/usr/bin/env bash
# usage: docker.sh start|stop
# start: sees to it that a Docker engine answers, and starts one when none does.
# stop:  stops the engine that `start` started, and no other.
set -euo pipefail
# shellcheck source=stack/setup/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

pid_file="$state/dockerd.pid"
log="$state/dockerd.log"

answers() { docker info >/dev/null 2>&1; }

# Waits until the engine answers; fails when the process that was started is gone.
await_engine() {
    local pid="${1:-}" start=$SECONDS n=0
    until answers; do
        if [[ -n "$pid" ]] && ! kill -0 "$pid" 2>/dev/null; then return 1; fi
        if ((SECONDS - start > 90)); then return 1; fi
        sleep 0.2
        if ((++n % 50 == 0)); then note "waiting for the engine: $((SECONDS - start)) s"; fi
    done
}

is_dockerd() { [[ "$(cat "/proc/$1/comm" 2>/dev/null)" == dockerd ]]; }

start() {
    have docker || die "there is no docker command" "run '$setup/packages.sh docker'"
    if answers; then return 0; fi
    if [[ -n "${DOCKER_HOST:-}" ]]; then
        die "no Docker engine answers at DOCKER_HOST=$DOCKER_HOST" "start it, or unset DOCKER_HOST"
    fi
    if [[ -S /var/run/docker.sock && ! -w /var/run/docker.sock ]]; then
        die "no permission to speak to the Docker engine" \
            "run it as root, or add yourself to the engine's group: sudo usermod -aG docker $(id -un), then log in again"
    fi
    lock dockerd
    if answers; then return 0; fi
    mkdir -p "$state"
    if [[ -d /run/systemd/system ]]; then
        say "starting the Docker engine (systemd)"
        as_root systemctl start docker || die "systemd could not start docker" "journalctl -u docker"
        await_engine || die "the Docker engine does not answer" "journalctl -u docker"
        echo systemd >"$pid_file"
        return 0
    fi
    have dockerd || die "there is no Docker engine on this machine" "run '$setup/packages.sh docker'"
    ((EUID == 0)) || die "starting the Docker engine needs root" "start it yourself, or run this as root"
    say "starting the Docker engine (its log: ${log#"$root/"})"
    # Of its own session and without our descriptors, so that neither Ctrl-C nor a pipe's end reaches it.
    setsid nohup dockerd </dev/null >"$log" 2>&1 {lock_fd}>&- &
    local pid=$!
    echo "$pid" >"$pid_file"
    if ! await_engine "$pid"; then
        tail -n 15 "$log" >&2
        kill "$pid" 2>/dev/null || true
        rm -f "$pid_file"
        die "the Docker engine did not start" "its last words are above, all of them in $log"
    fi
}

stop() {
    [[ -r "$pid_file" ]] || return 0
    local pid start=$SECONDS
    pid="$(cat "$pid_file")"
    rm -f "$pid_file"
    if [[ "$pid" == systemd ]]; then
        say "stopping the Docker engine (systemd)"
        as_root systemctl stop docker.socket docker
        return 0
    fi
    is_dockerd "$pid" || return 0
    say "stopping the Docker engine"
    kill "$pid"
    while is_dockerd "$pid"; do
        if ((SECONDS - start > 60)); then die "the Docker engine (process $pid) does not stop" "see $log"; fi
        sleep 0.2
    done
}

case "${1:-}" in
start | stop) "$1" ;;
*) die "usage: docker.sh start|stop" ;;
esac
