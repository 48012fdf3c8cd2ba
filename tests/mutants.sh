#!/usr/bin/env bash
# The tests' own test: breaks one promise at a time (`mutant!("NAME")` in the sources; see shared/src/failpoint.rs) and runs the test
# that holds it. That must pass as the programs are, and fail, by an assertion of its own, with the mutant.
#
#     tests/mutants.sh                    every mutant
#     tests/mutants.sh NAME...            these
#     tests/mutants.sh --list             the table: which test holds which promise
#
# To see how one fails:
#
#     PCMCACHE_TEST_MUTANT=no-upload-hash tests/run.sh --test store rules::uploads
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The mutant, and the test that holds its promise, by its program (a library's is its crate) and its name.
table() {
    cat <<'END'
no-file-sync                  store              rules::power::whatever_was_acknowledged_was_synced
no-directory-sync             store              rules::power::whatever_was_acknowledged_was_synced
no-index-sync                 store              rules::power::whatever_was_acknowledged_was_synced
new-names-unsynced            store              rules::power::whatever_was_acknowledged_was_synced
index-named-at-once           store              rules::io::every_single_fault_of_a_disk_leaves_a_new_store_that_opens_later
doubtful-index-reopened       store              rules::io::every_single_fault_of_a_disk_is_told_by_a_publish_and_gone_with_it
answer-before-commit          store              rules::io::every_single_fault_of_a_disk_is_told_by_a_publish_and_gone_with_it
no-upload-hash                store              rules::uploads::what_is_not_whole_or_not_right_leaves_nothing
overwrite-on-conflict         store              conformance::results::embedded::a_result_is_created_once
fence-reset-at-start          store              rules::restart::a_holder_that_does_not_come_back_is_replaced_and_fences_never_repeat
wall-clock-lease              pcmcache_server    memory::leases::tests::no_jump_of_the_calendar_ends_a_lease_or_keeps_it
unwritten-grant-resumed       pcmcache_server    memory::leases::tests::a_grant_that_is_not_written_keeps_others_out_and_is_not_resumed
waiters-not-woken             pcmcache_server    cache::waiters::tests::one_or_all_are_woken
guests-unheard                pcmcache_server    cache::waiters::tests::a_guest_of_another_scope_hears_of_its_own_too
sweep-races-publish           store              rules::sweep::only_what_is_free_is_swept_from_disk
used-and-evicted              pcmcache_server    cache::uses::tests::what_an_eviction_has_chosen_is_not_used_and_what_was_used_is_not_chosen
off-by-one-range              http               blobs::one_range_is_served_under_its_validator
pull-request-writes-trusted   http               poison::the_protected_branch_never_gets_the_bytes_of_a_pull_request_nor_waits_for_it
no-client-hash                pcmcache           remote::transfer::tests::a_wrong_byte_is_damage
no-local-hash                 pcmcache           local::sums::tests::damage_is_found_by_the_name_and_by_the_sum
hard-link-placed              pcmcache           local::blobs::tests::who_writes_into_what_was_placed_writes_into_no_blob
memo-trusted-too-early        pcmcache           local::memo::tests::a_file_is_hashed_again_when_it_changed_and_only_then
no-rename-on-a-miss           shared_path        what_is_in_place_stays_until_what_replaces_it_is_whole
clock-set-back-unseen         clocks             an_edit_under_a_clock_that_is_set_back_is_seen
END
}

# The longest that one run may take, in seconds.
bound=60
# A mutant fails in each way and from each seed: one is enough.
export PCMCACHE_TEST_FAULTS=1 PCMCACHE_TEST_SEED=1

stop() { printf 'mutants: %s\n' "$1" >&2; exit 2; }
case ${1-} in
    --list) table && exit ;;
    --help | -h) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" && exit ;;
esac

# What the sources know is what the table knows.
in_sources() { grep -rhoE 'mutant!\("[a-z-]+"\)' --include='*.rs' "$@" | sed 's/.*("\(.*\)").*/\1/'; }
differing=$(diff <(table | awk '{print $1}' | sort) <(in_sources client/src server/src shared/src | sort)) ||
    stop "the table here (<) and the sources (>) name other mutants:
$differing"

names=("$@")
for name in "${names[@]}"; do
    table | grep -q "^$name " || stop "there is no mutant '$name'; --list names them"
done
((${#names[@]} > 0)) || mapfile -t names < <(table | awk '{print $1}')

# shellcheck source=deploy/toolchain.sh
source deploy/toolchain.sh
toolchain_for_tests

# All of the workspace, so that it is what tests/run.sh built.
programs=(--lib)
for program in $(for name in "${names[@]}"; do table | awk -v name="$name" '$1 == name { print $2 }'; done | sort -u); do
    [[ $program == pcmcache* ]] || programs+=(--test "$program")
done
built=$(cargo test --locked --workspace --no-run --quiet --message-format=json "${programs[@]}")
program() { # NAME
    sed -n '/"reason":"compiler-artifact"/{/"kind":\["\(lib\|test\)"\]/{/"name":"'"$1"'"/{/"test":true/{
        s/.*"manifest_path":"\([^"]*\)\/Cargo.toml".*"executable":"\([^"]*\)".*/\1 \2/p}}}}' <<<"$built"
}

log=$(mktemp -t pcmcache-mutant.XXXXXX)
trap 'rm -f "$log"' EXIT

run() { # PROGRAM FILTER
    local directory executable
    read -r directory executable < <(program "$1") || stop "there are no tests '$1'"
    (cd "$directory" && timeout "$bound" "$executable" "$2") >"$log" 2>&1
}

declare -A passes
survived=0
for name in "${names[@]}"; do
    read -r _ program filter < <(table | grep "^$name ")
    if [[ -z ${passes[$program $filter]-} ]]; then
        if ! run "$program" "$filter" || ! grep -q '^test result: ok. [1-9]' "$log"; then
            cat "$log" >&2
            stop "without a mutant, $program $filter does not pass"
        fi
        passes[$program $filter]=yes
    fi
    began=$SECONDS status=0
    PCMCACHE_TEST_MUTANT=$name run "$program" "$filter" || status=$?
    case $status in
        101) end=caught ;;
        0) end=SURVIVES survived=1 ;;
        124) end="SURVIVES: no end in $bound s" survived=1 ;;
        *) end="SURVIVES: status $status" survived=1 ;;
    esac
    printf 'mutants: %-28s %s (%s s; %s %s)\n' "$name" "$end" $((SECONDS - began)) "$program" "$filter"
done
exit "$survived"
