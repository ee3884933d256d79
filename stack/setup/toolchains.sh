#!/usr/bin/env bash
# The toolchains of the languages that plugins are written in, for the tests and for whoever writes
# plugins in a checkout: pinned versions, in a folder of the cache; `sentinel plugin build` looks there.
# usage: toolchains.sh [rust] [python] [js] [c] [ansible]     installs (all of them when none is named)
#        eval "$(toolchains.sh env)"                what a build in Rust needs in its environment
set -euo pipefail
# shellcheck source=stack/setup/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

folder="$cache/toolchains"
templates="$root/host/daemon/templates/plugin"

# Whether what is there was made by this version of this script from this pin.
is_current() { [[ -f "$folder/$1/.pin" && "$(<"$folder/$1/.pin")" == "$2" ]]; }

rust() { "$setup/wasm-target.sh" >/dev/null; }

# componentize-py, with CPython inside.
python() {
    local pin
    pin="$(grep -v '^#' "$templates/python/requirements.txt")"
    is_current python "$pin" && return 0
    have python3 || on_debian || die "there is no python3 on this machine"
    # Debian keeps what makes a venv apart.
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        on_debian || die "this machine's python3 makes no virtual environments (venv, ensurepip)"
        apt_install python3 python3-venv
    fi
    say "installing $pin (once)"
    # Its programs name the folder that they are in, so it is made in its place; the pin comes last.
    rm -rf "$folder/python"
    python3 -m venv "$folder/python"
    patiently "installing $pin" "$folder/python/bin/pip" install --quiet --disable-pip-version-check "$pin" ||
        die "$pin could not be installed" "its own words are above"
    printf '%s\n' "$pin" >"$folder/python/.pin"
}

# What docs/plugins.md names: Debian 12 has 18.20.
node_least=18

# componentize-qjs, with QuickJS inside.
js() {
    local pin version
    pin="$(sed -n 's/.*"\(componentize-qjs\)": "\(.*\)".*/\1@\2/p' "$templates/js/package.json")"
    is_current js "$pin" && return 0
    if ! have node || ! have npm; then
        on_debian || die "there is no npm on this machine" "see https://nodejs.org"
        apt_install nodejs npm
    fi
    version="$(node --version | first_version)"
    if ! at_least "$version" "$node_least" && on_debian && installed nodejs && candidate "nodejs>=$node_least"; then
        apt_install "nodejs>=$node_least" npm
        version="$(node --version | first_version)"
    fi
    at_least "$version" "$node_least" ||
        die "Node.js here is $version ($(command -v node)), and $node_least is the oldest that serves" "see https://nodejs.org"
    say "installing $pin (once)"
    rm -rf "$folder/js"
    mkdir -p "$folder/js"
    patiently "installing $pin" npm install --silent --no-audit --no-fund --no-save --prefix "$folder/js" "$pin" ||
        die "$pin could not be installed" "its own words are above"
    printf '%s\n' "$pin" >"$folder/js/.pin"
}

# clang, and C's library for WASI.
c() {
    [[ -z "${WASI_SDK_PATH:-}" ]] || return 0
    on_debian || die "there is no WASI SDK on this machine" \
        "unpack one from https://github.com/WebAssembly/wasi-sdk/releases and set WASI_SDK_PATH to it"
    apt_install clang-19 lld-19 wasi-libc libclang-rt-19-dev-wasm32
}

# The newest Ansible that this machine's Python can run, for the tests, beside the one that the system has:
# what they take for a template differs.
ansible() {
    local pin='ansible-core>=2.19'
    is_current ansible "$pin" && return 0
    have python3 || on_debian || die "there is no python3 on this machine"
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then apt_install python3-venv; fi
    say "installing $pin (once)"
    rm -rf "$folder/ansible"
    python3 -m venv "$folder/ansible"
    patiently "installing $pin" "$folder/ansible/bin/pip" install --quiet --disable-pip-version-check "$pin" ||
        die "$pin could not be installed" "its own words are above; it needs Python 3.11 or newer"
    printf '%s\n' "$pin" >"$folder/ansible/.pin"
}

(($#)) || set -- rust python js c ansible
if [[ "$*" == env ]]; then
    answer="$("$setup/wasm-target.sh")" || exit 1
    while IFS='=' read -r name value; do
        [[ -z "$name" ]] || printf "export %s='%s'\n" "$name" "$value"
    done <<<"$answer"
    exit 0
fi
lock toolchains
for part in "$@"; do
    case "$part" in
    rust) rust ;;
    python) python ;;
    js) js ;;
    c) c ;;
    ansible) ansible ;;
    *) die "unknown toolchain '$part'" "usage: toolchains.sh [rust] [python] [js] [c] [ansible] | env" ;;
    esac
done
