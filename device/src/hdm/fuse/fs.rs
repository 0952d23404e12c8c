//! The file system: one directory with one file. Reads of the file load from the medium, writes store to it.
//!
//! These handlers are what the kernel waits for, so they wait for nothing themselves. A read that finds the cache full
//! is put aside with its reply and answered by the evictor.

use std::{
    cell::{Cell, RefCell},
    ffi::OsStr,
    io,
    ops::Range,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, KernelConfig,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::{super::bytes, Shared, pages_of};
use crate::sandbox::User;

/// The file's name in the directory.
pub(super) const FILE_NAME: &str = "hdm";
/// The file's inode.
pub(super) const FILE: INodeNo = INodeNo(2);

/// Largest request either way.
pub(super) const MAX_REQUEST: u32 = 1 << 20;

/// Background requests (read-ahead and write-back) the kernel may have under way.
const MAX_BACKGROUND: u16 = 64;

/// Reads that may wait for room at a time. They count as background requests: some must be left for the write-backs
/// that make the room.
pub(super) const MAX_PARKED: usize = MAX_BACKGROUND as usize / 2;

/// Only data changes behind the kernel's back, and the kernel is notified of that by invalidation.
const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);

thread_local! {
    static IN_HANDLER: Cell<bool> = const { Cell::new(false) };
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Whether this thread answers the kernel. What waits for the kernel must not run on it.
pub(super) fn in_handler() -> bool {
    IN_HANDLER.get()
}

/// A read that waits for room.
pub(super) struct Parked {
    bytes: Range<u64>,
    reply: ReplyData,
}

impl Parked {
    /// The pages it wants.
    pub(super) fn pages(&self) -> Range<u64> {
        pages_of(&self.bytes)
    }

    /// Loads them and answers. No lock may be held.
    pub(super) fn answer(self, shared: &Shared) {
        answer_read(shared, &self.bytes, self.reply);
    }
}

fn answer_read(shared: &Shared, range: &Range<u64>, reply: ReplyData) {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize((range.end - range.start) as usize, 0);
        bytes::read(&shared.media, range.start, buffer);
        reply.data(buffer);
    });
}

/// The file system.
pub(super) struct WindowFs {
    shared: Arc<Shared>,
    kernel_readahead: u32,
    uid: u32,
    gid: u32,
}

impl WindowFs {
    /// `kernel_readahead`: bytes the kernel reads around each fault, 0 for the page alone. The file belongs to `owner`, or to the
    /// user of this process.
    pub(super) fn new(shared: Arc<Shared>, kernel_readahead: u32, owner: Option<User>) -> Self {
        let ours = || User { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() };
        let User { uid, gid } = owner.unwrap_or_else(ours);
        Self { shared, kernel_readahead, uid, gid }
    }

    fn attributes(&self, ino: INodeNo) -> Option<FileAttr> {
        let (kind, perm, size) = match ino {
            INodeNo::ROOT => (FileType::Directory, 0o700, 0),
            FILE => (FileType::RegularFile, 0o600, self.shared.capacity),
            _ => return None,
        };
        let epoch = SystemTime::UNIX_EPOCH;
        Some(FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: epoch,
            mtime: epoch,
            ctime: epoch,
            crtime: epoch,
            kind,
            perm,
            nlink: 1,
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn reply_attributes(&self, ino: INodeNo, reply: ReplyAttr) {
        match self.attributes(ino) {
            Some(attributes) => reply.attr(&FOREVER, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }
}

impl Filesystem for WindowFs {
    /// FUSE_WRITEBACK_CACHE stays off. It concerns write(2) alone, mappings are written back in any case; and with it the
    /// kernel ignores NOFLUSH.
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let _ = config.set_max_write(MAX_REQUEST);
        let _ = config.set_max_background(MAX_BACKGROUND);
        // Less than a page is none at all; 0 is refused. The kernel's own limit is the answer when ours is above it.
        if let Err(limit) = config.set_max_readahead(self.kernel_readahead.max(1)) {
            let _ = config.set_max_readahead(limit);
        }
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.attributes(FILE) {
            Some(attributes) if parent == INodeNo::ROOT && name == FILE_NAME => {
                reply.entry(&FOREVER, &attributes, Generation(0));
            }
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        self.reply_attributes(ino, reply);
    }

    /// The kernel reports the times it keeps, which are ignored. Every other change is refused, truncation above all.
    fn setattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if mode.is_some() || uid.is_some() || gid.is_some() || size.is_some() {
            reply.error(Errno::EPERM);
        } else {
            self.reply_attributes(ino, reply);
        }
    }

    /// NOFLUSH: a killed process closes its files before its connection dies, and a flush would wait for itself.
    fn open(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if ino == FILE {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH);
        } else {
            reply.error(Errno::EISDIR);
        }
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        IN_HANDLER.set(true);
        if ino != FILE || size > MAX_REQUEST {
            return reply.error(Errno::EINVAL);
        }
        let capacity = self.shared.capacity;
        let bytes = offset.min(capacity)..offset.saturating_add(u64::from(size)).min(capacity);
        let pages = pages_of(&bytes);
        let count = pages.end - pages.start;
        if self.shared.reader.is(request) {
            // What the window itself asked for is in the books, and has room there. It may have been taken out since.
            self.shared.state.lock().cache.enter(&pages);
            self.shared.prefetched.fetch_add(count, Ordering::Relaxed);
            return answer_read(&self.shared, &bytes, reply);
        }
        self.shared.faults.fetch_add(count, Ordering::Relaxed);
        {
            let mut state = self.shared.state.lock();
            if state.expect(&pages) {
                self.shared.ahead.notify_one();
            }
            // While the evictor drops lost blocks, it may come to these pages, and it alone answers what is parked.
            let may_park = !state.stopping && !state.dropping && state.parked.len() < MAX_PARKED;
            if may_park && !state.cache.admits(&pages) {
                state.cache.park(&pages);
                state.parked.push_back(Parked { bytes, reply });
                self.shared.wake.notify_one();
                return;
            }
            state.cache.enter(&pages);
            if state.excess(false) > 0 {
                self.shared.wake.notify_one();
            }
        }
        answer_read(&self.shared, &bytes, reply);
    }

    fn write(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        IN_HANDLER.set(true);
        let end = offset.checked_add(data.len() as u64).filter(|&end| end <= self.shared.capacity);
        let Some(end) = end.filter(|_| ino == FILE) else {
            return reply.error(Errno::EFBIG);
        };
        let pages = pages_of(&(offset..end));
        self.shared.state.lock().cache.written_back(&pages);
        self.shared.written_back.fetch_add(pages.end - pages.start, Ordering::Relaxed);
        bytes::write(&self.shared.media, offset, data);
        reply.written(data.len() as u32);
    }

    fn flush(&self, _request: &Request, _ino: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _request: &Request, _ino: INodeNo, _handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn readdir(&self, _request: &Request, ino: INodeNo, _handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        if ino != INodeNo::ROOT {
            return reply.error(Errno::ENOTDIR);
        }
        let entries = [
            (INodeNo::ROOT, FileType::Directory, "."),
            (INodeNo::ROOT, FileType::Directory, ".."),
            (FILE, FileType::RegularFile, FILE_NAME),
        ];
        for (next, (ino, kind, name)) in (1..).zip(entries).skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            if reply.add(ino, next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    /// The kernel asks once for security attributes, then never again.
    fn getxattr(&self, _request: &Request, _ino: INodeNo, _name: &OsStr, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }
}
