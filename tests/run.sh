#!/usr/bin/env bash
# Builds everything and runs every test. Sets up what the tests need (see deploy/toolchain.sh).
#
#     tests/run.sh                        all tests, whether they notice what is broken (tests/mutants.sh), and the fuzzers
#                                         (tests/fuzz.sh) for a short while
#     tests/run.sh ARGS...                what `cargo test` takes: -p CRATE, --test FILE, a test's name, -- --nocapture
#
# The tests find the tools by PATH, and by what is exported here.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=deploy/toolchain.sh
source deploy/toolchain.sh
toolchain_for_tests

PCMCACHE_TEST_CMAKE=$(command -v cmake)
PCMCACHE_TEST_NINJA=$(command -v ninja)
PCMCACHE_TEST_MAKE=$(command -v make)
PCMCACHE_TEST_CLANG=$(command -v "clang++-$toolchain_clang")
PCMCACHE_TEST_SCHEMATHESIS=$(command -v schemathesis)
PCMCACHE_TEST_PYTHON=$toolchain_dir/venv/bin/python
export PCMCACHE_TEST_CMAKE PCMCACHE_TEST_NINJA PCMCACHE_TEST_MAKE PCMCACHE_TEST_CLANG PCMCACHE_TEST_SCHEMATHESIS
PCMCACHE_TEST_NODE=$(command -v node)
PCMCACHE_TEST_CHROMIUM=$(command -v chromium)
PCMCACHE_TEST_NODE_MODULES=$toolchain_dir/node/node_modules
export PCMCACHE_TEST_PYTHON PCMCACHE_TEST_NODE PCMCACHE_TEST_CHROMIUM PCMCACHE_TEST_NODE_MODULES

# What no test runs must build too.
cargo build --workspace --locked
crates=(--workspace)
for argument in "$@"; do
    case $argument in
        --) break ;;
        -p* | --package* | --workspace) crates=() ;;
    esac
done
cargo test --locked "${crates[@]}" "$@"
if (($# == 0)); then
    tests/mutants.sh
    tests/fuzz.sh --seconds 10
fi
