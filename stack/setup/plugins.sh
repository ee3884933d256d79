#!/usr/bin/env bash
# Builds the guests: the shipped plugins into target/plugins/dist/, those of the tests that try to break the
# sandbox into target/plugins/hostile/. Arguments are passed on to `cargo build`.
set -euo pipefail
# shellcheck source=stack/setup/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

shipped=(docker-restart ansible-playbook sentinel-notify notify-email replace restart-dependents rolling-restart scale)
hostile=(hostile-plugins)
out="$root/target/plugins"

environment=()
answer="$("$setup/wasm-target.sh")" || exit 1
[[ -z "$answer" ]] || mapfile -t environment <<<"$answer"

cd "$root"
say "building the plugins (wasm32-wasip2)"
packages=()
for package in "${shipped[@]}" "${hostile[@]}"; do packages+=(-p "$package"); done
built="$(mktemp)"
trap 'rm -f "$built"' EXIT
# RUSTFLAGS would replace the target's own flags; the guests need none of the host's.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET
for each in "${environment[@]}"; do export "${each?}"; done
cargo_telling "building the plugins" build --profile plugin --target wasm32-wasip2 "${packages[@]}" --lib --bins --examples \
    --target-dir "$out" --message-format=json-render-diagnostics "$@" >"$built" ||
    die "the plugins could not be built" "the compiler's own words are above"

# Puts a file where a running sentinel may be watching: whole or not at all, and only when it is new.
place() {
    local from="$1" to="$2"
    cmp -s "$from" "$to" && return 0
    cp "$from" "$out/.placing"
    mv "$out/.placing" "$to"
    note "${to#"$root/"} ($((($(stat -c %s "$to") + 1023) / 1024)) KiB)"
}

folder_of() {
    local each
    for each in "${shipped[@]}"; do [[ "$1" != "$each" ]] || echo dist; done
    for each in "${hostile[@]}"; do [[ "$1" != "$each" ]] || echo hostile; done
}

mkdir -p "$out/dist" "$out/hostile"
keep=()
while IFS=$'\t' read -r package file; do
    folder="$(folder_of "$package")"
    [[ -n "$folder" ]] || continue
    name="$(basename "$file")"
    name="$folder/${name//_/-}"
    place "$file" "$out/$name"
    keep+=("$name")
done < <(sed -n 's|.*"reason":"compiler-artifact","package_id":"[^"]*[/#]\([a-z0-9-]*\)[@#][^"]*".*"filenames":\["\([^"]*\.wasm\)"\].*|\1\t\2|p' "$built")

for package in "${shipped[@]}"; do
    file="${package#sentinel-}.wasm"
    [[ " ${keep[*]} " == *" dist/$file "* ]] || die "the build of $package made no $file"
done
# What is no longer built must not be loaded any more.
for file in "$out"/dist/*.wasm "$out"/hostile/*.wasm; do
    [[ ! -e "$file" || " ${keep[*]} " == *" ${file#"$out/"} "* ]] || rm -f "$file"
done
