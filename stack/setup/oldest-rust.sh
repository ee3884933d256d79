#!/usr/bin/env bash
# Checks the guests, the SDK, and what `sentinel plugin new` makes with the oldest Rust that they claim to need: that of
# the SDK's `rust-version`. It comes from rustup where it is installed, else from Debian's archive; where it cannot
# be had this says so, and checks nothing.
set -euo pipefail
# shellcheck source=stack/setup/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

oldest="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' plugins/sdk/Cargo.toml)"
tools="$cache/oldest-rust/$oldest"

# Prints nothing but fails when it is not there.
of_rustup() {
    local dir
    for dir in "${RUSTUP_HOME:-$HOME/.rustup}"/toolchains/"$oldest"[.-]*; do
        [[ -x "$dir/bin/rustc" && -x "$dir/bin/cargo" ]] || continue
        bin="$dir/bin"
        return 0
    done
    return 1
}

# Unpacked beside the machine's own, with the libraries that it needs.
of_debian() {
    on_debian || return 1
    if [[ ! -x "$tools/usr/bin/cargo" ]]; then
        say "fetching Rust $oldest from Debian's archive (once)"
        local work deb
        work="$(mktemp -d)"
        # shellcheck disable=SC2064
        trap "rm -rf '$work'" EXIT
        patiently "fetching Rust $oldest" debian_download bookworm "$work/deb" {rustc-web,cargo-web,libstd-rust-web-dev,"libstd-rust-web-$oldest"}/bookworm \
            libllvm19 libhttp-parser2.9 libpcre3 libssh2-1 libcurl4 libnghttp2-14 librtmp1 libpsl5 2>/dev/null || return 1
        rm -rf "$tools.tmp"
        mkdir -p "$tools.tmp"
        for deb in "$work/deb"/*.deb; do dpkg-deb -x "$deb" "$tools.tmp"; done
        rm -rf "$work" "$tools"
        mv "$tools.tmp" "$tools"
    fi
    bin="$tools/usr/bin"
    local each
    for each in "$tools"/usr/lib "$tools"/usr/lib/*-linux-gnu "$tools"/lib/*-linux-gnu "$tools"/usr/lib/llvm-*/lib; do
        libraries="$libraries${libraries:+:}$each"
    done
    [[ "$(old rustc --version 2>/dev/null | first_version)" == "$oldest".* ]]
}

old() { LD_LIBRARY_PATH="$libraries" PATH="$bin:$PATH" RUSTC="$bin/rustc" "$@"; }

bin='' libraries=''
if ! of_rustup && ! of_debian; then
    note "not checked: whether the guests build with Rust $oldest, which cannot be had here"
    exit 0
fi
say "checking the guests with Rust $oldest, the oldest that they claim to need"
packages=()
for package in plugins/*/Cargo.toml tests/hostile-plugins/Cargo.toml; do
    packages+=(-p "$(sed -n 's/^name = "\(.*\)"/\1/p' "$package" | head -n 1)")
done
export CARGO_TARGET_DIR="$root/target/plugins/oldest"
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET RUSTUP_TOOLCHAIN
patiently "checking the guests" old "$bin/cargo" check --quiet --locked "${packages[@]}" --lib --bins --examples ||
    die "the guests do not build with Rust $oldest" "use less of the language, or raise rust-version in plugins/*/Cargo.toml, the template's and the docs'"

# An author's project, as it comes: what `sentinel plugin new` makes, and the example. Each with a lock of its own, of the
# newest crates that this Rust takes.
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
sentinel="${SENTINEL_BIN:-$root/target/release/sentinel}"
[[ -x "$sentinel" ]] || die "there is no $sentinel, which makes the project of a plugin" "make build"
quietly "$sentinel" plugin new made --lang rust --to "$work/made" || die "sentinel plugin new failed" "its own words are above"
cp -r plugins/examples/rust-crash-loop "$work/example"
for project in made example; do
    rm -rf "$work/$project"/{target,Cargo.lock,bindings}
    # The build writes what helps, the SDK among it, before it calls cargo; what it calls here is the old one.
    mkdir -p "$work/bin"
    printf '#!/bin/sh\nexit 0\n' >"$work/bin/cargo"
    chmod +x "$work/bin/cargo"
    PATH="$work/bin:$PATH" "$sentinel" plugin build "$work/$project" >/dev/null 2>&1 || true
    [[ -d "$work/$project/bindings" ]] || die "sentinel plugin build has put no bindings into $project"
    patiently "checking a plugin's project" old env -C "$work/$project" "$bin/cargo" check --quiet ||
        die "a plugin's project ($project) does not build with Rust $oldest" "host/daemon/templates/plugin/rust, plugins/examples"
done
