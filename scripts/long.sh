#!/usr/bin/env bash
# What takes too long for every change: the tracker killed a thousand times under load, nothing acknowledged lost.
#
#   scripts/long.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly ROUNDS="${1:-1000}"

SHOAL_KILL_ROUNDS="$ROUNDS" cargo test --locked --package tracker --test durable -- --exact \
    kill::nothing_acknowledged_is_lost_by_kill_9
