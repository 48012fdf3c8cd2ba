#!/bin/sh
# The same as a script, for a job of any CI system: warm up, build, hand over, and say what the cache did. Only the build
# can fail the job.
#
#   PCMCACHE_REMOTE=http://127.0.0.1:7733 deploy/examples/build.sh
set -eu
cd "$(dirname "$0")"
: "${PCMCACHE:=pcmcache}"
: "${PCMCACHE_PROFILE:=examples}"
export PCMCACHE_PROFILE
# No compile waits for the upload of the one before; the last lines wait for the rest.
export PCMCACHE_UPLOAD=background

if [ -n "${PCMCACHE_REMOTE:-}" ]; then
    "$PCMCACHE" warm "$PCMCACHE_PROFILE" || true
fi

mkdir -p "${OUT:=build}"
"$PCMCACHE" clang++-22 -std=c++23 -O2 -c greet.cppm -o "$OUT/greet.o" -fmodule-output="$OUT/greet.pcm"
"$PCMCACHE" clang++-22 -std=c++23 -O2 -c main.cpp -o "$OUT/main.o" -fmodule-file=greet="$OUT/greet.pcm"
clang++-22 "$OUT/greet.o" "$OUT/main.o" -o "$OUT/hello"

if [ -n "${PCMCACHE_REMOTE:-}" ]; then
    "$PCMCACHE" sync --wait || true
    "$PCMCACHE" profile push "$PCMCACHE_PROFILE" || true
fi
"$PCMCACHE" stats
