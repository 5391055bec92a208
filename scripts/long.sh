#!/usr/bin/env bash
# What takes too long for every change.
#
#   scripts/long.sh [kill] [ROUNDS]   the tracker killed a thousand times under load, nothing acknowledged lost
#   scripts/long.sh big               a node with a file of 1 TiB and 50 peers; with root also one without pieces of zeros
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
        printf 'skipped: a filesystem with room for 1 TiB is made by root alone\n'
        return
    fi
    # A filesystem of 2 TiB in a file that has no more blocks than are written to it.
    local dir
    dir="$(mktemp -d)"
    # The trap needs the path as it is now.
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
