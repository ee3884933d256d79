#!/usr/bin/env bash
# Checks everything: format, lints, dependencies, and all tests, against real containers. Installs and builds what they need.
set -euo pipefail
# Not the state of the demo: an engine that the demo started is not for the tests to stop.
export SENTINEL_RUN_DIR="${SENTINEL_RUN_DIR:-$(dirname "${BASH_SOURCE[0]}")/../run/test}"
# shellcheck source=stack/setup/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"
# What is built and the images take so much (GiB).
room=16

# What must fail fails here, before the build.
say "make test: checks format, lints and dependencies, and runs every test, against real containers"
if [[ ! -x target/release/sentinel ]]; then
    note "the first time it takes some forty minutes on two cores, and $room GiB of disk"
    enough_room "$root" "$room"
fi
((EUID == 0)) || die "the tests mount disks, make networks and set clocks: they need root" "sudo make test"
"$setup/packages.sh" build docker ansible tests fuzz
trap 'end_all; "$setup/docker.sh" stop' EXIT
trap 'exit 130' INT TERM
"$setup/docker.sh" start
"$setup/compose"
"$setup/deny.sh"
"$setup/lint.sh"

beside "the toolchains" "$setup/toolchains.sh" python js c ansible
beside "the images" "$setup/images.sh"
beside "the plugins" "$setup/plugins.sh"
# The fuzz targets too, as `make fuzz` builds them but for what watches which code is reached.
beside "the build of sentinel" "$setup/build.sh" --bins --features sentinel-fuzz/engine
await_all
say "building the image of sentinel"
patiently "building the image" "$setup/compose" build sentinel || die "the image of sentinel could not be built"

# Where the tests find what was built.
export SENTINEL_BIN="$root/target/release/sentinel"
export SENTINEL_PLUGINS="$root/target/plugins/dist"
export SENTINEL_HOSTILE="$root/target/plugins/hostile"
export SENTINEL_COMPOSE="$setup/compose"
"$setup/oldest-rust.sh"
say "running the tests"
# One failure must not hide the others.
cargo test --release --workspace --no-fail-fast
say "planting bugs, which the simulation has to find"
cargo test --release -p sentinel-simulation --features mutations --test mutants
