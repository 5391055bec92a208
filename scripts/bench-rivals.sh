#!/usr/bin/env bash
# Installs the programs that Shoal is measured against, and measures.
#
#   scripts/bench-rivals.sh                      installs what is missing, then `bench transfer` and `bench hash`, both with --rivals
#   scripts/bench-rivals.sh install              installs only
#   scripts/bench-rivals.sh run [OPTION...]      measures only; options go to `bench transfer`
#
# OUT        where results and report.html go; default target/bench-rivals
# SIZE       length of the file; default 1G
#
# Debian packages need root; whatever cannot be installed is left out, and the report says that it is missing.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly OUT="${OUT:-target/bench-rivals}"
readonly SIZE="${SIZE:-1G}"
# unshare and ip give a run a network of its own, with one congestion control for all.
readonly PACKAGES=(nginx-light curl openssl aria2 rsync mktorrent opentracker python3-venv util-linux iproute2 libssl-dev pkg-config)
# rqbit as it is released, without its web page, which npm would have to build, and without its database and metrics.
readonly CRATES=("sendme" "rqbit --no-default-features --features default-tls")
readonly VENV=target/bench-rivals-venv
# One folder for all crates: what they share is built once, and a build that was cut off goes on.
readonly CRATES_TARGET="$PWD/target/bench-rivals-crates"

# Where cargo puts programs.
readonly CARGO_BIN="${CARGO_HOME:-$HOME/.cargo}/bin"

say() { printf 'bench-rivals.sh: %s\n' "$*" >&2; }

# Nothing that is installed is to start as a service: it would have the machine's ports, and its CPU beside every run.
# Debian asks this program before it starts one; where the machine has its own, that decides.
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
    # One by one, so that a package which this release does not have costs that one alone.
    for package in "${PACKAGES[@]}" python3-libtorrent; do
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null ||
            say "$package could not be installed"
    done
    [[ "$(trap -p EXIT)" ]] && { rm -f "$POLICY"; trap - EXIT; }
    return 0
}

# The newest libtorrent is on PyPI; the distribution's is the second choice.
install_libtorrent() {
    [[ -x "$VENV/bin/python3" ]] || python3 -m venv "$VENV" || { say "no Python environment: the distribution's libtorrent is used"; return; }
    "$VENV/bin/pip" install --quiet libtorrent || { rm -rf "$VENV"; say "pip has no libtorrent: the distribution's is used"; }
}

install_crates() {
    local crate words
    PATH="$PATH:$CARGO_BIN"
    for crate in "${CRATES[@]}"; do
        read -ra words <<<"$crate"
        command -v "${words[0]}" >/dev/null && continue
        say "building $crate, which takes minutes"
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
