#!/usr/bin/env bash
# Checks the format and the lints of everything that is written in Rust.
set -euo pipefail
# shellcheck source=stack/setup/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

say "checking the format"
cargo fmt --all --check || die "some files are not formatted" "make fmt"
if ! cargo clippy --version >/dev/null 2>&1; then
    note "this toolchain has no clippy: the lints are not checked"
    exit 0
fi
say "checking the lints"
# The guests compile for the host as well, where their own tests run. Programs of the fuzz targets are there with a feature alone.
cargo_telling "checking the lints" clippy --release --workspace --all-targets --features sentinel-fuzz/targets -- -D warnings
say "checking the SDK's documentation"
# What plugin authors read: a link that leads nowhere is an error.
RUSTDOCFLAGS="-D warnings" cargo doc --release --quiet --no-deps -p sentinel-plugin
