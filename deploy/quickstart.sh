#!/usr/bin/env bash
# See usage below. Everything that it starts is in a process group of its own, which is ended at the end whatever
# happens; everything that it writes is in one temporary directory, and in cargo's target directory.
set -euo pipefail

usage() {
    cat <<'TEXT'
deploy/quickstart.sh [--keep] [--jobs N] [--programs DIR]

Shows pcmcache at work on this machine: builds it, starts a server on 127.0.0.1, and lets three "machines" (each
with its own cache directory and its own build directory) build tests/projects/atlas: "one" and "two" with empty
caches at the same time, "three" after them. Then it runs the programs of each, compares what they print with
tests/projects/atlas/expected, and says who compiled how much:

  compiles   compilers that were run
  scans      scanners for modules that were run
  fetched    results that came from the server instead
  waited     compiles that waited because the other machine was at them
  seconds    configuring and building, wall clock

It fails if a program prints something else, or if machine "three" had to compile or to scan anything.

  --keep          leave the server running and all files in place, and say how to use them
  --jobs N        run N compiles at once on each machine (default: one for each processor)
  --programs DIR  use DIR/pcmcache and DIR/pcmcache-server instead of building them
  --help          this text

What it needs (clang 22 with libc++, CMake 4.4, ninja) is installed where it is missing; see deploy/toolchain.sh.
The exit status is 0 if all is well, 1 if not, 2 if the arguments cannot be understood.
TEXT
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=deploy/toolchain.sh
source deploy/toolchain.sh

readonly project=$PWD/tests/projects/atlas
readonly programs_of_project=(lexicon raycast planner)
readonly build_limit_s=1800 # a build that takes longer than this hangs

keep=no
jobs=$(nproc)
binaries=  # where pcmcache and pcmcache-server are
work=      # the temporary directory
server=    # the server's process id
url=       # where it listens
declare -A groups  # process groups that are still to be ended
declare -A seconds # by machine

main() {
    parse "$@"
    toolchain_for_builds
    [[ -n $binaries ]] || build_programs
    forget_environment
    work=$(mktemp -d "${TMPDIR:-/tmp}/pcmcache-quickstart.XXXXXX")
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP

    start_server
    say "machines one and two build $(basename "$project") with empty caches, at the same time"
    build_on one two
    say "machine three builds it too"
    build_on three
    check_answers one two three
    print_table one two three
    check_warm three
    [[ $keep == no ]] || explain_how_to_go_on
}

say() { printf '== %s\n' "$*"; }
fail() {
    printf 'quickstart: %s\n' "$*" >&2
    exit 1
}

parse() {
    while (($# > 0)); do
        case $1 in
        --help | -h) usage && exit 0 ;;
        --keep) keep=yes ;;
        --jobs | --programs)
            (($# > 1)) || misused "$1 needs a value"
            if [[ $1 == --jobs ]]; then jobs=$2; else binaries=$2; fi
            shift
            ;;
        *) misused "what is $1?" ;;
        esac
        shift
    done
    [[ $jobs =~ ^[1-9][0-9]{0,3}$ ]] || misused "--jobs takes a number from 1 to 9999, not $jobs"
    [[ -z $binaries ]] || binaries=$(realpath -- "$binaries") || misused "there is no such directory"
}

misused() {
    printf 'quickstart: %s (--help explains)\n' "$*" >&2
    exit 2
}

# Without the tests: with them in the same build, the programs would be made with failpoints.
build_programs() {
    say "building both programs"
    cargo build --release --locked -p pcmcache -p pcmcache-server
    binaries=$(cargo metadata --format-version 1 --no-deps --locked |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release
}

# Settings of the user's own pcmcache and CMake are not what is to be shown here.
forget_environment() {
    local name
    for name in $(compgen -e); do
        case $name in PCMCACHE_* | CMAKE_* | CXXFLAGS | LDFLAGS) unset "$name" ;; esac
    done
}

# start LOG COMMAND...: runs it behind, in its own process group; its id is then in $!.
start() {
    set -m
    "${@:2}" >"$1" 2>&1 </dev/null &
    set +m
    groups[$!]=started
}

start_server() {
    mkdir "$work/server"
    : >"$work/server/out" # it is looked at before the server is under way
    # nohup: with --keep it outlives this script and its terminal.
    set -m
    nohup "$binaries/pcmcache-server" --listen 127.0.0.1:0 --data-dir "$work/server/data" \
        >"$work/server/out" 2>"$work/server/log" </dev/null &
    set +m
    server=$!
    groups[$server]=started
    local tries
    for ((tries = 0; tries < 200; tries++)); do
        url=$(sed -n '1s/^listening on \(http:.*\)$/\1/p' "$work/server/out")
        [[ -z $url ]] || break
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    if [[ -z $url ]]; then
        tail -n 20 "$work/server/log" >&2
        fail "the server did not start"
    fi
    say "a server listens on $url"
}

# on_machine NAME COMMAND...
on_machine() {
    PCMCACHE_DIR=$work/$1/cache PCMCACHE_REMOTE=$url XDG_CONFIG_HOME=$work/config "${@:2}"
}

# build_on NAME...: configures and builds the project on each machine, all at the same time.
build_on() {
    local name failed='' pids=() index
    for name in "$@"; do
        mkdir "$work/$name"
        start "$work/$name/log" build_machine "$name"
        pids+=("$!")
    done
    index=0
    for name in "$@"; do
        wait "${pids[index]}" || failed+=" $name"
        forget_group_if_ended "${pids[index++]}"
        [[ ! -f $work/$name/seconds ]] || seconds[$name]=$(<"$work/$name/seconds")
    done
    for name in $failed; do
        printf -- '-- the end of what machine %s printed:\n' "$name" >&2
        tail -n 30 "$work/$name/log" >&2
    done
    [[ -z $failed ]] || fail "the build failed on:$failed"
}

build_machine() {
    local name=$1 build=$work/$1/build start end
    start=$(microseconds)
    on_machine "$name" cmake --preset clang-22 -Wno-experimental -S "$project" -B "$build" \
        -DCMAKE_PROJECT_TOP_LEVEL_INCLUDES="$PWD/deploy/cmake/pcmcache.cmake" -DPCMCACHE_PROGRAM="$binaries/pcmcache"
    on_machine "$name" timeout --foreground "$build_limit_s" cmake --build "$build" --parallel "$jobs"
    end=$(microseconds)
    printf '%d.%d\n' $(((end - start) / 1000000)) $(((end - start) / 100000 % 10)) >"$work/$name/seconds"
}

# $EPOCHREALTIME has the locale's decimal separator in it.
microseconds() { echo "${EPOCHREALTIME//[!0-9]/}"; }

check_answers() {
    local name program wrong=
    for name in "$@"; do
        for program in "${programs_of_project[@]}"; do
            timeout 60 "$work/$name/build/bin/$program" >"$work/$name/$program.txt" &&
                cmp -s "$work/$name/$program.txt" "$project/expected/$program.txt" && continue
            wrong+=" $program on $name;"
        done
    done
    [[ -z $wrong ]] || fail "a wrong answer from:$wrong"
    say "the programs ${programs_of_project[*]} print what they should, on each machine"
}

# counts NAME: compiles, scans, fetched and waited, from the launcher's own statistics.
counts() {
    on_machine "$1" "$binaries/pcmcache" stats --format json |
        "$toolchain_dir/venv/bin/python" -c '
import json, sys
stats = json.load(sys.stdin)
print(*(int(stats[key]) for key in ("compiles", "scans", "remote_hits", "waits")))'
}

print_table() {
    local name all compiles scans fetched waited
    printf '\n%-8s  %8s  %8s  %8s  %8s  %8s\n' machine compiles scans fetched waited seconds
    for name in "$@"; do
        all=$(counts "$name") || fail "machine $name has no statistics"
        read -r compiles scans fetched waited <<<"$all"
        printf '%-8s  %8d  %8d  %8d  %8d  %8s\n' \
            "$name" "$compiles" "$scans" "$fetched" "$waited" "${seconds[$name]}"
    done
    printf '\n'
}

# check_warm NAME: all was compiled before, so this machine must not have compiled.
check_warm() {
    local compiles scans
    read -r compiles scans _ <<<"$(counts "$1")"
    [[ $compiles == 0 ]] || fail "machine $1 compiled $compiles times what others had compiled before"
    [[ $scans == 0 ]] || fail "machine $1 scanned $scans times what others had scanned before"
    say "machine $1 compiled nothing and scanned nothing"
}

explain_how_to_go_on() {
    cat <<TEXT
== the server goes on: $url, process $server

To use it for a project of yours, in a new build directory:

    export PCMCACHE_REMOTE=$url
    cmake -G Ninja -DCMAKE_PROJECT_TOP_LEVEL_INCLUDES=$PWD/deploy/cmake/pcmcache.cmake \
        -DPCMCACHE_PROGRAM=$binaries/pcmcache ...
    cmake --build ...
    $binaries/pcmcache stats

To look at what the three machines did:

    PCMCACHE_DIR=$work/three/cache $binaries/pcmcache stats

To stop it and to remove everything:

    kill $server && rm -r $work

TEXT
}

clean_up() {
    local status=$? group tries
    trap - EXIT
    trap '' INT TERM HUP
    [[ $keep == no || $status != 0 ]] || return 0
    for group in "${!groups[@]}"; do kill -TERM -- "-$group" 2>/dev/null || true; done
    # The server may take ten seconds to finish what it is at.
    for ((tries = 0; tries < 120; tries++)); do
        any_left || break
        sleep 0.1
    done
    for group in "${!groups[@]}"; do
        kill -KILL -- "-$group" 2>/dev/null || true
        wait "$group" 2>/dev/null || true
    done
    if [[ $keep == yes ]]; then
        printf 'quickstart: logs and data are in %s\n' "$work" >&2
    else
        rm -rf -- "$work"
    fi
    exit "$status"
}

# The number of a group that ended may be given to a stranger's.
forget_group_if_ended() {
    kill -0 -- "-$1" 2>/dev/null || unset "groups[$1]"
}

any_left() {
    local group
    for group in "${!groups[@]}"; do
        ! kill -0 -- "-$group" 2>/dev/null || return 0
    done
    return 1
}

main "$@"
