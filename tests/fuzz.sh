#!/usr/bin/env bash
# Gives everything that reads what others wrote (tests/fuzz/src/lib.rs) inputs that nobody thought of: first those that are kept
# in tests/fuzz/corpus, then new ones by libFuzzer, from a seed that is shown. An input that fails is kept, and the line that
# gives it to its target again is printed.
#
#     tests/fuzz.sh                               all targets, 10 seconds each
#     tests/fuzz.sh --seconds 300 depfile http    these two, 5 minutes each
#     tests/fuzz.sh --seed 7 depfile              the same inputs once more, as far as time lets
#     tests/fuzz.sh --grow depfile                what was found new, and is short, goes to tests/fuzz/corpus
#     tests/fuzz.sh --replay FILE depfile         this one input
#     tests/fuzz.sh --list                        the targets
#
# --jobs N runs so many targets side by side (2).
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=10 seed=$((RANDOM * 32768 + RANDOM + 1)) jobs=2 grow='' replay='' targets=()
stop() { printf 'fuzz: %s\n' "$1" >&2; exit 2; }
known() { sed -n '/^targets! {/,/^}/p' tests/fuzz/src/lib.rs | sed '1d;$d'; }
while (($# > 0)); do
    case $1 in
        --seconds | --seed | --jobs | --replay)
            (($# > 1)) || stop "$1 needs a value"
            printf -v "${1#--}" %s "$2"
            shift
            ;;
        --grow) grow=yes ;;
        --list) known | xargs -n1 && exit ;;
        --help | -h) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" && exit ;;
        -*) stop "there is no $1; --help tells what there is" ;;
        *) targets+=("$1") ;;
    esac
    shift
done
for name in "${targets[@]}"; do
    [[ " $(known | xargs) " == *" $name "* ]] || stop "there is no target '$name'; --list names them"
done
((${#targets[@]} > 0)) || read -ra targets <<<"$(known | xargs)"
[[ -z $replay || ${#targets[@]} == 1 ]] || stop "--replay takes one target"

# shellcheck source=deploy/toolchain.sh
source deploy/toolchain.sh
toolchain_find_cargo
toolchain_find_programs g++

# All of the workspace is named, so that the dependencies are those of every other build, and built once.
RUSTC_WORKSPACE_WRAPPER=$PWD/tests/fuzz/instrument cargo build --workspace --locked --quiet \
    --bin pcmcache-fuzz --features pcmcache-fuzz/libfuzzer
fuzzer=${CARGO_TARGET_DIR:-target}/debug/pcmcache-fuzz
found=${CARGO_TARGET_DIR:-target}/fuzz
mkdir -p "$found"

# Files are small and many: in memory, where there is room for such.
scratch=$(TMPDIR=$([[ -w /dev/shm ]] && echo /dev/shm || echo "${TMPDIR:-/tmp}") mktemp -d -t pcmcache-fuzz.XXXXXX)
trap 'rm -rf "$scratch"' EXIT

# What one input may cost: 1 GB, 20 seconds. Inputs stay short, for what is found by long ones is found by short ones too.
limits=(-rss_limit_mb=1024 -malloc_limit_mb=512 -timeout=20 -max_len=8192)

# As a program of Rust's has it, which this one is not: its `main` is libFuzzer's.
trap '' PIPE

run() { # TARGET ARGUMENT...
    mkdir -p "$scratch/$1"
    PCMCACHE_FUZZ_TARGET=$1 TMPDIR=$scratch/$1 RUST_BACKTRACE=0 "$fuzzer" "${limits[@]}" \
        -artifact_prefix="$found/$1-" "${@:2}" >"$found/$1.log" 2>&1
}

fuzz() { # TARGET
    local corpus=tests/fuzz/corpus/$1 fresh=$scratch/$1.new
    mkdir -p "$fresh"
    if ! run "$1" -runs=0 "$corpus" || ! run "$1" -max_total_time="$seconds" -seed="$seed" "$fresh" "$corpus"; then
        tail -n 40 "$found/$1.log" >&2
        local input
        input=$(sed -n 's/.*Test unit written to //p' "$found/$1.log" | tail -n 1)
        printf 'fuzz: %s FAILED (seed %s)\n' "$1" "$seed" >&2
        [[ -z $input ]] || printf '    tests/fuzz.sh --replay %s %s\n' "$input" "$1" >&2
        return 1
    fi
    printf 'fuzz: %-12s %s inputs kept, %s new; %s\n' "$1" "$(find "$corpus" -type f | wc -l)" \
        "$(find "$fresh" -type f | wc -l)" "$(grep -o '^Done .*' "$found/$1.log" | tail -n 1)"
    [[ -z $grow ]] || keep "$1" "$fresh"
}

# The fewest that show all that was seen, the shortest first, as far as there is room.
keep() { # TARGET DIRECTORY
    local corpus=tests/fuzz/corpus/$1 merged=$scratch/$1.merged
    mkdir -p "$merged"
    run "$1" -set_cover_merge=1 "$merged" "$corpus" "$2"
    local bytes file size count
    size=$(find "$corpus" -type f -printf '%s+')0
    count=$(find "$corpus" -type f | wc -l)
    while read -r bytes file; do
        [[ ! -e $corpus/${file##*/} ]] || continue
        ((size += bytes, count += 1))
        ((size <= 100000 && count <= 100)) || break
        cp "$file" "$corpus/"
    done < <(find "$merged" -type f -size -4k -printf '%s %p\n' | sort -n)
}

if [[ -n $replay ]]; then
    PCMCACHE_FUZZ_TARGET=${targets[0]} TMPDIR=$scratch exec "$fuzzer" "${limits[@]}" "$replay"
fi

printf 'fuzz: seed %s, %s seconds a target\n' "$seed" "$seconds"
for name in "${targets[@]}"; do
    # One that ended makes room for the next.
    while (($(jobs -rp | wc -l) >= jobs)); do sleep 0.2; done
    { fuzz "$name" || : >"$scratch/failed"; } &
done
wait
[[ ! -e $scratch/failed ]]
