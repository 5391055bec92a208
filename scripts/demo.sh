#!/usr/bin/env bash
# Shares one file among three peers on this machine with the release programs, and checks that the copies are identical.
#
#   scripts/demo.sh             creates and shares a file of 1 GiB
#   scripts/demo.sh FILE        shares FILE
#
# SHOAL_DEMO_BYTES   size of the created file, in bytes
# TMPDIR             parent of the working directory; needs room for two copies of FILE, or three of the created file
#
#   alice  uploads and serves the file
#   bob    downloads it from alice
#   carol  downloads it from alice and bob at once

set -euo pipefail
repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

readonly BYTES="${SHOAL_DEMO_BYTES:-1073741824}"
readonly GROUP=demo
# Time in which a started program must report that it is ready.
readonly READY_TIMEOUT_S=60
# Time between SIGTERM and SIGKILL.
readonly END_TIMEOUT_S=10

scratch=""
pids=()

fail() {
    printf 'demo.sh: %s\n' "$*" >&2
    exit 1
}

heading() { printf '\n== %s\n' "$*"; }

# Ends the programs that this script started, newest first, and removes its directory. Runs at every exit.
# shellcheck disable=SC2329
clean_up() {
    local code=$? at
    trap - EXIT
    if [[ $code -ne 0 && -n "$scratch" ]]; then
        for log in "$scratch"/*.log; do
            [[ -s "$log" ]] && printf -- '\n-- end of %s\n' "$(basename "$log")" >&2 && tail -n 20 "$log" >&2
        done
    fi
    for ((at = ${#pids[@]} - 1; at >= 0; at--)); do
        end "${pids[$at]}"
    done
    [[ -z "$scratch" ]] || rm -rf -- "$scratch"
    exit "$code"
}

end() { # PID
    kill -TERM "$1" 2>/dev/null || return 0
    timeout "$END_TIMEOUT_S" tail --pid="$1" -f /dev/null || kill -KILL "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

# Starts a program in the background and waits for the line on its standard output that starts with PREFIX. Sets `address`
# to the last word of that line. The pipe closes when the program ends, so no polling is needed.
start() { # NAME PREFIX COMMAND...
    local name=$1 prefix=$2 line descriptor code=0
    shift 2
    mkfifo "$scratch/$name.out"
    "$@" >"$scratch/$name.out" 2>"$scratch/$name.log" </dev/null &
    pids+=("$!")
    exec {descriptor}<"$scratch/$name.out"
    while true; do
        read -r -t "$READY_TIMEOUT_S" line <&"$descriptor" || { code=$?; break; }
        if [[ "$line" == "$prefix"* ]]; then
            address="${line##* }"
            printf '%s: %s\n' "$name" "$line"
            return
        fi
    done
    # `read` returns more than 128 after a timeout, and 1 when the program has ended.
    [[ $code -le 128 ]] || fail "$name did not print \"$prefix…\" within $READY_TIMEOUT_S s"
    fail "$name ended before it printed \"$prefix…\""
}

as() { # PEER COMMAND...
    local peer=$1
    shift
    printf '\n%s> %s\n' "$peer" "$*"
    "$client" --state "$scratch/$peer" --trackers "$scratch/tracker_info.txt" "$@"
}

join() { # PEER: creates an account and logs in
    as "$1" create_user "$1" "$1-has-a-password"
    as "$1" login "$1" "$1-has-a-password"
}

fetch() { # PEER
    local began ended
    as "$1" join_group "$GROUP"
    as "$1" get_peers "$GROUP" "$name"
    mkdir "$scratch/$1.files"
    began="$(date +%s%N)"
    as "$1" download_file "$GROUP" "$name" "$scratch/$1.files/$name"
    ended="$(date +%s%N)"
    awk -v peer="$1" -v bytes="$bytes" -v ns="$((ended - began))" 'BEGIN {
        printf "%s: %.0f MB in %.2f s: %.2f GB/s, from the start of the command to its exit\n",
            peer, bytes / 1e6, ns / 1e9, bytes / ns }'
}

make_file() {
    source_file="$scratch/demo.bin"
    heading "creating a file of $BYTES bytes"
    head -c "$BYTES" /dev/urandom >"$source_file"
}

require_room() { # COPIES
    local free
    free="$(df --output=avail --block-size=1 "$scratch" | tail -n 1)"
    [[ "$free" -gt "$(($1 * bytes))" ]] ||
        fail "$scratch has $free bytes free and needs $(($1 * bytes)). Set TMPDIR to a directory with more space."
}

build() {
    heading "building"
    cargo build --release --locked --manifest-path "$repository/Cargo.toml" --package tracker --package client
    local binaries="${CARGO_TARGET_DIR:-$repository/target}/release"
    tracker="$binaries/tracker"
    client="$binaries/client"
}

start_all() {
    heading "starting a tracker and three peers"
    echo "127.0.0.1 0" >"$scratch/tracker.txt"
    start tracker "tracker listening on " "$tracker" "$scratch/tracker.txt" 1 --data "$scratch/tracker_data"
    # The system chose the port (port 0 was asked for); the peers read it from this file.
    echo "${address%:*} ${address##*:}" >"$scratch/tracker_info.txt"
    local peer
    for peer in alice bob carol; do
        start "$peer" "node listening on " "$client" --state "$scratch/$peer" \
            --trackers "$scratch/tracker_info.txt" --listen 127.0.0.1 serve
        join "$peer"
    done
}

compare() {
    heading "comparing the three copies"
    local sums
    sums="$(sha1sum -- "$source_file" "$scratch/bob.files/$name" "$scratch/carol.files/$name")"
    printf '%s\n' "$sums"
    # sha1sum writes a backslash before the digest when it escapes characters of the name.
    [[ "$(awk '{ sub(/^\\/, ""); print $1 }' <<<"$sums" | sort -u | wc -l)" == 1 ]] || fail "the copies differ"
    cmp -- "$source_file" "$scratch/bob.files/$name" || fail "bob's copy differs"
    cmp -- "$source_file" "$scratch/carol.files/$name" || fail "carol's copy differs"
}

main() {
    [[ $# -le 1 ]] || fail "usage: scripts/demo.sh [FILE]"
    if [[ $# -eq 1 ]]; then
        [[ -f "$1" && -r "$1" ]] || fail "$1 is not a readable file. Usage: scripts/demo.sh [FILE]"
        source_file="$(realpath -- "$1")"
    fi
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    build
    scratch="$(mktemp -d "${TMPDIR:-/tmp}/shoal-demo.XXXXXX")"
    if [[ $# -eq 1 ]]; then
        bytes="$(stat -c %s -- "$source_file")"
        require_room 2
    else
        bytes="$BYTES"
        require_room 3
        make_file
    fi
    name="$(basename -- "$source_file")"
    start_all

    heading "alice uploads"
    as alice create_group "$GROUP"
    as alice upload_file "$GROUP" "$source_file"
    heading "bob downloads from alice"
    fetch bob
    heading "carol downloads from alice and bob"
    fetch carol
    as carol list_files "$GROUP"
    compare
    printf '\ndemo.sh: passed\n'
}

main "$@"
