#!/usr/bin/env bash
# Where the CPU time of a transfer goes: both nodes' workers under perf, by what they were doing.
#
#   scripts/profile.sh [OPTION...]      options go to `bench transfer`; default: --size 1G --runs 4
#
# Needs root (or kernel.perf_event_paranoid = -1) and perf (Debian: linux-perf). Shares are of all time on the CPU that the
# workers of seeder and leecher spent, kernel included; what the kernel does for them on its own threads is not in them.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v perf >/dev/null || { echo "profile.sh: no perf: install linux-perf (Debian) or linux-tools" >&2; exit 1; }
data="$(mktemp "${TMPDIR:-/tmp}/shoal-profile.XXXXXX")"
trap 'rm -f "$data"' EXIT

cargo build --release --locked --package bench --package tracker --package client
[[ $# -gt 0 ]] || set -- --size 1G --runs 4
perf record --quiet --all-cpus --call-graph fp --freq 2999 --output "$data" -- \
    "${CARGO_TARGET_DIR:-target}/release/bench" transfer "$@" | grep -E ' shoal +(throughput|cpu|durable|transfer itself) '

# One stack is a line with the thread's name, lines of address and symbol, and an empty line. The first symbol is where the CPU
# was; the others say on whose behalf.
perf script --input "$data" --fields comm,ip,sym 2>/dev/null | awk '
    function kind(leaf, stack) {
        if (stack ~ /hash::(simd|lanes)|sha1/) return "hash, digest and link"
        if (stack ~ /sync_file_range/) return "file: early write-back"
        if (stack ~ /pwrite/) return leaf ~ /copy|movs/ ? "file: copy" : "file: pages, locks"
        if (stack ~ /tcp_recvmsg|sock_read_iter|sock_recvmsg/) return leaf ~ /copy|movs/ ? "receive: copy" : "receive: all else"
        if (stack ~ /tcp_sendmsg/) return leaf ~ /copy|movs/ ? "send: copy" : "send: all else, and packets on loopback"
        if (stack ~ /net_rx_action/) return "send: all else, and packets on loopback"
        if (stack ~ /page_fault|mincore/) return "source: page faults, what is in memory"
        if (stack ~ /io_uring|epoll|schedule/) return "rings, wake-ups"
        return stack ~ /engine::|tokio/ ? "decisions, runtime" : "all else"
    }
    /^[^ \t]/ { worker = $1 ~ /^worker-/; depth = 0; leaf = stack = ""; next }
    NF { if (worker) { if (!depth++) leaf = $2; stack = stack " " $2 } next }
    worker && depth { count[kind(leaf, stack)]++; all++; worker = 0 }
    END {
        if (!all) { print "no samples of workers" > "/dev/stderr"; exit 1 }
        for (k in count) printf "%5.1f %%  %s\n", 100 * count[k] / all, k | "sort -rn"
    }'
