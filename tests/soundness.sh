#!/usr/bin/env bash
# The cases of tests/soundness for pcmcache, ccache and sccache (the latter two where they can be had): how many of the
# compiles after a change were hits, and how many were wrong. Ends with a table; takes some minutes.
#
#     tests/soundness.sh                              all cases
#     PCMCACHE_TEST_CASE='new header' tests/soundness.sh
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=deploy/toolchain.sh
source deploy/toolchain.sh
toolchain_for_tests
toolchain_for_peers

exec cargo test --locked -p pcmcache-tests --test soundness -- --ignored --nocapture
