#!/usr/bin/env bash
# Checks for what the build and the stack need and, on Debian, installs what is missing.
# usage: packages.sh [build] [docker] [ansible] [tests] [fuzz]      (the first three when none is named)
set -euo pipefail
# shellcheck source=stack/setup/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# What a command belongs to: the package on Debian.
# usage: need PACKAGE:COMMAND…
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

# Sees to it that a command is there, and of a version that serves: what Debian installed is updated.
# usage: need_version PACKAGE COMMAND LEAST "what to do elsewhere" version-command…
need_version() {
    local package="$1" command="$2" least="$3" elsewhere="$4" version
    shift 4
    if ! have "$command"; then
        on_debian || die "there is no $command on this machine" "$elsewhere"
        apt_install "$package"
        if [[ -n "${planning:-}" ]]; then return 0; fi
    fi
    version="$("$@" 2>/dev/null | first_version)"
    [[ -n "$version" ]] || die "'$*' tells no version" "$elsewhere"
    if at_least "$version" "$least"; then return 0; fi
    if on_debian && installed "$package" && ! serves "$package>=$least" && candidate "$package>=$least"; then
        apt_install "$package>=$least"
        if [[ -n "${planning:-}" ]]; then return 0; fi
        version="$("$@" 2>/dev/null | first_version)"
        if at_least "$version" "$least"; then return 0; fi
    fi
    die "$command here is $version ($(command -v "$command")), and $least is the oldest that serves" "$elsewhere"
}

build() {
    need gcc:gcc curl:curl util-linux:flock diffutils:cmp
    # gcc alone cannot link: the C library's headers and start files are a package of their own.
    if on_debian; then apt_install libc6-dev ca-certificates; fi
    rust
}

# rustup's Rust where there is one, else Debian's, which must be no older than the workspace says.
rust() {
    local wanted version from
    wanted="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")"
    if ! have cargo || ! have rustc || debian_rust; then
        on_debian || no_rust
        if ! serves "rustc-web>=$wanted"; then
            candidate "rustc-web>=$wanted" || no_rust "$wanted"
        fi
        apt_install "rustc-web>=$wanted" "cargo-web>=$wanted" "rustfmt-web>=$wanted"
        if [[ -n "${planning:-}" ]]; then return 0; fi
    fi
    version="$(cd "$root" && rustc --version | first_version)" || die "rustc does not run"
    from="$(command -v rustc)"
    if ! at_least "$version" "$wanted"; then
        die "Rust $version is too old ($from), $wanted is the oldest that serves" "rustup update"
    fi
}
# Whether cargo is what Debian's packages brought, of which the guests' compiler is one.
debian_rust() { [[ "$(command -v cargo)" == /usr/bin/cargo ]] && on_debian && dpkg-query -S /usr/bin/cargo >/dev/null 2>&1; }
no_rust() {
    die "there is no Rust on this machine${1:+, and its apt knows none from $1 on}" \
        "install it with rustup: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
}

docker_engine() {
    local version
    # An engine that answers needs nothing more, wherever it runs.
    if have docker && docker info >/dev/null 2>&1; then
        version="$(docker version --format '{{.Server.Version}}' 2>/dev/null | first_version)"
        if [[ -n "$version" ]] && ! at_least "$version" "$docker_least"; then
            die "the Docker engine is $version, and $docker_least is the oldest that serves" "$docker_elsewhere"
        fi
        return 0
    fi
    if [[ -n "${DOCKER_HOST:-}" ]]; then
        die "no Docker engine answers at DOCKER_HOST=$DOCKER_HOST" "start it, or unset DOCKER_HOST"
    fi
    need_version docker.io dockerd "$docker_least" "$docker_elsewhere" dockerd --version
    need docker.io:docker iptables:iptables
}
docker_least=20.10
docker_elsewhere="see https://docs.docker.com/engine/install/"

# Unpacked, not installed: Debian would start it, open to the whole network.
# usage: unpack FOLDER PACKAGE, whose command has its name
unpack() {
    local to="$cache/$1" package="$2"
    if have "$package" || [[ -x "$to/usr/bin/$package" ]]; then return 0; fi
    on_debian || die "there is no $package on this machine" "install it by hand"
    say "fetching $package"
    candidate "$package" || die "this machine's apt has no $package" "look at /etc/apt/sources.list"
    rm -rf "$to.tmp"
    mkdir -p "$to.tmp"
    (cd "$to.tmp" && quietly apt-get -qq -o APT::Sandbox::User=root download "$package" &&
        quietly dpkg-deb -x ./*.deb .) ||
        die "$package could not be fetched" "apt-get update, and again"
    rm -rf "$to"
    mv "$to.tmp" "$to"
}

[[ "$(uname -s)" == Linux ]] || die "this set-up serves Linux, and this is $(uname -s)" "a Linux virtual machine will do"
(($#)) || set -- build docker ansible

each_part() {
    local part
    for part in "$@"; do
        case "$part" in
        build) build ;;
        docker) docker_engine ;;
        ansible) need_version ansible-core ansible-playbook 2.14 "see https://docs.ansible.com" ansible-playbook --version ;;
        # A clock that can be set, a disk that can fail and its mounts, signatures, other machines to reach, a journal to
        # clean, mail, containers of one file, another engine that speaks Docker's API, a browser, Prometheus, and a registry that asks for passwords. (The tests ask Debian's own Python
        # for its aiosmtpd.)
        tests)
            need faketime:faketime e2fsprogs:mkfs.ext4 mount:mount minisign:minisign openssh-client:ssh openssh-server:/usr/sbin/sshd \
                openssl:openssl systemd:journalctl iproute2:ip apache2-utils:htpasswd python3:python3 python3-aiosmtpd:aiosmtpd \
                busybox-static:/bin/busybox chromium:chromium podman:podman
            # rustup's toolchain has clippy.
            if debian_rust || ! have cargo; then apt_install rust-web-clippy; fi
            if [[ -z "${planning:-}" ]]; then
                unpack registry docker-registry
                unpack prometheus prometheus
                unpack prometheus-alertmanager prometheus-alertmanager
                alertmanager_templates
            fi
            ;;
        # libFuzzer is C++.
        fuzz) need g++:g++ ;;
        *) die "unknown part '$part'" "usage: packages.sh [build] [docker] [ansible] [tests] [fuzz]" ;;
        esac
    done
}

# Debian's Alertmanager does not start without its templates, and knows them at one place only.
alertmanager_templates() {
    local there=/usr/share/prometheus/alertmanager own="$cache/prometheus-alertmanager/usr/share/prometheus/alertmanager"
    [[ ! -e "$there/default.tmpl" && -d "$own" ]] || return 0
    as_root mkdir -p "$there"
    as_root cp "$own"/*.tmpl "$there/"
}

# First what would be installed, so that nobody is surprised, and whether it can be.
planning=1 planned=()
each_part "$@"
planning=
if ((${#planned[@]})); then
    say "to be installed on this machine: $(printf "%s\n" "${planned[@]}" | sort -u | tr "\n" " ")"
    ((EUID == 0)) || have sudo || die "installing packages needs root" "run this as root, install sudo, or install them yourself"
fi
each_part "$@"
