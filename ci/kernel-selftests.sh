#!/usr/bin/env bash
# Builds mm and cgroup selftests of a kernel tree as static programs and runs them in a guest, one line a test.
#
#   ci/kernel-selftests.sh TREE [--kernel BZIMAGE --module MODULE ... | --plain | ...]
#
# TREE is a Linux source tree whose tests are run; what follows goes to `cxl-cram-harness boot`, and names the kernel to
# run them on. Lines are sorted, so that two kernels are compared by diff:
#
#   ci/kernel-selftests.sh linux >with; ci/kernel-selftests.sh linux --plain >without; diff without with
#
# A line is a test, its exit code (124: stopped after $LIMIT seconds, usually 120), and how many of its cases passed, failed
# and were skipped, as far as it says so. $ONLY, names of tests, runs those alone. $KEEP, a folder, gets what the tests printed. Needs gcc, libnuma and libcap as
# static libraries (libnuma-dev, libcap-dev; elsewhere with $EXTRA_CFLAGS), and `cxl-cram-harness` on PATH or in $HARNESS.
set -euo pipefail

fail() {
    echo "kernel-selftests: $*" >&2
    exit 1
}

[ $# -ge 1 ] || fail "usage: kernel-selftests.sh TREE [options of cxl-cram-harness boot]"
tests=$1/tools/testing/selftests
shift
[ -d "$tests/mm" ] || fail "$tests/mm is not there: name a Linux source tree"
harness=${HARNESS:-cxl-cram-harness}
command -v "$harness" >/dev/null || fail "cannot run $harness: build it, and name it in HARNESS"

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
out=$folder/overlay/opt/selftests

# Those that need no file system, no network and no more than 1 GiB.
mm="cow droppable gup_longterm hugetlb-madvise khugepaged ksm_functional_tests ksm_tests madv_populate map_fixed_noreplace
map_populate mdwe_test memfd_secret migration mkdirty mlock-random-test mlock2-tests mrelease_test mremap_dontunmap
mremap_test mseal_test pagemap_ioctl soft-dirty split_huge_page_test transhuge-stress uffd-stress uffd-unit-tests"
cgroup="test_core test_cpu test_cpuset test_freezer test_hugetlb_memcg test_kill test_kmem test_memcontrol test_pids test_zswap"
if [ -n "${ONLY:-}" ]; then
    pick() { for test in $1; do case " $ONLY " in *" $test "*) echo "$test" ;; esac; done; }
    mm=$(pick "$mm")
    cgroup=$(pick "$cgroup")
fi
for suite in mm cgroup; do
    mkdir -p "$out/$suite"
    [ -n "${!suite}" ] || continue
    make -C "$tests/../../.." -s headers >&2
    # Some may not build here: they are missing from the list then. khugepaged of 6.12 lacks an include for KSFT_SKIP.
    make -C "$tests/$suite" -k OUTPUT="$out/$suite" CC="gcc -static -DKSFT_SKIP=4 ${EXTRA_CFLAGS:-}" ${JOBS:+-j$JOBS} \
        $(for test in ${!suite}; do echo "$out/$suite/$test"; done) >"$folder/build.log" 2>&1 ||
        grep -B1 -A1 'Error' "$folder/build.log" >&2 || true
    find "$out/$suite" -type f -perm /100 -exec strip {} +
done

cat >"$folder/guest.sh" <<'EOF'
# A node of ordinary memory besides node 0, swap space, huge pages.
exec 2>/dev/null
echo online_movable >/sys/devices/system/memory/auto_online_blocks
# Linux numbers memory devices as it finds them: the first window is that of the device whose BAR2 it lies over.
window=/sys/bus/cxl/devices/decoder0.0
for memdev in /sys/bus/cxl/devices/mem*; do
    read -r bar rest <<BAR
$(sed -n 3p "$(realpath "$memdev")/../resource")
BAR
    [ $((bar)) = $(($(cat $window/start))) ] && cxl create-region -d decoder0.0 -m "${memdev##*/}" -t ram >&2
done
for i in $(seq 60); do
    grep -q '[,-]' /sys/devices/system/node/has_memory && break
    sleep 1
done
grep -q '[,-]' /sys/devices/system/node/has_memory || { echo "no second node"; exit 1; }
echo 256M >/sys/block/zram0/disksize && mkswap /dev/zram0 >&2 && swapon /dev/zram0
echo 64 >/proc/sys/vm/nr_hugepages
grep -q cgroup2 /proc/mounts || mount -t cgroup2 none /sys/fs/cgroup
count() { grep -c "$1" /tmp/said; }
test_one() {
    label=$1
    shift
    cd "/opt/selftests/${label%%/*}" && [ -x "$1" ] || return
    timeout -s KILL LIMIT "$@" >/tmp/said 2>&1 </dev/null
    code=$?
    [ $code = 137 ] && code=124
    skipped=$(count '^ok.*# SKIP')
    echo "= $label exit $code, passed $(($(count '^ok') - skipped)), failed $(count '^not ok'), skipped $skipped"
    sed "s/^/: /" /tmp/said
}
for test in /opt/selftests/mm/*; do
    name=${test##*/}
    case $name in
    khugepaged) test_one mm/$name ./$name all:anon ;;
    ksm_tests)
        for how in -M -Z "-N -m 1" "-N -m 0" -U; do test_one "mm/$name $how" ./$name $how -p 10; done
        ;;
    transhuge-stress) test_one mm/$name ./$name -d 5 ;;
    uffd-stress) test_one "mm/$name anon" ./$name anon 20 4 ;;
    *) test_one mm/$name ./$name ;;
    esac
done
for test in /opt/selftests/cgroup/*; do
    test_one cgroup/${test##*/} ./${test##*/}
done
exit 0
EOF
sed -i "s/LIMIT/${LIMIT:-120}/" "$folder/guest.sh"

# Two devices and four processors: "migration" of 6.12 does not look at the last possible node, and wants two threads besides.
"$harness" boot --shape two_devices --smp 4 --memory 1536M --overlay "$folder/overlay" --script "$folder/guest.sh" "$@" >"$folder/said" ||
    { tail -n 5 "$folder/said" >&2; fail "the guest did not come to the end"; }
if [ -n "${KEEP:-}" ]; then mkdir -p "$KEEP" && cp "$folder/said" "$KEEP/said"; fi
sed -n 's/^= //p' "$folder/said" | LC_ALL=C sort
