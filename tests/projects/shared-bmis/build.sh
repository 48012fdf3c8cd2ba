#!/usr/bin/env bash
# Builds the program as a build tool does that keeps one directory of module files per host, for all builds on it:
#
#     CXX="pcmcache clang++-22" build.sh SHARED OUT MARCH [FLAG...]
#
# Module files go to SHARED/TARGET-MARCH, whoever builds; objects and the program to OUT. A module file that is newer than
# its source is taken as it is; any other is made straight at its place. There is no lock, no temporary, no rename: what
# two of these do to each other is between the compilers that $CXX names.
set -euo pipefail

shared=$1 out=$2 march=$3
read -r -a cxx <<<"${CXX:-clang++-22}"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
std=${STD_CPPM:-/usr/lib/llvm-22/share/libc++/v1/std.cppm}
target=x86_64-linux-gnu

bmis=$shared/$target-$march
flags=(--target=$target "-march=$march" -std=c++23 -O1 -stdlib=libc++ -Wno-reserved-module-identifier
    -Wno-unused-command-line-argument "${@:4}")
flags+=("-fprebuilt-module-path=$bmis")
mkdir -p "$bmis" "$out"

# module NAME SOURCE: its module file if it is not newer than the source, and its object.
module() {
    local bmi=$bmis/$1.pcm
    [[ $bmi -nt $2 ]] || "${cxx[@]}" "${flags[@]}" --precompile "$2" -o "$bmi"
    "${cxx[@]}" "${flags[@]}" -c "$bmi" -o "$out/$1.o"
}

module std "$std"
module Paint-Colour "$here/Paint-Colour.cppm" &
colour=$!
module Paint-Canvas "$here/Paint-Canvas.cppm" &
canvas=$!
wait "$colour"
wait "$canvas"
module Paint "$here/Paint.cppm"
"${cxx[@]}" "${flags[@]}" -c "$here/main.cpp" -o "$out/main.o"
"${cxx[@]}" "${flags[@]}" "$out"/*.o -o "$out/paint"
