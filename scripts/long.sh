#!/usr/bin/env bash
# Tests that take too long to run for every change.
#
#   scripts/long.sh [kill] [ROUNDS]   kills the tracker ROUNDS times (default 1000) under load; no acknowledged change may be lost
#   scripts/long.sh big               a node with a sparse file of 1 TiB and 50 peers; as root also with a file that has no zero pieces
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

kill_tracker() { # ROUNDS
    SHOAL_KILL_ROUNDS="$1" cargo test --locked --package tracker --test durable -- --exact \
        kill::nothing_acknowledged_is_lost_by_kill_9
}

big_test() {
    SHOAL_BIG_PEERS=50 cargo test --locked --package client --test big -- --nocapture
}

big() {
    cargo build --locked --package tracker
    big_test
    if [[ "$(id -u)" != 0 ]]; then
        printf 'skipped: only root can create the filesystem for a dense file of 1 TiB\n'
        return
    fi
    # A filesystem of 2 TiB in a sparse file: it takes only the disk space that is written.
    local dir
    dir="$(mktemp -d)"
    # The trap needs the current value of the path.
    # shellcheck disable=SC2064
    trap "umount '$dir/mounted' 2>/dev/null || true; rm -rf '$dir'" EXIT
    mkdir "$dir/mounted"
    truncate --size 2T "$dir/disk"
    mkfs.ext4 -q -O ^has_journal -E lazy_itable_init=1,nodiscard "$dir/disk"
    mount -o loop "$dir/disk" "$dir/mounted"
    TMPDIR="$dir/mounted" SHOAL_BIG_DENSE=1 big_test
}

case "${1:-kill}" in
    big) big ;;
    kill) kill_tracker "${2:-1000}" ;;
    *) kill_tracker "$1" ;;
esac
