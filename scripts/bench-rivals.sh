#!/usr/bin/env bash
# Installs the programs that Shoal is compared with, and runs the comparison.
#
#   scripts/bench-rivals.sh                      installs what is missing, then `bench transfer` and `bench hash`, both with --rivals
#   scripts/bench-rivals.sh install              installs only
#   scripts/bench-rivals.sh run [OPTION...]      measures only; options go to `bench transfer`
#
# OUT        where results and report.html go; default target/bench-rivals
# SIZE       length of the file; default 1G
#
# Debian packages need root. A program that cannot be installed is left out, and the report says that it is missing.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly OUT="${OUT:-target/bench-rivals}"
readonly SIZE="${SIZE:-1G}"
# unshare and ip create a network namespace for the run, with one congestion control for all programs.
readonly PACKAGES=(nginx-light curl openssl aria2 rsync mktorrent opentracker python3-venv util-linux iproute2 libssl-dev pkg-config)
# rqbit as released, without its web page (which needs npm), its database and its metrics.
readonly CRATES=("sendme" "rqbit --no-default-features --features default-tls")
readonly VENV=target/bench-rivals-venv
# One target folder for all crates: shared dependencies are built once, and an interrupted build continues.
readonly CRATES_TARGET="$PWD/target/bench-rivals-crates"

# The folder into which cargo installs programs.
readonly CARGO_BIN="${CARGO_HOME:-$HOME/.cargo}/bin"

say() { printf 'bench-rivals.sh: %s\n' "$*" >&2; }

# Installed packages must not start services: a service takes ports and CPU during every run.
# Debian runs this program before it starts a service. An existing policy of the machine stays in force.
readonly POLICY=/usr/sbin/policy-rc.d
refuse_services() {
    [[ -e "$POLICY" ]] && return
    trap 'rm -f "$POLICY"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
}

install_packages() {
    command -v apt-get >/dev/null || { say "no apt-get: install by hand: ${PACKAGES[*]} python3-libtorrent"; return; }
    [[ "$(id -u)" == 0 ]] || { say "not root: run as root, or install by hand: ${PACKAGES[*]} python3-libtorrent"; return; }
    refuse_services
    apt-get update -qq
    local package
    # One at a time, so that a package missing from this release does not prevent the others.
    for package in "${PACKAGES[@]}" python3-libtorrent; do
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null ||
            say "$package could not be installed"
    done
    [[ "$(trap -p EXIT)" ]] && { rm -f "$POLICY"; trap - EXIT; }
    return 0
}

# The newest libtorrent is on PyPI; the distribution's package is the fallback.
install_libtorrent() {
    [[ -x "$VENV/bin/python3" ]] || python3 -m venv "$VENV" || { say "cannot create a Python environment; using the distribution's libtorrent"; return; }
    "$VENV/bin/pip" install --quiet libtorrent || { rm -rf "$VENV"; say "pip cannot install libtorrent; using the distribution's"; }
}

install_crates() {
    local crate words
    PATH="$PATH:$CARGO_BIN"
    for crate in "${CRATES[@]}"; do
        read -ra words <<<"$crate"
        command -v "${words[0]}" >/dev/null && continue
        say "building $crate (this takes minutes)"
        cargo install --locked --quiet --target-dir "$CRATES_TARGET" "${words[@]}" || say "$crate could not be built"
    done
}

run() {
    cargo build --release --locked --package bench --package tracker --package client
    local bench="${CARGO_TARGET_DIR:-target}/release/bench"
    [[ -x "$VENV/bin/python3" ]] && PATH="$PWD/$VENV/bin:$PATH"
    PATH="$PATH:$CARGO_BIN"
    export PATH
    "$bench" transfer --rivals --size "$SIZE" --out "$OUT" "$@"
    "$bench" hash --rivals --out "$OUT"
    say "results are in $OUT"
}

main() {
    case "${1:-all}" in
        all) install_packages; install_libtorrent; install_crates; run ;;
        install) install_packages; install_libtorrent; install_crates ;;
        run) shift; run "$@" ;;
        *) say "usage: scripts/bench-rivals.sh [install | run [OPTION...]]"; exit 2 ;;
    esac
}

main "$@"
