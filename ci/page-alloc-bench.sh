#!/usr/bin/env bash
# Counts the guest instructions of a page allocation and its free, on kernels that are built.
#
#   ci/page-alloc-bench.sh TREE... [-- options of cxl-cram-harness boot]
#
# TREE is a folder in which a kernel was built, with its modules. Two kernels cannot run in one guest, so their guests are
# identical and counted instead of timed: one processor, -icount shift=0, where the time stamp counter advances by one a
# guest instruction. A kernel that has private nodes is measured twice: without one, and with one that has no capabilities.
# Needs `cxl-cram-harness` on PATH or in $HARNESS, and QEMU on PATH or in $QEMU (the harness's own will do).
set -euo pipefail

fail() {
    echo "page-alloc-bench: $*" >&2
    exit 1
}

here=$(cd "$(dirname "$0")/.." && pwd)
harness=${HARNESS:-cxl-cram-harness}
command -v "$harness" >/dev/null || fail "cannot run $harness: build it, and name it in HARNESS"
trees=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    trees+=("$(cd "$1" && pwd)")
    shift
done
[ "${#trees[@]}" -gt 0 ] || fail "usage: page-alloc-bench.sh TREE... [-- options of cxl-cram-harness boot]"
[ $# -eq 0 ] || shift

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# Counting wants one thread for all of the guest.
cat >"$folder/qemu" <<EOF
#!/bin/bash
exec ${QEMU:-qemu-system-x86_64} "\${@/thread=multi/thread=single}" -icount shift=0,sleep=off
EOF
chmod +x "$folder/qemu"

cat >"$folder/guest.sh" <<'EOF'
echo "== no private node"
cat /proc/page_alloc_bench >/dev/null
cat /proc/page_alloc_bench
test=/sys/kernel/debug/private_node_test
[ -e $test/control ] || exit 0
cxl create-region -d decoder0.0 -m mem0 -t ram >/dev/null 2>&1
until [ -e /sys/bus/dax/devices/dax0.0/driver ]; do sleep 0.1; done
echo dax0.0 >/sys/bus/dax/devices/dax0.0/driver/unbind
dax=/sys/bus/dax/devices/dax0.0
echo "add $(cat $dax/target_node) 0 0 $(cat $dax/resource) $(cat $dax/size)" >$test/control || exit 1
echo "== one private node"
cat /proc/page_alloc_bench >/dev/null
cat /proc/page_alloc_bench
EOF

for tree in "${trees[@]}"; do
    cp -r "$here/guest-tests/kernel/page-alloc-bench" "$folder/module"
    make -s -C "$tree" M="$folder/module" modules >&2
    echo "$tree"
    "$harness" boot --qemu "$folder/qemu" --smp 1 --script "$folder/guest.sh" --kernel "$tree/arch/x86/boot/bzImage" \
        --module "$tree/drivers/cxl/cxl_acpi.ko" --module "$folder/module/page_alloc_bench.ko" "$@"
    rm -rf "$folder/module"
done
