#!/usr/bin/env bash
# Checks for what the build and the stack need and, on Debian, installs what is missing.
# usage: packages.sh [build] [docker] [ansible] [tests]      (the first three when none is named)
set -euo pipefail
# shellcheck source=stack/setup/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# What a command belongs to: the package on Debian.
need() {
    local package command missing=()
    for package in "$@"; do
        command="${package#*:}"
        package="${package%%:*}"
        have "$command" || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    on_debian || die "missing on this machine: ${missing[*]}" "install them with the system's package manager"
    apt_install "${missing[@]}"
}

build() {
    need gcc:gcc curl:curl util-linux:flock diffutils:cmp
    # gcc alone cannot link: the C library's headers and start files are a package of their own.
    if on_debian; then apt_install libc6-dev ca-certificates; fi
    rust
}

rust() {
    local wanted version
    if ! have cargo; then
        if ! on_debian; then no_rust; fi
        candidate cargo-web || apt_update
        candidate cargo-web || no_rust
        say "no Rust here: installing the one that Debian's security archive carries"
        apt_install rustc-web cargo-web rustfmt-web
    fi
    wanted="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")"
    version="$(cd "$root" && rustc --version | awk '{ print $2 }')" || die "rustc does not run"
    if [[ "$(printf '%s\n%s\n' "$wanted" "${version%%-*}" | sort -V | head -n 1)" != "$wanted" ]]; then
        die "Rust $version is too old, $wanted is the oldest that serves" "rustup update"
    fi
}
no_rust() {
    die "there is no Rust on this machine" \
        "install it with rustup: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
}

docker_engine() {
    # An engine that answers needs nothing more, wherever it runs.
    if have docker && docker info >/dev/null 2>&1; then return 0; fi
    if have docker && have dockerd; then return 0; fi
    on_debian || die "there is no Docker engine on this machine" "see https://docs.docker.com/engine/install/"
    apt_install docker.io iptables
}

# Unpacked, not installed: Debian would start it, open to the whole network.
registry() {
    local to="$cache/registry"
    if have docker-registry || [[ -x "$to/usr/bin/docker-registry" ]]; then return 0; fi
    on_debian || die "there is no docker-registry on this machine" "see https://github.com/distribution/distribution"
    say "fetching docker-registry"
    candidate docker-registry || apt_update
    rm -rf "$to.tmp"
    mkdir -p "$to.tmp"
    (cd "$to.tmp" && quietly apt-get -qq -o APT::Sandbox::User=root download docker-registry &&
        quietly dpkg-deb -x ./*.deb .) ||
        die "docker-registry could not be fetched" "apt-get update, and again"
    rm -rf "$to"
    mv "$to.tmp" "$to"
}

[[ "$(uname -s)" == Linux ]] || die "this set-up serves Linux, and this is $(uname -s)" "a Linux virtual machine will do"
(($#)) || set -- build docker ansible
for part in "$@"; do
    case "$part" in
    build) build ;;
    docker) docker_engine ;;
    ansible) need ansible-core:ansible-playbook ;;
    # A clock that can be set, a disk that can fail, signatures, other machines to reach, a journal to clean, mail, and a
    # registry that asks for passwords. (The tests ask Debian's own Python for its aiosmtpd.)
    tests)
        need faketime:faketime e2fsprogs:mkfs.ext4 minisign:minisign openssh-client:ssh openssh-server:/usr/sbin/sshd openssl:openssl \
            systemd:journalctl iproute2:ip apache2-utils:htpasswd python3-aiosmtpd:aiosmtpd
        registry
        ;;
    *) die "unknown part '$part'" "usage: packages.sh [build] [docker] [ansible] [tests]" ;;
    esac
done
