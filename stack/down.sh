#!/usr/bin/env bash
# Stops the stack, forgets its data, and stops the Docker engine if the demo started it.
set -euo pipefail
# shellcheck source=stack/setup/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup/lib.sh"

if have docker && docker info >/dev/null 2>&1; then
    say "stopping the stack"
    quietly "$setup/compose" down --volumes --remove-orphans --timeout 5 || die "the stack could not be stopped"
fi
"$setup/docker.sh" stop
