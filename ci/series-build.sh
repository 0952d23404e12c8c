#!/usr/bin/env bash
# Builds a kernel after each patch of the series, with W=1: one line a patch.
#
#   ci/series-build.sh TREE FOLDER...
#
# TREE is a Linux git tree whose HEAD is what the series is made for; it gets a work tree that is removed again, and stays as
# it is. FOLDERs are series, one on top of the other; `cxl-cram-harness series make` makes this project's. $JOBS is make's -j.
#
# A line is the patch and "ok", or how many warnings it brings, or that it does not apply or build. A warning is brought if
# the kernel before the series does not have it, wherever it stands. Exit code: 0 if every line says "ok".
# The configuration is little more than what the patches touch, and holds all of it: code that is not built has no warnings.
set -euo pipefail

fail() {
    echo "series-build: $*" >&2
    exit 1
}

[ $# -ge 2 ] || fail "usage: series-build.sh TREE FOLDER..."
tree=$1
shift
git -C "$tree" rev-parse -q --verify HEAD >/dev/null || fail "$tree is no git tree: git init, git add -A, git commit"

folder=$(mktemp -d)
source=$folder/source
build=$folder/build
cleanup() {
    git -C "$tree" worktree remove -f "$source" 2>/dev/null || true
    rm -rf "$folder"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
git -C "$tree" worktree add -q --detach "$source" HEAD

mkdir "$build"
for option in 64BIT SMP JUMP_LABEL MODULES DEBUG_KERNEL DEBUG_FS DEBUG_VM PRINTK BUG FTRACE ENABLE_DEFAULT_TRACERS \
    PROC_FS PROC_PAGE_MONITOR SYSFS SHMEM TMPFS HUGETLBFS BLOCK SWAP PCI PCI_MSI PCI_MMCONFIG PCI_DOE \
    ACPI ACPI_HMAT ACPI_NUMA NUMA X86_64_ACPI_NUMA X86_MCE SPARSEMEM_VMEMMAP ZONE_DEVICE DEVICE_PRIVATE \
    MEMORY_HOTPLUG MEMORY_HOTREMOVE MEMORY_FAILURE MIGRATION COMPACTION PAGE_REPORTING TRANSPARENT_HUGEPAGE \
    CGROUPS MEMCG MEMCG_V1 CPUSETS LRU_GEN NUMA_BALANCING KSM USERFAULTFD CROSS_MEMORY_ATTACH GUP_TEST \
    DAMON DAMON_PADDR DAMON_VADDR DAMON_SYSFS DAX DEV_DAX DEV_DAX_CXL DEV_DAX_KMEM \
    CXL_BUS CXL_PCI CXL_MEM CXL_PORT CXL_REGION \
    PRIVATE_MEMORY_NODES RUNTIME_TESTING_MENU TEST_PRIVATE_NODE CRAM; do
    echo "CONFIG_$option=y"
done >"$build/fragment"
echo "CONFIG_NR_CPUS=16
CONFIG_CXL_ACPI=m
CONFIG_CXL_CRAM=m
CONFIG_CXL_MEMPOLICY_SAMPLE=m" >>"$build/fragment"

# Configures and builds what changed. What make says is in build/log, its warnings, without line numbers, in build/warnings.
build() {
    local status=0
    {
        make -C "$source" O="$build" KCONFIG_ALLCONFIG="$build/fragment" allnoconfig &&
            make -C "$source" O="$build" -j"${JOBS:-$(nproc)}" W=1 vmlinux modules
    } >"$build/log" 2>&1 || status=1
    grep -E 'warning:|WARNING:' "$build/log" | sed -E "s|:[0-9]+(:[0-9]+)?:|:|; s|$source/||" |
        LC_ALL=C sort -u >"$build/warnings" || true
    return $status
}

begun=$SECONDS
build || { grep -E -B2 -A8 'error:|Error ' "$build/log" >&2; fail "the kernel does not build without the series"; }
cp "$build/warnings" "$build/before"
echo "ok   before the series: $(wc -l <"$build/before") warnings ($((SECONDS - begun)) s)"

wrong=0
# One line, and what make said where it is not "ok".
verdict() {
    local name=$1 built=$2 brought
    brought=$(LC_ALL=C comm -13 "$build/before" "$build/warnings")
    if [ "$built" != 0 ]; then
        echo "FAILED   $name: does not build"
        grep -E -A8 'error:|Error ' "$build/log" | head -n 40
    elif [ -n "$brought" ]; then
        echo "WARNINGS $name: $(wc -l <<<"$brought")"
        echo "$brought"
        # Told once: the patches after it did not bring it.
        LC_ALL=C sort -um "$build/before" "$build/warnings" -o "$build/before"
    else
        echo "ok   $name ($((SECONDS - begun)) s)"
        return
    fi
    wrong=1
}

for patch in $(for series in "$@"; do ls "$series"/*.patch; done); do
    name=$(basename "$(dirname "$patch")")/$(basename "$patch" .patch)
    begun=$SECONDS
    git -C "$source" -c user.name=series-build -c user.email=series-build@localhost am -q "$(realpath "$patch")" \
        >"$build/log" 2>&1 || { cat "$build/log"; echo "FAILED   $name: does not apply"; exit 1; }
    built=0
    build || built=1
    verdict "$name" $built
    # A file that nothing builds would be without warnings, too.
    for file in $(git -C "$source" diff --name-only --diff-filter=AM HEAD~ -- '*.c'); do
        [ -e "$build/${file%.c}.o" ] || { echo "FAILED   $name: $file is not built"; wrong=1; }
    done
done

# Every line of the configuration must have held, once all options are there.
for line in $(cat "$build/fragment"); do
    grep -qx "$line" "$build/.config" || { echo "FAILED   the configuration dropped $line"; wrong=1; }
done

begun=$SECONDS
sed -i '/PRIVATE_MEMORY_NODES/d' "$build/fragment"
echo '# CONFIG_PRIVATE_MEMORY_NODES is not set' >>"$build/fragment"
built=0
build || built=1
verdict "all of them, with PRIVATE_MEMORY_NODES=n" $built
exit $wrong
