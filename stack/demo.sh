#!/usr/bin/env bash
# Brings the stack up, breaks nginx and shows how it is healed; the stack stays up afterwards.
# FAILURE=kill|stop|pause says how it is broken. NGINX_PORT and its like move ports.
set -euo pipefail
# shellcheck source=stack/setup/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup/lib.sh"
cd "$root"

compose="$setup/compose"
export NGINX_NAME="${NGINX_NAME:-nginx}"
export NGINX_PORT="${NGINX_PORT:-8080}" PROMETHEUS_PORT="${PROMETHEUS_PORT:-9090}"
export ALERTMANAGER_PORT="${ALERTMANAGER_PORT:-9093}" SENTINEL_PORT="${SENTINEL_PORT:-9095}"

# shellcheck disable=SC2317  # called by the trap
interrupted() {
    trap '' INT TERM
    printf '\n' >&2
    say "interrupted"
    "$root/stack/down.sh"
    exit 130
}

# Before anything is created, so that the reason is plain: whoever has a port or the name keeps it.
check_free() {
    local project name="$1" port
    shift
    project="$(docker inspect --type container "$name" \
        --format '{{ index .Config.Labels "com.docker.compose.project" }}' 2>/dev/null)" || project=none
    if [[ "$project" != none && "$project" != "${COMPOSE_PROJECT_NAME:-infra-sentinel}" ]]; then
        die "there is a container named $name already, and it is not the demo's" \
            "rename it for the time being: docker rename $name $name-of-mine"
    fi
    # The ports of a stack that is up are its own.
    if [[ -n "$("$compose" ps --quiet 2>/dev/null)" ]]; then return 0; fi
    for port in "$@"; do
        if (exec 3<>"/dev/tcp/127.0.0.1/${!port}") 2>/dev/null; then
            die "port ${!port} of this machine is taken" "choose another: make demo $port=1${!port}"
        fi
    done
}

trap interrupted INT TERM
"$setup/docker.sh" start
check_free "$NGINX_NAME" NGINX_PORT PROMETHEUS_PORT ALERTMANAGER_PORT SENTINEL_PORT
"$compose"
"$setup/images.sh"
say "building the image of sentinel"
patiently "building the image" "$compose" build sentinel || die "the image of sentinel could not be built"
say "starting the stack"
"$compose" up --detach --remove-orphans

say "breaking nginx"
status=0
target/release/drill --failure "${FAILURE:-kill}" --container "$NGINX_NAME" \
    --nginx "http://127.0.0.1:$NGINX_PORT" --prometheus "http://127.0.0.1:$PROMETHEUS_PORT" \
    --alertmanager "http://127.0.0.1:$ALERTMANAGER_PORT" --sentinel "http://127.0.0.1:$SENTINEL_PORT" || status=$?

if ((status)); then
    say "the last words of sentinel"
    docker logs --tail 20 "$("$compose" ps --all --quiet sentinel)" >&2 || true
fi
cat <<TEXT
The stack stays up:

  nginx         http://127.0.0.1:$NGINX_PORT
  prometheus    http://127.0.0.1:$PROMETHEUS_PORT/alerts
  alertmanager  http://127.0.0.1:$ALERTMANAGER_PORT
  sentinel      http://127.0.0.1:$SENTINEL_PORT/api/v1/incidents

  what it did   stack/setup/compose exec sentinel sentinel incidents list
                stack/setup/compose exec sentinel sentinel incidents show 1
  its log       stack/setup/compose logs sentinel
  once more     make demo      or by hand: docker kill $NGINX_NAME
                make demo FAILURE=pause
  stop it       make down
TEXT
exit "$status"
