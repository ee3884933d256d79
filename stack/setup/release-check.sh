#!/usr/bin/env bash
# What the README promises first, on bare machines: `make demo`, and `make down` after it. Once on a new one, once on
# one that was set up months ago, whose package lists are old and whose Rust is too, and once without rustup.
set -euo pipefail
# shellcheck source=stack/setup/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

build="$cache/fresh/build-release"
rm -rf --one-file-system "$build"
# shellcheck disable=SC2016  # for the shell inside
demo='begin=$SECONDS; make demo && echo "make demo: $((SECONDS - begin)) s" && make down'
"$setup/fresh.sh" --build "$build" bash -c "$demo" || die "make demo fails on a new machine" "stack/setup/fresh.sh make demo"
"$setup/fresh.sh" --build "$build" --old --no-rust bash -c "$demo" || die "make demo fails on an old machine, without rustup" "stack/setup/fresh.sh --old --no-rust make demo"
"$setup/fresh.sh" --build "$build" --old bash -c "$demo" || die "make demo fails on an old machine" "stack/setup/fresh.sh --old make demo"
say "make demo works from nothing"
