#!/usr/bin/env bash
# Makes builds for wasm32-wasip2 possible and prints, one a line, the NAME=value pairs that such a build
# needs in its environment (none where the toolchain has the target). `plugins.sh` is its user.
#
# In this order:
#   1. the active toolchain has the target;
#   2. a sysroot that an earlier run made from Debian's sources;
#   3. rustup adds the target, unless RUSTUP_AUTO_INSTALL=0 says that nothing may be installed by it;
#   4. on Debian: std is built once from Debian's own package of its source, into a sysroot in the cache.
set -euo pipefail
# shellcheck source=stack/setup/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

target=wasm32-wasip2
# In environment variables Cargo writes the target like this.
target_upper=WASM32_WASIP2
debian_rustc=/usr/bin/rustc
debian_cargo=/usr/bin/cargo

has_target() {
    local sysroot
    sysroot="$(rustc --print sysroot 2>/dev/null)" || return 1
    compgen -G "$sysroot/lib/rustlib/$target/lib/libstd-*.rlib" >/dev/null
}

# The folder with wasm-component-ld and gcc-ld/wasm-ld: rustup's toolchains carry them. Debian 12's default
# lld is too old for today's std.
own_linkers="$cache/linkers/bin"
linkers() {
    local dir
    for dir in "$(rustc --print sysroot 2>/dev/null)"/lib/rustlib/*/bin \
        "${RUSTUP_HOME:-$HOME/.rustup}"/toolchains/*/lib/rustlib/*/bin "$own_linkers"; do
        if [[ -x "$dir/wasm-component-ld" && -x "$dir/gcc-ld/wasm-ld" ]]; then
            printf '%s\n' "$dir"
            return 0
        fi
    done
    return 1
}

# For a machine whose Rust is Debian's: a newer lld of Debian, and wasm-component-ld from its source.
make_linkers() {
    apt_install lld-19
    say "building wasm-component-ld (once)"
    patiently "building wasm-component-ld" env -u CARGO_TARGET_DIR \
        cargo install --quiet --locked --root "$cache/linkers" wasm-component-ld ||
        die "wasm-component-ld could not be built" "a toolchain from https://rustup.rs carries it"
    mkdir -p "$own_linkers/gcc-ld"
    ln -sf "$(command -v wasm-ld-19)" "$own_linkers/gcc-ld/wasm-ld"
}

sysroot_of_debian() {
    local version
    version="$(dpkg-query -W -f '${Version}' rustc-web 2>/dev/null)" || return 1
    [[ -n "$version" ]] || return 1
    printf '%s/sysroot/%s-%s\n' "$cache" "$target" "$version"
}

answer_sysroot() {
    local tools
    tools="$(linkers)" || return 1
    printf 'RUSTC=%s\n' "$debian_rustc"
    # Cargo's flags for the guest alone: build scripts and procedural macros keep the compiler's own sysroot.
    printf 'CARGO_TARGET_%s_RUSTFLAGS=--sysroot %s\n' "$target_upper" "$1"
    printf 'PATH=%s/gcc-ld:%s:%s\n' "$tools" "$tools" "$PATH"
}

make_sysroot() {
    local sysroot="$1" work libc lib host_tools
    host_tools="$(linkers)"
    work="$(mktemp -d)"
    # Expanded now: the function's variables are gone when the trap runs.
    # shellcheck disable=SC2064
    trap "rm -rf '$work'" EXIT

    say "building std for $target from Debian's sources (once, about a minute)"
    # Architecture-independent, so that the archive of a newer suite serves as well.
    local suite
    for suite in trixie bookworm-backports; do
        debian_download "$suite" "$work/deb" wasi-libc && break
    done
    libc="$(compgen -G "$work/deb/wasi-libc_*.deb")" || die "Debian's wasi-libc could not be fetched"
    dpkg-deb -x "$libc" "$work/libc"
    libc="$work/libc/usr/lib/$target"
    [[ -r "$libc/libc.a" ]] || die "Debian's wasi-libc has no library for $target"

    mkdir -p "$work/empty/src"
    cat >"$work/empty/Cargo.toml" <<'TOML'
[package]
name = "empty"
version = "0.0.0"
edition = "2021"

[profile.release]
panic = "abort"

[workspace]
TOML
    echo 'fn main() {}' >"$work/empty/src/main.rs"
    # RUSTC_BOOTSTRAP lets the stable compiler build std, which it was itself built with.
    patiently "building std" env -u CARGO_TARGET_DIR -u CARGO_BUILD_TARGET -u RUSTUP_TOOLCHAIN \
        RUSTC_BOOTSTRAP=1 RUSTC="$debian_rustc" PATH="$host_tools/gcc-ld:$host_tools:$PATH" \
        RUSTFLAGS="-L native=$libc -Cembed-bitcode=yes -Cdebuginfo=0" \
        "$debian_cargo" build --quiet --manifest-path "$work/empty/Cargo.toml" -Zbuild-std=std,panic_abort \
        --release --target "$target" ||
        die "std could not be built for $target" "the compiler's own words are above"

    rm -rf "$sysroot.tmp"
    lib="$sysroot.tmp/lib/rustlib/$target/lib"
    mkdir -p "$lib/self-contained"
    cp "$work/empty/target/$target/release/deps"/lib*.rlib "$lib/"
    cp "$libc"/{libc.a,crt1-command.o,crt1-reactor.o} "$lib/self-contained/"
    rm -rf "$sysroot"
    mv "$sysroot.tmp" "$sysroot"
}

have rustc || die "there is no Rust compiler" "run '$setup/packages.sh', or see https://rustup.rs"

# 1
if has_target; then exit 0; fi

# 2
if sysroot="$(sysroot_of_debian)" && [[ -d "$sysroot" ]] && answer_sysroot "$sysroot"; then exit 0; fi

lock sysroot

# 3
if have rustup && [[ "${RUSTUP_AUTO_INSTALL:-}" != 0 ]]; then
    say "adding the target $target to the toolchain (rustup)"
    if quietly timeout 120 rustup target add "$target" && has_target; then exit 0; fi
    note "rustup could not add it, trying Debian's sources"
fi

# 4
hint="with rustup: rustup target add $target"
on_debian || die "the toolchain has no target $target" "$hint"
# The oldest that the guests claim to need; their compiler and std's source have to be of one version.
least="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/plugins/sdk/Cargo.toml")"
trio=(rustc-web cargo-web rust-web-src)
for package in "${trio[@]}"; do
    serves "$package>=$least" || candidate "$package>=$least" || die "the toolchain has no target $target" "$hint" \
        "Debian's security archive carries the compiler's source ($package) for Debian 12, and this machine's apt has no $package from $least on"
done
apt_install "${trio[@]/%/>=$least}"
of_one_version() { [[ "$(for package in "${trio[@]}"; do version_of "$package"; echo; done | sort -u | grep -c .)" == 1 ]]; }
if ! of_one_version; then
    apt_lists_of_today
    patiently "updating Debian's Rust" apt_install_now "${trio[@]}" || die "apt-get could not update ${trio[*]}" "its own words are above"
    of_one_version || die "Debian's Rust and its source are of different versions" "apt-cache policy ${trio[*]}"
fi
linkers >/dev/null || make_linkers
sysroot="$(sysroot_of_debian)"
[[ -d "$sysroot" ]] || make_sysroot "$sysroot"
answer_sysroot "$sysroot"
