#!/usr/bin/env bash
# Runs a command in this checkout on a bare Debian: what the command needs and does not install is missing there.
# `fresh.sh --help` says how.
set -euo pipefail
# shellcheck source=stack/setup/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

fresh="$cache/fresh"
# After so many days the root's archive is made anew.
renew_after=7
# What a run of all tests takes on the disk, what is built included (GiB).
room=18
# A build folder that has grown beyond this is begun anew (GiB).
build_limit=40

usage() {
    cat <<TEXT
Runs a command in this checkout on a bare Debian: git, make and ca-certificates, and nothing else of this
machine. What the command needs it has to install by itself, as on a machine just set up.

usage: fresh.sh [OPTION…] COMMAND [ARGUMENT…]

  fresh.sh make test         every test, as continuous integration runs them
  fresh.sh make demo         the first command of the README
  fresh.sh bash              a shell, to look around

  --suite NAME       the suite of Debian (bookworm)
  --old              a machine that was set up months ago: old package lists, without the security suite, and
                     with the Rust that the suite began with
  --no-rust          without this machine's Rust: the command takes Debian's
  --build FOLDER     where what is built is kept for the next run
                     ($fresh/build, for all checkouts; one run at a time)
  --renew            make the root's archive anew (else after $renew_after days)
  --keep             leave the root where it is afterwards, and say where

The command runs as root in namespaces of its own (mounts, processes, network, host name): it can start a Docker
engine beside this machine's, and all that it started ends with it. It sees this checkout (and changes it),
cargo's and rustup's folders, and what this machine knows of proxies, certificates and package mirrors.
The exit code is the command's. It needs root, Debian's mmdebstrap and slirp4netns, which it installs, and
$room GiB in ${fresh%/*}.
TEXT
}

# What apt on this machine is told about the way to its mirrors; the command's apt is told the same.
apt_ways() {
    apt-config dump 2>/dev/null |
        sed -nE 's/^(Acquire::(http|https|Check|Retries|Force)[^ ]* ".+");$/\1/p'
}

# The root as an archive: made once, unpacked for each run.
make_archive() {
    local to="$1" suite="$2" old="$3" options=() line
    mkdir -p "$fresh"
    debian_sources "$suite" >"$fresh/sources.$suite"
    while IFS= read -r line; do options+=(--aptopt="$line"); done < <(apt_ways)
    local include=git,make,ca-certificates sources="$fresh/sources.$suite"
    if ((old)); then
        sources="$fresh/sources.$suite.old"
        head -n 1 "$fresh/sources.$suite" >"$sources"
        include+=,rustc-web,cargo-web
        options+=(--skip=cleanup/apt/lists)
    fi
    say "making a bare Debian ($suite) once, half a minute"
    patiently "making the root" mmdebstrap --quiet --variant=apt --include="$include" "${options[@]}" \
        "$suite" "$to.new" "$sources" --format=tar ||
        die "mmdebstrap could not make a root" "its own words are above"
    mv "$to.new" "$to"
}

# A tree is removed only when nothing is mounted in it: through a mount, the removal would reach the checkout.
remove_tree() {
    local tree="$1"
    [[ "$tree" == "$fresh/roots/"?* ]] || die "not a root of mine: $tree"
    if grep -qF " ${tree// /\\040}" /proc/self/mountinfo; then
        note "something is mounted in $tree: it is left alone"
        return 0
    fi
    rm -rf --one-file-system -- "$tree"
}

# Roots that a run left which was killed.
sweep() {
    local tree lock
    for tree in "$fresh/roots"/*/; do
        tree="${tree%/}"
        [[ -d "$tree" && ! -e "$tree.keep" ]] || continue
        if exec {lock}>"$tree.lock" && flock -n "$lock"; then
            remove_tree "$tree"
            rm -f "$tree.lock"
        fi
        exec {lock}>&-
    done
}

# What of the environment describes the way to the registries. A path that is not there says nothing.
environment() {
    local tree="$1" name value
    while IFS='=' read -r -d '' name value; do
        [[ "$name" =~ ^((https?|ftp|all|no)_proxy|(HTTPS?|FTP|ALL|NO)_PROXY|PIP_[A-Z_]+|(NPM_CONFIG|npm_config)_[A-Za-z_]+|CARGO_(NET|HTTP|REGISTRIES|REGISTRY|SOURCE)_[A-Z0-9_]+|CARGO_BUILD_JOBS|RUSTUP_(AUTO_INSTALL|DIST_SERVER|UPDATE_ROOT)|SSL_CERT_(FILE|DIR)|NODE_EXTRA_CA_CERTS|[A-Z_]*CA_BUNDLE|GIT_SSL_CAINFO|TERM|CI)$ ]] || continue
        [[ "$value" != /* || -e "$tree$value" ]] || continue
        # This machine's own loopback has another address from there.
        [[ "${name,,}" != *_proxy || "${name,,}" == no_proxy ]] || value="$(sed -E 's#//(localhost|127\.0\.0\.1)([:/]|$)#//10.0.2.2\2#' <<<"$value")"
        printf '%s=%s\0' "$name" "$value"
    done < <(env -0)
}

# Makes what the tree needs to know of this machine's way to the outside.
acquaint() {
    local tree="$1" file
    {
        echo "nameserver 10.0.2.3"
        grep -E '^(search|options)' /etc/resolv.conf || true
    } >"$tree/etc/resolv.conf"
    printf '127.0.0.1 localhost fresh\n::1 localhost\n' >"$tree/etc/hosts"
    echo fresh >"$tree/etc/hostname"
    for file in /etc/pip.conf /etc/npmrc /etc/apt/auth.conf; do
        if [[ -r "$file" ]]; then cp -L "$file" "$tree$file"; fi
    done
    for file in .npmrc .pip/pip.conf .config/pip/pip.conf; do
        if [[ -r "$HOME/$file" ]]; then
            mkdir -p "$(dirname "$tree/root/$file")"
            cp -L "$HOME/$file" "$tree/root/$file"
        fi
    done
    if compgen -G '/usr/local/share/ca-certificates/*.crt' >/dev/null; then
        mkdir -p "$tree/usr/local/share/ca-certificates"
        cp -L /usr/local/share/ca-certificates/*.crt "$tree/usr/local/share/ca-certificates/"
        quietly chroot "$tree" /usr/sbin/update-ca-certificates || die "update-ca-certificates failed in the root"
    fi
    apt_ways | sed 's/$/;/' >"$tree/etc/apt/apt.conf.d/90way"
    # Nobody needs this root after a loss of power; on a busy disk dpkg's syncs take longer than all else.
    echo force-unsafe-io >"$tree/etc/dpkg/dpkg.cfg.d/unsafe-io"
}

bind() { mkdir -p "$2" && mount --bind "$1" "$2"; }

# Process 1 of the new namespaces: makes the mounts, the network, and waits for the command.
# usage: machine TREE BUILD NO_RUST OUTER_NAMESPACE COMMAND…
machine() {
    local tree="$1" build="$2" no_rust="$3" outer="$4" child status=0 pid
    shift 4
    # Never in the namespace of the machine: these mounts must vanish with this process.
    [[ $$ == 1 && "$(readlink /proc/self/ns/mnt)" != "$outer" ]] || die "fresh.sh is not in namespaces of its own"
    mount --make-rprivate /
    mount --bind "$tree" "$tree"
    bind "$root" "$tree$root"
    bind "$build" "$tree$root/target"
    # What the scripts remember of engines started belongs to this machine, or to that one.
    mkdir -p "$root/stack/run"
    mount -t tmpfs -o mode=755 run "$tree$root/stack/run"
    if ((no_rust)); then
        if [[ -d "$CARGO_HOME/registry" ]]; then bind "$CARGO_HOME/registry" "$tree/root/.cargo/registry"; fi
        cp -L "$CARGO_HOME"/config{,.toml} "$tree/root/.cargo/" 2>/dev/null || true
    else
        if [[ -d "$CARGO_HOME" ]]; then bind "$CARGO_HOME" "$tree$CARGO_HOME"; fi
        if [[ -d "$RUSTUP_HOME" ]]; then bind "$RUSTUP_HOME" "$tree$RUSTUP_HOME"; fi
    fi
    # What apt fetches is fetched once; apt checks each file against its lists.
    bind "$fresh/archives" "$tree/var/cache/apt/archives"
    mount -t proc proc "$tree/proc"
    mount --rbind /dev "$tree/dev"
    mount -t tmpfs -o mode=1777 shm "$tree/dev/shm"
    mount -t tmpfs -o mode=755 run "$tree/run"
    mkdir -p "$tree/run/lock"

    # `trap -`: what bash runs in the background would ignore Ctrl-C otherwise.
    (
        trap - INT QUIT
        exec unshare --mount --net --uts --ipc "$BASH" "${BASH_SOURCE[0]}" --inside "$tree" "$no_rust" "$@"
    ) <&0 &
    child=$!
    # The signals' sender may mean this process alone.
    trap 'kill -INT "$child" 2>/dev/null || true' INT
    trap 'kill -TERM "$child" 2>/dev/null || true' TERM HUP
    # A network in user space: nothing of this machine's interfaces, routes or filters is touched.
    while [[ "$(readlink "/proc/$child/ns/net")" == "$(readlink /proc/self/ns/net)" ]]; do
        kill -0 "$child" 2>/dev/null || exit 1
        sleep 0.05
    done
    local loopback=(--disable-host-loopback)
    if env | grep -qiE '^[a-z]+_proxy=[a-z0-9]+://(localhost|127\.)'; then loopback=(); fi
    slirp4netns --configure --mtu=1500 "${loopback[@]}" "$child" tap0 >"$tree/run/slirp4netns.log" 2>&1 &
    pid=$!
    while kill -0 "$child" 2>/dev/null; do
        wait "$child" && status=0 || status=$?
    done
    kill "$pid" 2>/dev/null || true
    exit "$status"
}

# The command's own side: waits for the network, makes the tree its root, and becomes the command.
inside() {
    local tree="$1" no_rust="$2" n=0 variables=()
    shift 2
    until grep -qE '^tap0[[:space:]]00000000' /proc/net/route; do
        if ((++n > 200)); then
            cat "$tree/run/slirp4netns.log" >&2
            die "slirp4netns made no network" "its own words are above; it needs /dev/net/tun (modprobe tun)"
        fi
        sleep 0.05
    done
    echo fresh >/proc/sys/kernel/hostname
    mount -t sysfs sysfs "$tree/sys"
    if mountpoint -q /sys/fs/cgroup; then mount --rbind /sys/fs/cgroup "$tree/sys/fs/cgroup"; fi
    mapfile -d '' -t variables < <(environment "$tree")
    variables+=(HOME=/root USER=root LOGNAME=root LANG=C.UTF-8 SHELL=/bin/bash)
    local path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    if ! ((no_rust)) && [[ -d "$CARGO_HOME/bin" ]]; then
        variables+=("CARGO_HOME=$CARGO_HOME" "RUSTUP_HOME=$RUSTUP_HOME")
        path="$CARGO_HOME/bin:$path"
    fi
    # Over this namespace's root, so that it has a parent, as the engine's containers need of theirs.
    cd "$tree"
    mount --move "$tree" /
    # shellcheck disable=SC2016  # read inside
    exec chroot . /usr/bin/env -i "${variables[@]}" "PATH=$path" /bin/sh -c 'cd "$0" && exec "$@"' "$root" "$@"
}

run() {
    local suite=bookworm old=0 no_rust=0 renew=0 keep=0 build=''
    while [[ "${1:-}" == -* ]]; do
        case "$1" in
        --help | -h)
            usage
            exit 0
            ;;
        --suite) suite="${2:-}" && shift ;;
        --build) build="${2:-}" && shift ;;
        --old) old=1 ;;
        --no-rust) no_rust=1 ;;
        --renew) renew=1 ;;
        --keep) keep=1 ;;
        --)
            shift
            break
            ;;
        *) die "unknown option $1" "fresh.sh --help" ;;
        esac
        shift || die "an option lacks its value" "fresh.sh --help"
    done
    (($#)) || die "no command is given" "for example: fresh.sh make test; fresh.sh --help says more"
    [[ "$(uname -s)" == Linux ]] || die "a bare root can be made on Linux alone, and this is $(uname -s)" "a Linux virtual machine will do"
    ((EUID == 0)) || die "a bare root needs root: mounts and namespaces" "sudo $0 $*"
    [[ -c /dev/net/tun ]] || die "there is no /dev/net/tun, by which the root gets its network" "modprobe tun"
    if ! have mmdebstrap || ! have slirp4netns; then
        on_debian || die "mmdebstrap or slirp4netns is missing" "install both with the system's package manager"
        apt_install mmdebstrap slirp4netns debian-archive-keyring
    fi
    unshare --mount --pid --fork --net true 2>/dev/null || die "this machine gives root no namespaces of its own" \
        "in a container: run it with --privileged"
    # Both are absolute, and bound where they are.
    export CARGO_HOME="${CARGO_HOME:-$HOME/.cargo}" RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}"
    build="${build:-$fresh/build}"
    mkdir -p "$fresh"/{roots,archives/partial} "$build"
    build="$(cd "$build" && pwd)"
    # Dependencies are built once for all checkouts; cargo tells these apart by their paths, and what it makes of them
    # by times, which a checkout sets anew.
    local build_lock
    exec {build_lock}>"$build.lock"
    if ! flock -n "$build_lock"; then
        note "another run builds in $build, waiting for it (--build names another folder)"
        flock "$build_lock"
    fi
    if (($(du -s --block-size=1G "$build" | cut -f 1) > build_limit)); then
        note "$build has grown beyond $build_limit GiB: it is begun anew"
        find "$build" -xdev -mindepth 1 -delete
    fi
    enough_room "$fresh" "$room"

    sweep
    lock fresh
    local archive="$fresh/$suite.tar"
    if ((old)); then archive="$fresh/$suite-old.tar"; fi
    if ((renew)) || [[ -z "$(find "$archive" -mtime "-$renew_after" 2>/dev/null)" ]]; then
        make_archive "$archive" "$suite" "$old"
    fi
    unlock

    local tree_lock status=0 child
    tree="$(mktemp -d "$fresh/roots/XXXXXXXX")"
    exec {tree_lock}>"$tree.lock"
    flock "$tree_lock"
    if ! ((keep)); then trap 'remove_tree "$tree" && rm -f "$tree.lock"' EXIT; fi
    chmod 755 "$tree"
    tar -x -C "$tree" --numeric-owner --xattrs -f "$archive"
    acquaint "$tree"
    if ((old)); then
        cp "$fresh/sources.$suite" "$tree/etc/apt/sources.list"
        find "$tree/var/lib/apt/lists" -exec touch -d '4 months ago' {} +
    fi
    say "running in a bare Debian ($suite): $*"
    # The namespaces end with this process, even when it is killed.
    (
        trap - INT QUIT
        exec setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --mount-proc --propagation private \
            "$BASH" "${BASH_SOURCE[0]}" --machine "$tree" "$build" "$no_rust" "$(readlink /proc/self/ns/mnt)" "$@"
    ) <&0 {tree_lock}>&- {build_lock}>&- &
    child=$!
    # Ctrl-C reaches all of them by the terminal; another signal is passed on, and then there is an end of patience.
    trap 'stop_within 20 "$child" TERM' TERM HUP
    trap 'stop_within 20 "$child" INT' INT
    while kill -0 "$child" 2>/dev/null; do
        wait "$child" && status=0 || status=$?
    done
    trap '' INT TERM HUP
    if ((keep)); then
        : >"$tree.keep"
        note "the root is left in $tree (its mounts are gone); remove it, and $tree.keep and .lock beside it"
    fi
    exit "$status"
}

# Passes a signal on to the process 1 of the namespaces, which passes it to the command.
# shellcheck disable=SC2317  # called by the traps
stop_within() {
    local seconds="$1" child="$2" signal="$3" first end
    first="$(cat "/proc/$child/task/$child/children" 2>/dev/null || true)"
    # shellcheck disable=SC2086
    [[ -z "$first" ]] || kill -"$signal" $first 2>/dev/null || true
    end=$((SECONDS + seconds))
    while kill -0 "$child" 2>/dev/null && ((SECONDS < end)); do sleep 0.2; done
    kill -KILL "$child" 2>/dev/null || true
}

case "${1:-}" in
--machine) shift && machine "$@" ;;
--inside) shift && inside "$@" ;;
*) run "$@" ;;
esac
exit
