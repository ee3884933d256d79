#!/usr/bin/env bash
# Builds what the demo needs, brings the stack up, breaks nginx and shows how it is healed; the stack stays up.
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
    # Not '': what is called from here would ignore them for good.
    trap : INT TERM
    printf '\n' >&2
    say "interrupted"
    end_all
    # Before the stack there is only the engine to stop.
    if [[ -n "${started:-}" ]]; then "$root/stack/down.sh"; else "$setup/docker.sh" stop; fi
    exit 130
}

# Whoever has a port or the name keeps it.
check_ports() {
    local port
    for port in "$@"; do
        [[ "${!port}" =~ ^[1-9][0-9]{0,4}$ && "${!port}" -lt 65536 ]] ||
            die "$port=${!port} is no port" "for example: make demo $port=18080"
        if (exec 3<>"/dev/tcp/127.0.0.1/${!port}") 2>/dev/null && ! stack_is_up; then
            die "port ${!port} of this machine is taken" "choose another: make demo $port=$((${!port} % 50000 + 10000))"
        fi
    done
}
# The ports of a stack that is up are its own.
stack_is_up() {
    have docker && [[ -n "$(docker ps --quiet --filter "label=com.docker.compose.project=${COMPOSE_PROJECT_NAME:-infra-sentinel}" 2>/dev/null)" ]]
}
check_free() {
    local project name="$1"
    shift
    project="$(docker inspect --type container "$name" \
        --format '{{ index .Config.Labels "com.docker.compose.project" }}' 2>/dev/null)" || project=none
    if [[ "$project" != none && "$project" != "${COMPOSE_PROJECT_NAME:-infra-sentinel}" ]]; then
        die "there is a container named $name already, and it is not the demo's" \
            "rename it for the time being: docker rename $name $name-of-mine"
    fi
    check_ports "$@"
}

# What must fail fails here, before the build.
first_run=
[[ -x target/release/sentinel ]] || first_run=1
say "make demo: builds sentinel, starts five containers, kills nginx and shows how it is healed"
if [[ -n "$first_run" ]]; then
    # Rust, the guests' compiler, and what is built.
    note "the first time it takes some ten minutes on two cores, nearly all of them the build, and 5 GiB of disk"
    enough_room "$root" 4
fi
check_ports NGINX_PORT PROMETHEUS_PORT ALERTMANAGER_PORT SENTINEL_PORT
"$setup/packages.sh" build docker
trap interrupted INT TERM
"$setup/docker.sh" start
check_free "$NGINX_NAME" NGINX_PORT PROMETHEUS_PORT ALERTMANAGER_PORT SENTINEL_PORT
docker_root="$(docker info --format '{{.DockerRootDir}}')"
# An engine on another machine has its disk there.
if [[ -n "$first_run" && -d "$docker_root" ]]; then enough_room "$docker_root" 1; fi
"$compose"

# Images and guests need little of the processors, or other ones of the build's moments.
beside "the images" "$setup/images.sh"
beside "the plugins" "$setup/plugins.sh"
beside "the build of sentinel" "$setup/build.sh" --bin sentinel --bin drill
await_all
say "building the image of sentinel"
patiently "building the image" "$compose" build sentinel || die "the image of sentinel could not be built"
say "starting the stack"
started=1
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
