#!/usr/bin/env bash
# Fuzzes the device's faces to the outside, each for a short time. Stable Rust is enough: coverage guidance needs no nightly.
#
#   ci/fuzz.sh [TARGET...]
#
# TARGETs are files of device/fuzz/targets, by default all of them. $SECONDS_EACH is how long each runs (20). With
# SECONDS_EACH=0 the seeds in device/fuzz/corpus are replayed and nothing is searched for. New inputs are kept under
# target/fuzz/corpus, so the next run continues where this one ended; an input that crashes a target is kept under
# target/fuzz/artifacts, and the exit code is not 0. To replay it, pass its path to the target's program.
set -euo pipefail

repository=$(cd "$(dirname "$0")/.." && pwd)
seconds=${SECONDS_EACH:-20}
target=${CARGO_TARGET_DIR:-$repository/target}/fuzz
triple=x86_64-unknown-linux-gnu

cd "$repository/device/fuzz"
if [ $# -eq 0 ]; then
    for file in targets/*.rs; do
        set -- "$@" "$(basename "$file" .rs)"
    done
fi

# What cargo-fuzz passes too, without the address sanitizer, which only nightly has. With --target the flags do not apply to
# build scripts, which would not link with them.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions=yes --cfg fuzzing"
CARGO_TARGET_DIR=$target cargo build --locked --target "$triple" --bins

for name in "$@"; do
    program=$target/$triple/debug/$name
    [ -x "$program" ] || { echo "fuzz: no target is called $name; the targets are in device/fuzz/targets" >&2; exit 2; }
    mkdir -p "$target/corpus/$name" "$target/artifacts/$name"
    how=(-max_total_time="$seconds")
    [ "$seconds" != 0 ] || how=(-runs=0)
    echo "== $name"
    "$program" "${how[@]}" -timeout=20 -rss_limit_mb=4096 -max_len=4096 -close_fd_mask=1 -print_final_stats=1 \
        -artifact_prefix="$target/artifacts/$name/" "$target/corpus/$name" "corpus/$name"
done
