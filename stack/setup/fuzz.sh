#!/usr/bin/env bash
# Feeds the parsers of foreign bytes with what libFuzzer makes up, one after another, and says what came of each.
# usage: fuzz.sh      FUZZ_SECONDS=60 for each target, FUZZ_TARGET=NAME for one alone, FUZZ_INPUT=FILE to see what that does to it
set -euo pipefail
# shellcheck source=stack/setup/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

version=0.13.2
fuzz="$cache/cargo-fuzz/$version/bin/cargo-fuzz"
seconds="${FUZZ_SECONDS:-60}"
[[ "$seconds" =~ ^[1-9][0-9]*$ ]] || die "FUZZ_SECONDS=$seconds is no number of seconds" "FUZZ_SECONDS=60"
crate=tests/fuzz
# Everything that is made, so that nothing gets into the tree.
folder="$root/target/fuzz"
# One input may take so many seconds, and so many MiB: one that takes more is a finding.
input_seconds=20 input_memory=2048

mapfile -t targets < <(sed -n '/^\[\[bin\]\]/{n;s/^name = "\(.*\)"/\1/p}' "$crate/Cargo.toml")
if [[ -n "${FUZZ_TARGET:-}" ]]; then
    [[ " ${targets[*]} " == *" $FUZZ_TARGET "* ]] || die "there is no target $FUZZ_TARGET" "there are ${targets[*]}"
    targets=("$FUZZ_TARGET")
elif [[ -n "${FUZZ_INPUT:-}" ]]; then
    die "FUZZ_INPUT is for one target" "FUZZ_TARGET=NAME, one of ${targets[*]}"
fi

get_cargo_fuzz() {
    lock cargo-fuzz
    if [[ ! -x "$fuzz" ]]; then
        say "building cargo-fuzz $version (once, some minutes)"
        patiently "building cargo-fuzz" env -u CARGO_TARGET_DIR cargo install --quiet --locked --root "${fuzz%/bin/*}" \
            "cargo-fuzz@$version" || die "cargo-fuzz could not be built" "its own words are above"
    fi
    unlock
}

# Without a sanitizer it needs no nightly compiler, and what is fuzzed has no unsafe code of its own. `fuzzing` stays unset:
# crates that look for it would be other ones than those that serve.
# usage: cargo_fuzz COMMAND ARGUMENT…
cargo_fuzz() {
    local command="$1"
    shift
    "$fuzz" "$command" --fuzz-dir "$crate" --features engine --sanitizer none --no-cfg-fuzzing --codegen-units 16 \
        --target-dir "$folder/build" "$@"
}

# The last number behind a word in what libFuzzer says.
# usage: told FILE WORD
told() { grep -oE "$2 *[0-9]+" "$1" 2>/dev/null | tail -n 1 | grep -oE '[0-9]+$' || echo 0; }

inputs() { find "$1" -type f | wc -l; }

# Runs one target. What it says is in a file, and every ten seconds a line says how far it is.
fuzz_target() {
    local target="$1" work="$folder/$1" log="$folder/$1/log" status=0 before found ticker
    mkdir -p "$work/corpus" "$work/seeds" "$work/findings"
    before="$(inputs "$work/corpus")"
    local options=(-max_total_time="$seconds" -timeout="$input_seconds" -rss_limit_mb="$input_memory"
        -artifact_prefix="$work/findings/" -print_final_stats=1)
    if [[ -f "$crate/dictionaries/$target.dict" ]]; then options+=(-dict="$crate/dictionaries/$target.dict"); fi
    : >"$log"
    # The target stays in the foreground, where Ctrl-C reaches it; the ticker ends with this script.
    (
        n=0
        while sleep 1 && kill -0 "$$" 2>/dev/null; do
            if ((++n % 10 == 0)); then
                note "$target: $n s, $(told "$log" '^#') executions, $(told "$log" 'cov:') places reached"
            fi
        done
    ) &
    ticker=$!
    SENTINEL_FUZZ_SEEDS="$work/seeds" cargo_fuzz run "$target" "$work/corpus" "$work/seeds" -- "${options[@]}" \
        >"$log" 2>&1 || status=$?
    kill -KILL "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    found="$(sed -n 's/^.*Test unit written to //p' "$log")"
    say "$target: $(told "$log" 'stat::number_of_executed_units:') executions" \
        "($(told "$log" 'stat::average_exec_per_sec:') a second), $(told "$log" 'cov:') places reached," \
        "$(($(inputs "$work/corpus") - before)) new inputs, $(grep -c . <<<"$found" || true) crashes"
    ((status)) || return 0
    # What the target said, without libFuzzer's lines before and after it.
    grep -vE '^(#[0-9]|INFO|stat::|Dictionary)|^ *$' "$log" | tail -n 40 | cut -c -300 >&2
    [[ -n "$found" ]] || die "$target could not be fuzzed" "all that it said is in ${log#"$root/"}"
    crashes+=("make fuzz FUZZ_TARGET=$target FUZZ_INPUT=${found#"$root/"}")
}

trap 'exit 130' INT TERM
"$setup/packages.sh" build fuzz
get_cargo_fuzz
mkdir -p "$folder"
say "building the targets (some ten minutes the first time)"
patiently "building the targets" cargo_fuzz build ${FUZZ_TARGET:+"$FUZZ_TARGET"} ||
    die "the targets could not be built" "the compiler's own words are above"
if [[ -n "${FUZZ_INPUT:-}" ]]; then
    say "feeding $FUZZ_INPUT to ${targets[0]}"
    cargo_fuzz run "${targets[0]}" "$FUZZ_INPUT" || die "${targets[0]} crashes" "its own words are above"
    say "${targets[0]} takes it"
    exit 0
fi
crashes=()
for target in "${targets[@]}"; do
    say "fuzzing $target for $seconds s"
    fuzz_target "$target"
done
if ((${#crashes[@]})); then
    die "of ${#targets[@]} targets ${#crashes[@]} crashed; to see one again:" "${crashes[@]}"
fi
say "${#targets[@]} targets, no crash"
