#!/usr/bin/env bash
# Compares the bench's lz4 data ratio and packing with those of the kernel's zram, on the same pages.
#
#   ci/compare-with-zram.sh FILE
#
# FILE is a raw memory image or any large file. Needs root, zram (CONFIG_ZRAM) with lz4, and `cxl-cram-device` on PATH or
# in $DEVICE. Makes a zram device of its own and removes it; other zram devices are not touched.
#
# Not a test: it depends on the kernel it runs on. The two lz4 encoders differ in their match finders, so expect the ratios
# to agree within 0.5 %, not exactly.
set -euo pipefail

fail() {
    echo "compare-with-zram: $*" >&2
    exit 1
}

[ $# -eq 1 ] || fail "usage: compare-with-zram.sh FILE"
file=$1
device=${DEVICE:-cxl-cram-device}
[ -f "$file" ] && [ -r "$file" ] || fail "cannot read $file"
command -v "$device" >/dev/null || fail "cannot run $device: build it, and name it in DEVICE"
command -v python3 >/dev/null || fail "python3 is needed to read the report"
[ -r /sys/class/zram-control/hot_add ] || fail "no zram here: load the zram module, and run as root"

bytes=$(stat -c %s "$file")
pages=$(((bytes + 4095) / 4096))
[ "$pages" -gt 0 ] || fail "$file is empty"

# Reading hot_add makes a new device and names it.
number=$(cat /sys/class/zram-control/hot_add)
zram=/sys/block/zram$number
directory=
cleanup() {
    status=$?
    [ -z "$directory" ] || rm -rf "$directory"
    echo 1 >"$zram/reset" || true
    echo "$number" >/sys/class/zram-control/hot_remove || true
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

grep -qw lz4 "$zram/comp_algorithm" || fail "this kernel's zram has no lz4 (CONFIG_ZRAM_BACKEND_LZ4)"
echo lz4 >"$zram/comp_algorithm"
echo $((pages * 4096)) >"$zram/disksize"
# A node of our own: where there is no udev, /dev has none.
directory=$(mktemp -d)
node=$directory/zram
IFS=: read -r major minor <"$zram/dev"
mknod -m 600 "$node" b "$major" "$minor"

# conv=sync fills the last page up with zeros, as the bench does. fsync and direct writes: the pages must be in zram.
dd if="$file" of="$node" bs=4096 conv=sync,fsync status=none
blockdev --flushbufs "$node" 2>/dev/null || true
# orig_data_size compr_data_size mem_used_total mem_limit mem_used_max same_pages ... (admin-guide/blockdev/zram.rst)
read -r original compressed used _ _ same _ <"$zram/mm_stat"

"$device" bench --json --all --codec lz4 "$file" | python3 -c '
import json, sys
original, compressed, used, same = map(int, sys.argv[1:])
ours = json.load(sys.stdin)["results"][0]
# zram counts same-filled pages in orig_data_size, with no compressed bytes.
theirs = original / compressed if compressed else float("nan")
ratio = ours["data_ratio"] or float("nan")
packing = ours["packing"] or float("nan")
print("pages         zram %d   bench %d" % (original // 4096, ours["blocks"]))
print("same-filled   zram %d   bench %d" % (same, ours["same_filled_blocks"]))
print("data ratio    zram %.4f   bench %.4f   (%+.2f %%)" % (theirs, ratio, 100 * (ratio / theirs - 1)))
print("packing       zram %.4f   bench %.4f" % (compressed / used if used else float("nan"), packing))
' "$original" "$compressed" "$used" "$same"
