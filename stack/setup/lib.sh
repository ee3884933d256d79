# shellcheck shell=bash
# What the set-up scripts share. Sourced, never run.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
# Only used by the scripts that source this file.
# shellcheck disable=SC2034
setup="$root/stack/setup"
: "${HOME:=$(cd ~ && pwd)}"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/infra-sentinel"
# Where the scripts remember what they started, so that they stop no more than that.
# shellcheck disable=SC2034
state="${SENTINEL_RUN_DIR:-$root/stack/run}"

# All progress goes to stderr: stdout belongs to what a script answers.
say() { printf '==> %s\n' "$*" >&2; }
note() { printf '    %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    local line
    for line in "$@"; do printf 'hint: %s\n' "$line" >&2; done
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command quietly and shows what it printed only when it fails.
quietly() {
    local out status=0
    out="$(mktemp)"
    "$@" >"$out" 2>&1 || status=$?
    if ((status)); then
        tail -n 40 "$out" >&2
    fi
    rm -f "$out"
    return "$status"
}

# Runs a command quietly and, while it works, says every ten seconds that it still does.
# usage: patiently "what it does" command…
patiently() {
    local what="$1" status=0 ticker
    shift
    # The command stays in the foreground, where Ctrl-C reaches it; the ticker ends with this script.
    (
        n=0
        while sleep 1 >/dev/null 2>&1 && kill -0 "$$" 2>/dev/null; do
            if ((++n % 10 == 0)); then note "$what: $n s"; fi
        done
    ) &
    ticker=$!
    quietly "$@" || status=$?
    # Not TERM: whoever called this may have it ignored, and so would the ticker.
    kill -KILL "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    return "$status"
}

# Runs cargo and says how far it is: on a terminal by cargo's own line, else by a line every ten seconds.
# usage: cargo_telling "what it does" ARGUMENT…
cargo_telling() {
    local what="$1"
    shift
    if [[ -t 2 ]]; then
        cargo "$@"
    else
        { CARGO_TERM_PROGRESS_WHEN=always CARGO_TERM_PROGRESS_WIDTH=80 cargo "$@" 2>&1 >&3 | progress "$what" >&2; } 3>&1
    fi
}
# Reads what cargo says: its progress, which ends in carriage returns, and its messages, which pass.
progress() {
    local what="$1" chunk='' part line done='' told=$SECONDS status
    while :; do
        status=0
        IFS= read -r -t 2 -d $'\r' part || status=$?
        chunk+="$part"
        if ((status <= 128)); then
            while IFS= read -r line; do
                if [[ "$line" =~ Building\ \[[=\>\ ]*\]\ +([0-9]+)/([0-9]+) ]]; then
                    done="${BASH_REMATCH[1]} of ${BASH_REMATCH[2]} units, "
                elif [[ "$line" =~ [^[:space:]] && ! "$line" =~ ^\ *(Compiling|Checking|Documenting|Download(ing|ed)|Updating|Locking|Adding|Blocking|Finished|Fresh|Executable)\  ]]; then
                    printf '%s\n' "$line"
                fi
            done <<<"$chunk"
            chunk=''
        fi
        if ((SECONDS - told >= 10)); then
            note "$what: $done$SECONDS s in all"
            told=$SECONDS
        fi
        ((status == 0 || status > 128)) || break
    done
}

# Runs jobs beside each other. The first that fails ends the others, and the script.
# usage: beside "what it does" COMMAND…   and, once all are started:  await_all
beside() {
    local what="$1"
    shift
    # `trap -`: what bash runs in the background would ignore Ctrl-C otherwise.
    (
        trap - INT QUIT
        "$@"
    ) <&0 &
    beside_jobs[$!]="$what"
}
declare -A beside_jobs=()
await_all() {
    local pid status
    while ((${#beside_jobs[@]})); do
        status=0
        pid=
        wait -n -p pid "${!beside_jobs[@]}" || status=$?
        [[ -n "$pid" ]] || return 1
        if ((status)); then
            local what="${beside_jobs[$pid]}"
            unset "beside_jobs[$pid]"
            end_all
            die "$what: failed" "the reason is above"
        fi
        unset "beside_jobs[$pid]"
    done
}
end_all() {
    local pid
    for pid in "${!beside_jobs[@]}"; do end_tree "$pid"; done
    beside_jobs=()
}
# Ends a process and all that it started, the leaves last so that none is started anew.
end_tree() {
    local child children
    kill -STOP "$1" 2>/dev/null || return 0
    read -ra children < <(cat "/proc/$1/task/"*/children 2>/dev/null) || true
    for child in "${children[@]}"; do end_tree "$child"; done
    kill -TERM "$1" 2>/dev/null || true
    kill -CONT "$1" 2>/dev/null || true
}

# rustup's tools go before those that Debian has in /usr/bin: the latter serve the guests alone.
if [[ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]]; then
    PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
fi

on_debian() { have apt-get && have dpkg-query; }

# Root runs a command as it is; others go through sudo where there is one.
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        die "'$*' needs root" "run it as root, or install sudo"
    fi
}

installed() {
    [[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]
}

# The version of an installed package; nothing when it is not installed.
version_of() {
    if installed "$1"; then dpkg-query -W -f '${Version}' "$1"; fi
}

# The version of a package that apt would install; nothing when it knows none.
candidate_of() {
    LC_ALL=C apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: \([^(].*\)$/\1/p'
}

# Whether the first version is the second or a later one.
at_least() { [[ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" == "$2" ]]; }

# The first version number in what a program says of itself.
first_version() { grep -oE '[0-9]+(\.[0-9]+)+' | head -n 1 || true; }

# Whether an installed package is there and new enough.
# usage: serves PACKAGE[>=VERSION]
serves() {
    local version
    version="$(version_of "${1%%>=*}")"
    [[ -n "$version" ]] || return 1
    [[ "$1" != *'>='* ]] || dpkg --compare-versions "$version" ge "${1#*>=}"
}

# Whether apt knows a version of the package that serves. Lists that are older than a day decide nothing.
# usage: candidate PACKAGE[>=VERSION]
candidate() {
    local version
    apt_lists_of_today
    version="$(candidate_of "${1%%>=*}")"
    [[ -n "$version" ]] || return 1
    [[ "$1" != *'>='* ]] || dpkg --compare-versions "$version" ge "${1#*>=}"
}

# Installs those of the named packages that are missing, and updates those that are too old.
# usage: apt_install PACKAGE[>=VERSION]…
apt_install() {
    local missing=() package names=()
    for package in "$@"; do
        serves "$package" || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    if [[ -n "${planning:-}" ]]; then
        planned+=("${missing[@]%%>=*}")
        return 0
    fi
    apt_lists_of_today
    for package in "${missing[@]}"; do
        candidate "$package" || die "this machine's apt has no $package" \
            "it has $(candidate_of "${package%%>=*}" | grep . || echo none); look at /etc/apt/sources.list and /etc/apt/sources.list.d (the security suite belongs there)"
        names+=("${package%%>=*}")
    done
    say "installing ${names[*]}"
    if ! patiently "apt-get install" apt_install_now "${names[@]}"; then
        # A point release may have replaced the files that the lists name.
        [[ -z "${apt_updated:-}" ]] || die "apt-get could not install ${names[*]}" "its own words are above"
        apt_update
        patiently "apt-get install" apt_install_now "${names[@]}" ||
            die "apt-get could not install ${names[*]}" "its own words are above"
    fi
    for package in "${missing[@]}"; do
        serves "$package" || die "apt-get has installed ${package%%>=*} $(version_of "${package%%>=*}"), and ${package#*>=} is the oldest that serves" \
            "is the package held? apt-mark showhold, apt-cache policy ${package%%>=*}"
    done
}
apt_install_now() {
    # The services that packages bring are started by the stack, in containers, and never on the host.
    apt_get env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 \
        install -y --no-install-recommends "$@"
}
# Runs apt-get when no other job of ours does. Apt itself waits for the others of this machine, and not for ever: behind
# one of ours on a slow disk it gave up.
apt_get() {
    mkdir -p "$cache"
    (flock 9 && as_root "$@" 9>&-) 9>"$cache/apt-get.lock"
}
apt_update() {
    [[ -z "${apt_updated:-}" ]] || return 0
    say "fetching the package lists"
    patiently "fetching the package lists" apt_get apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 update ||
        die "apt-get update failed" "its own words are above"
    apt_updated=1
    mkdir -p "$cache"
    : >"$cache/apt-lists"
}
# The lists' own times are those of the mirror; that of their folder, or of our own mark, is when they were fetched.
apt_lists_of_today() {
    [[ -z "${apt_lists_seen:-}" ]] || return 0
    local lists=/var/lib/apt/lists
    if [[ -z "$(find "$lists" -maxdepth 1 -name '*Packages*' -print -quit 2>/dev/null)" ||
        -z "$(find "$lists" "$lists/partial" "$cache/apt-lists" /var/lib/apt/periodic/update-success-stamp \
            -maxdepth 0 -mmin -1440 -print -quit 2>/dev/null)" ]]; then
        apt_update
    fi
    apt_lists_seen=1
}

# Whether the disk has the room that is needed, before the work and not after it.
# usage: enough_room FOLDER GIB
enough_room() {
    local folder="$1" free least="${SENTINEL_ROOM:-$2}"
    while [[ ! -d "$folder" ]]; do folder="$(dirname "$folder")"; done
    free="$(df -P -k "$folder" | awk 'NR == 2 { print int($4 / 1048576) }')"
    ((free >= least)) || die "the disk of $folder has $free GiB free, and this takes $least" "make room, or set SENTINEL_ROOM=$free to try all the same"
}

# The apt sources of a Debian suite, one a line, at the mirrors that this machine's own apt uses.
debian_sources() {
    local suite="$1" options="${2:-}" main security
    main="$(apt_mirror Debian)"
    security="$(apt_mirror Debian-Security)"
    main="${main:-http://deb.debian.org/debian/}"
    printf 'deb %s%s %s main\n' "$options" "$main" "$suite"
    [[ "$suite" != *-* ]] || return 0
    printf 'deb %s%s %s-updates main\n' "$options" "$main" "$suite"
    printf 'deb %s%s %s-security main\n' "$options" "${security:-http://deb.debian.org/debian-security/}" "$suite"
}
apt_mirror() {
    # The placeholders are apt's.
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        awk -v label="$1" '$1 == label && !seen { print $2; seen = 1 }'
}

# Fetches packages of another Debian suite into a folder, verified as apt does, without touching the
# machine's own apt: its lists, its state and its cache are private.
# usage: debian_download SUITE FOLDER PACKAGE…
debian_download() {
    local suite="$1" folder="$2" private="$cache/apt/$1"
    shift 2
    [[ -r /usr/share/keyrings/debian-archive-keyring.gpg ]] || apt_install debian-archive-keyring
    mkdir -p "$folder" "$private"/{parts,lists/partial,archives/partial}
    : >"$private/status"
    debian_sources "$suite" '[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ' >"$private/sources.list"
    local apt=(apt-get -qq
        -o "Dir::Etc::sourcelist=$private/sources.list" -o "Dir::Etc::sourceparts=$private/parts"
        -o "Dir::State::lists=$private/lists" -o "Dir::State::status=$private/status"
        -o "Dir::Cache=$private" -o "Dir::Cache::archives=$private/archives"
        -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Retries=3
        -o Debug::NoLocking=true)
    if [[ -z "$(find "$private/lists" -maxdepth 1 -name '*Packages*' -mmin -720 -print -quit)" ]]; then
        quietly "${apt[@]}" update || return 1
        find "$private/lists" -maxdepth 1 -name '*Packages*' -exec touch {} +
    fi
    if ! (cd "$folder" && quietly "${apt[@]}" download "$@"); then
        # A point release may have replaced the files that older lists name.
        quietly "${apt[@]}" update || return 1
        (cd "$folder" && quietly "${apt[@]}" download "$@")
    fi
}

# A lock for what several runs may want to make at the same moment; held until `unlock` or the script's end.
lock() {
    mkdir -p "$cache"
    exec {lock_fd}>"$cache/$1.lock"
    if ! flock -n "$lock_fd"; then
        note "another run is busy with $1, waiting for it"
        flock "$lock_fd"
    fi
}
unlock() { exec {lock_fd}>&-; }
