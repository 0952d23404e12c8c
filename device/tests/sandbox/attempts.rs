//! What an intruder would try.

use std::{
    fs::{self, File},
    io,
    net::TcpStream,
    os::unix::net::UnixStream,
    path::PathBuf,
    ptr, thread,
};

use cxl_cram_device::vfio_user::Stop;

/// A directory with the file `file` and the socket `socket`.
pub(crate) const PLACE: &str = "CXL_CRAM_TEST_PLACE";
/// A port that is listened to.
pub(crate) const PORT: &str = "CXL_CRAM_TEST_PORT";

/// What becomes of who tries.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// The system call fails.
    Refused,
    /// The process is killed: SIGSYS.
    Killed,
}
use Fate::{Killed, Refused};

pub(crate) struct Attempt {
    pub(crate) name: &'static str,
    pub(crate) fate: Fate,
    /// Whether any user succeeds without the sandbox.
    pub(crate) anyone_may: bool,
    pub(crate) run: fn() -> io::Result<()>,
}

macro_rules! attempts {
    ($($name:ident $fate:ident $anyone_may:literal $run:expr;)+) => {
        &[$(Attempt { name: stringify!($name), fate: $fate, anyone_may: $anyone_may, run: $run }),+]
    };
}

/// Each with its fate, and whether any user succeeds without the sandbox.
pub(crate) const ALL: &[Attempt] = attempts![
    read_a_file Refused true || File::open(place("file")).map(drop);
    write_a_file Refused true || File::create(place("new")).map(drop);
    remove_a_file Refused true || fs::remove_file(place("file"));
    rename_a_file Refused true || fs::rename(place("file"), place("moved"));
    list_a_directory Refused true || fs::read_dir(place("")).map(drop);
    look_at_a_file Refused true || fs::metadata(place("file")).map(drop);
    make_a_directory Refused true || fs::create_dir(place("directory"));
    follow_a_link Refused true || fs::read_link("/proc/self/exe").map(drop);
    change_directory Refused true || std::env::set_current_dir("/");
    open_its_own_memory Refused true || File::open("/proc/self/mem").map(drop);
    open_the_fuse_device Refused false || File::open("/dev/fuse").map(drop);
    connect_to_a_socket Killed true || UnixStream::connect(place("socket")).map(drop);
    connect_to_a_port Killed true || TcpStream::connect(("127.0.0.1", port())).map(drop);
    listen Killed true || std::net::TcpListener::bind("127.0.0.1:0").map(drop);
    start_a_program Killed true || start_a_program();
    fork Refused true || fork();
    trace_its_parent Killed false || check(call(libc::SYS_ptrace, [libc::PTRACE_SEIZE as i64, parent(), 0, 0]));
    trace_itself Killed true || check(call(libc::SYS_ptrace, [libc::PTRACE_TRACEME as i64, 0, 0, 0]));
    read_its_parent Killed false || check(call(libc::SYS_process_vm_readv, [parent(), 0, 0, 0]));
    open_its_parent Killed true || check(call(libc::SYS_pidfd_open, [parent(), 0, 0, 0]));
    kill_its_parent Killed true || check(call(libc::SYS_kill, [parent(), 0, 0, 0]));
    kill_a_thread_of_its_parent Refused true || check(call(libc::SYS_tgkill, [parent(), parent(), 0, 0]));
    mount Killed false || mount();
    unmount Refused false || check(call(libc::SYS_umount2, [c"/proc".as_ptr() as i64, 0, 0, 0]));
    change_the_root Killed false || check(call(libc::SYS_chroot, [c"/".as_ptr() as i64, 0, 0, 0]));
    make_a_user_namespace Killed false || check(call(libc::SYS_unshare, [i64::from(libc::CLONE_NEWUSER), 0, 0, 0]));
    make_a_process_in_a_namespace Refused false
        || check(call(libc::SYS_clone, [i64::from(libc::CLONE_NEWUSER | libc::CLONE_THREAD), 0, 0, 0]));
    become_another_user Killed false || check(call(libc::SYS_setresuid, [0, 0, 0, 0]));
    be_dumpable_again Refused true || check(call(libc::SYS_prctl, [i64::from(libc::PR_SET_DUMPABLE), 1, 0, 0]));
    write_code Refused true || code();
    use_io_uring Killed false || check(call(libc::SYS_io_uring_setup, [1, 0, 0, 0]));
    load_a_bpf_program Killed false || check(call(libc::SYS_bpf, [0, 0, 0, 0]));
    handle_page_faults Killed false || check(call(libc::SYS_userfaultfd, [0, 0, 0, 0]));
    type_into_the_terminal Refused false || check(call(libc::SYS_ioctl, [0, libc::TIOCSTI as i64, c"x".as_ptr() as i64, 0]));
];

fn place(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os(PLACE).unwrap()).join(name)
}

fn port() -> u16 {
    std::env::var(PORT).unwrap().parse().unwrap()
}

fn parent() -> i64 {
    rustix::process::getppid().unwrap().as_raw_nonzero().get().into()
}

/// A system call with numbers, or with pointers to strings that live as long as the program.
fn call(number: libc::c_long, [a, b, c, d]: [i64; 4]) -> i64 {
    // SAFETY: none of the calls made here writes to memory of this process.
    unsafe { libc::syscall(number, a, b, c, d) }
}

fn check(result: i64) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn start_a_program() -> io::Result<()> {
    let arguments = [c"true".as_ptr(), ptr::null()];
    // SAFETY: strings and array live through the call, which returns only if it fails.
    unsafe { libc::execv(c"/bin/true".as_ptr(), arguments.as_ptr()) };
    Err(io::Error::last_os_error())
}

fn fork() -> io::Result<()> {
    // SAFETY: this process has one thread, and the child ends at once.
    match unsafe { libc::fork() } {
        // SAFETY: does not return.
        0 => unsafe { libc::_exit(0) },
        child => check(child.into()),
    }
}

fn mount() -> io::Result<()> {
    let target = std::ffi::CString::new(place("").to_str().unwrap()).unwrap();
    let name = c"tmpfs".as_ptr();
    // SAFETY: strings that live through the call.
    check(unsafe { libc::mount(name, target.as_ptr(), name, 0, ptr::null()) }.into())
}

/// Memory that can be executed: none is given, and none becomes so.
fn code() -> io::Result<()> {
    let map = |protection| {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a mapping of its own, at an address the kernel chooses.
        unsafe { libc::mmap(ptr::null_mut(), 4096, protection, flags, -1, 0) }
    };
    let given = map(libc::PROT_READ | libc::PROT_EXEC);
    let plain = map(libc::PROT_READ | libc::PROT_WRITE);
    assert_ne!(plain, libc::MAP_FAILED);
    // SAFETY: nothing else uses the mapping.
    let made = unsafe { libc::mprotect(plain, 4096, libc::PROT_READ | libc::PROT_EXEC) };
    let refused = io::Error::last_os_error();
    assert_eq!(given == libc::MAP_FAILED, made < 0, "one of two ways");
    if made < 0 { Err(refused) } else { Ok(()) }
}

/// What the server does all the time, and what its libraries do now and then.
pub(crate) fn needs() {
    let stop = Stop::new().unwrap();
    let threads: Vec<_> = (0..20_u64)
        .map(|seed| {
            let stop = stop.clone();
            thread::Builder::new().name(format!("worker-{seed}")).spawn(move || {
                // Small and large, so that the allocator maps, grows and gives back.
                let blocks: Vec<Vec<u8>> = (0..64).map(|block| vec![seed as u8; 1 << (block % 22)]).collect();
                stop.trigger();
                blocks.iter().map(|block| block[0] as u64).sum::<u64>() == 64 * seed
            })
        })
        .collect();
    assert!(threads.into_iter().all(|thread| thread.unwrap().join().unwrap()));
    assert!(stop.is_triggered());
    thread::sleep(std::time::Duration::from_millis(1));
    assert!(thread::available_parallelism().is_ok_and(|count| count.get() > 0));
    assert!(std::panic::catch_unwind(|| panic!("caught")).is_err());
}
