#!/usr/bin/env bash
# Profiles a transfer with perf: the CPU time of the nodes' worker threads, by activity.
#
#   scripts/profile.sh [OPTION...]      options go to `bench transfer`; default: --size 1G --runs 4
#
# Needs root (or kernel.perf_event_paranoid = -1) and perf (Debian: linux-perf). Shares are of all CPU time of the worker
# threads of seeder and leecher, kernel included. Work that the kernel does on its own threads is not counted.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v perf >/dev/null || { echo "profile.sh: perf is not installed: install linux-perf (Debian) or linux-tools" >&2; exit 1; }
data="$(mktemp "${TMPDIR:-/tmp}/shoal-profile.XXXXXX")"
trap 'rm -f "$data"' EXIT

cargo build --release --locked --package bench --package tracker --package client
[[ $# -gt 0 ]] || set -- --size 1G --runs 4
perf record --quiet --all-cpus --call-graph fp --freq 2999 --output "$data" -- \
    "${CARGO_TARGET_DIR:-target}/release/bench" transfer "$@" | grep -E ' shoal +(throughput|cpu|durable|transfer itself) '

# A stack is a line with the thread's name, one line of address and symbol per frame, and an empty line. The first frame is
# the innermost.
perf script --input "$data" --fields comm,ip,sym 2>/dev/null | awk '
    function kind(leaf, stack) {
        if (stack ~ /hash::(simd|lanes)|sha1/) return "hash, digest and link"
        if (stack ~ /sync_file_range/) return "file: early write-back"
        if (stack ~ /pwrite/) return leaf ~ /copy|movs/ ? "file: copy" : "file: pages, locks"
        if (stack ~ /tcp_recvmsg|sock_read_iter|sock_recvmsg/) return leaf ~ /copy|movs/ ? "receive: copy" : "receive: other"
        if (stack ~ /tcp_sendmsg/) return leaf ~ /copy|movs/ ? "send: copy" : "send: other, and packets on loopback"
        if (stack ~ /net_rx_action/) return "send: other, and packets on loopback"
        if (stack ~ /page_fault|mincore/) return "source: page faults, cache checks"
        if (stack ~ /io_uring|epoll|schedule/) return "rings, wake-ups"
        return stack ~ /engine::|tokio/ ? "protocol, runtime" : "other"
    }
    /^[^ \t]/ { worker = $1 ~ /^worker-/; depth = 0; leaf = stack = ""; next }
    NF { if (worker) { if (!depth++) leaf = $2; stack = stack " " $2 } next }
    worker && depth { count[kind(leaf, stack)]++; all++; worker = 0 }
    END {
        if (!all) { print "profile.sh: perf recorded no samples of worker threads" > "/dev/stderr"; exit 1 }
        for (k in count) printf "%5.1f %%  %s\n", 100 * count[k] / all, k | "sort -rn"
    }'
