#!/usr/bin/env bash
# Random edits of random module projects, each followed by a build through the launcher and a clean one by the compiler
# alone. Prints its seed, and a failure as a script that does the same.
#
#     tests/edits.sh              2,000 edits
#     tests/edits.sh 500          so many
#     PCMCACHE_TEST_SEED=1 tests/edits.sh
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=deploy/toolchain.sh
source deploy/toolchain.sh
toolchain_for_tests

export PCMCACHE_TEST_EDITS=${1:-2000}
exec cargo test --locked -p pcmcache-tests --test edits -- --ignored --nocapture
