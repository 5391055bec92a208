#!/usr/bin/env bash
# The whole gate. Reads the tree, writes nothing outside Cargo's target directory, stops at the first step that fails.
#
#   scripts/check.sh            every step, in order
#   scripts/check.sh fmt test   only these
#
# CARGO_DENY   the cargo-deny binary to use; otherwise the one on PATH
# STRICT=1     a missing tool is a failure, not a skipped step (CI sets it)

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly STEPS=(fmt clippy purity test doc deny advisories shell)
# The database of advisories is fetched over the network: one that does not answer within this time is away.
readonly ADVISORIES_TIMEOUT_S=60
readonly STRICT="${STRICT:-0}"
skipped=()

# Without these lines Cargo would read standard input's terminal, or colour a log file.
export CARGO_TERM_PROGRESS_WHEN="${CARGO_TERM_PROGRESS_WHEN:-never}"

step_fmt() { # the one layout
    cargo fmt --all --check
}

step_clippy() { # lints, in every target, warnings denied
    cargo clippy --locked --workspace --all-targets -- -D warnings
}

step_purity() { # the pure cores build without clock, socket, file or thread
    cargo clippy --locked --package engine --lib --no-default-features -- -D warnings
    cargo clippy --locked --package tracker --lib --no-default-features -- -D warnings
}

step_test() { # every test, the house rules among them
    # Most tests wait for programs that they have started, so twice as many tests as CPUs run at once.
    RUST_TEST_THREADS="${RUST_TEST_THREADS:-$((2 * $(nproc)))}" cargo test --locked --workspace
}

step_doc() { # every link between doc comments resolves
    RUSTDOCFLAGS="${RUSTDOCFLAGS:-} -Dwarnings" cargo doc --locked --workspace --no-deps
}

step_deny() { # licences, sources and bans of dependencies
    local deny
    deny="$(find_deny)" || { skip deny "cargo-deny is not installed (cargo install --locked cargo-deny)"; return; }
    "$deny" --manifest-path Cargo.toml --locked check bans licenses sources
}

step_advisories() { # known faults of dependencies, where the database can be reached
    local deny log
    deny="$(find_deny)" || { skip advisories "cargo-deny is not installed"; return; }
    log="$(mktemp)"
    if timeout "$ADVISORIES_TIMEOUT_S" "$deny" --manifest-path Cargo.toml --locked fetch db >"$log" 2>&1; then
        rm -f "$log"
        "$deny" --manifest-path Cargo.toml --locked check --disable-fetch advisories
    else
        tail -n 2 "$log" | sed 's/^/   /'
        rm -f "$log"
        # Never a failure: being offline is no fault of the tree.
        printf '   skipped: the advisory database could not be reached\n'
        skipped+=("advisories")
    fi
}

step_shell() { # scripts
    command -v shellcheck >/dev/null || { skip shell "shellcheck is not installed"; return; }
    shellcheck --shell=bash scripts/*.sh .ci/run
}

find_deny() {
    if [[ -n "${CARGO_DENY:-}" ]]; then
        printf '%s\n' "$CARGO_DENY"
    else
        command -v cargo-deny
    fi
}

skip() { # STEP REASON
    if [[ "$STRICT" == 1 ]]; then
        printf '   %s\n' "$2" >&2
        return 1
    fi
    printf '   skipped: %s\n' "$2"
    skipped+=("$1")
}

run_step() { # STEP
    local began=$SECONDS
    printf '\n== %s\n' "$1"
    # A subshell would lose the list of skipped steps; `if` would switch errexit off inside the step.
    failing="$1"
    "step_$1"
    failing=""
    printf -- '-- %s: %d s\n' "$1" "$((SECONDS - began))"
}

failing=""
# Called by the trap alone.
# shellcheck disable=SC2329
report() {
    local code=$?
    if [[ -n "$failing" ]]; then
        printf '\ncheck.sh: FAILED at step "%s". Run it alone: scripts/check.sh %s\n' "$failing" "$failing" >&2
        exit "$((code == 0 ? 1 : code))"
    fi
}
trap report EXIT

main() {
    local steps=("$@") step
    [[ ${#steps[@]} -gt 0 ]] || steps=("${STEPS[@]}")
    for step in "${steps[@]}"; do
        if ! declare -F "step_$step" >/dev/null; then
            printf 'check.sh: there is no step "%s"; there are: %s\n' "$step" "${STEPS[*]}" >&2
            exit 2
        fi
    done
    for step in "${steps[@]}"; do run_step "$step"; done
    printf '\ncheck.sh: passed in %d s' "$SECONDS"
    [[ ${#skipped[@]} -eq 0 ]] || printf ' (skipped: %s)' "${skipped[*]}"
    printf '\n'
}

main "$@"
