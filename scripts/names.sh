#!/usr/bin/env bash
# Prints figures about names: how many types and free functions have one-word names, and how many types share a name.
# The tidy test counts them and holds their limits (engine/tests/tidy/names.rs).

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo test --quiet --locked --package engine --test tidy name_figures -- --nocapture | grep '%'
