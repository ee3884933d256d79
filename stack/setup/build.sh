#!/usr/bin/env bash
# Builds programs of the workspace: `cargo build --release` with the arguments (--bins, --bin NAME), and says how far it is.
set -euo pipefail
# shellcheck source=stack/setup/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

say "building sentinel (${1:+$*}; some minutes the first time)"
# With the features that the whole workspace asks for, so that the demo, the daemon alone and the tests share what they build.
cargo_telling "building sentinel" build --release --workspace "$@" || die "sentinel could not be built" "the compiler's own words are above"
