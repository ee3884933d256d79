#!/usr/bin/env bash
# Builds what the tests run, and runs all of them.
set -euo pipefail
# Not the state of the demo: an engine that the demo started is not for the tests to stop.
export SENTINEL_RUN_DIR="${SENTINEL_RUN_DIR:-$(dirname "${BASH_SOURCE[0]}")/../run/test}"
# shellcheck source=stack/setup/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

"$setup/plugins.sh"
"$setup/toolchains.sh"
trap '"$setup/docker.sh" stop' EXIT
"$setup/docker.sh" start
"$setup/images.sh"
say "building sentinel (some minutes the first time)"
cargo build --release --bins
say "building the image of sentinel"
patiently "building the image" "$setup/compose" build sentinel || die "the image of sentinel could not be built"

# Where the tests find what was built.
export SENTINEL_BIN="$root/target/release/sentinel"
export SENTINEL_PLUGINS="$root/target/plugins/dist"
export SENTINEL_HOSTILE="$root/target/plugins/hostile"
export SENTINEL_COMPOSE="$setup/compose"
say "running the tests"
# One failure must not hide the others.
cargo test --release --workspace --no-fail-fast
say "planting bugs, which the simulation has to find"
cargo test --release -p sentinel-simulation --features mutations --test mutants
