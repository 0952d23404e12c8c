//! A window on its way: mounted first, with all rights of the process, and served later, without them.

use std::{
    fs::{File, OpenOptions},
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use fuser::{Config, MountOption, Session, SessionACL};

use super::{
    FuseConfig, FuseWindow, HANDLERS, Running, Shared, WindowError,
    evict::{self, Kernel},
    flusher,
    fs::{self, WindowFs},
    mount::{self, MountPoint},
    reader,
};
use crate::{guardian::Guardian, hdm::media::Media};

/// A window that is mounted and not served yet. Its threads start in [`Self::serve`], so they have the rights that the
/// calling thread has then. Dropping it unmounts.
pub struct MountedWindow(Option<Parts>);

struct Parts {
    shared: Arc<Shared>,
    flush_interval: Duration,
    /// The mount's, which the file's must be.
    device: u64,
    session: Session<WindowFs>,
    /// Opens the window's file. It waits until the window is served, with the rights to open a file.
    opener: JoinHandle<io::Result<File>>,
    guardian: Guardian,
}

impl FuseWindow {
    /// Mounts a window onto this medium, which is not served yet. Starts its guardian, which unmounts it in the end.
    pub fn mount(config: &FuseConfig, media: Arc<Media>) -> Result<MountedWindow, WindowError> {
        if config.cache_bytes < Self::MIN_CACHE {
            return Err(WindowError::CacheTooSmall { bytes: config.cache_bytes, least: Self::MIN_CACHE });
        }
        File::options().read(true).write(true).open("/dev/fuse").map_err(WindowError::NoFuse)?;
        mount::remove_stale(&config.directory);
        let parent = std::path::absolute(&config.directory)
            .and_then(|parent| parent.canonicalize())
            .map_err(|source| WindowError::Directory { parent: config.directory.clone(), source })?;
        let mount = MountPoint::new(&parent).map_err(|source| WindowError::Directory { parent, source })?;

        let mut options = Config::default();
        options.mount_options = vec![
            MountOption::FSName(mount::SOURCE.into()),
            MountOption::DefaultPermissions,
            MountOption::NoExec,
            MountOption::NoAtime,
        ];
        // Mounted by one user, owned by another. The directory around it keeps out everyone else.
        options.acl = if config.owner.is_some() { SessionACL::All } else { SessionACL::Owner };
        options.n_threads = Some(HANDLERS);
        // Each descriptor of its own would be opened when the threads start, without the right to.
        options.clone_fd = false;
        let shared = Arc::new(Shared::new(media, config));
        let filesystem = WindowFs::new(Arc::clone(&shared), config.kernel_readahead, config.owner);
        let session = Session::new(filesystem, mount.path(), &options).map_err(WindowError::Mount)?;
        let device = mount.device().map_err(WindowError::Mount)?;
        if let Err(error) = mount::lift_dirty_limits(device) {
            tracing::warn!(
                %error,
                "cannot lift the kernel's limit on dirty pages of the window (needs root): guests that store a lot are slowed down"
            );
        }
        let guardian =
            Guardian::start(Some((mount.path(), device)), &config.guardian).map_err(WindowError::Guardian)?;
        let path = mount.leave_to_guardian().join(fs::FILE_NAME);
        let open = move || OpenOptions::new().read(true).write(true).open(path);
        let opener = thread::Builder::new().name("window-open".into()).spawn(open).map_err(WindowError::Thread)?;
        let flush_interval = config.flush_interval;
        Ok(MountedWindow(Some(Parts { shared, flush_interval, device, session, opener, guardian })))
    }
}

impl MountedWindow {
    /// Starts the window's threads, and joins it to its medium.
    pub fn serve(mut self) -> Result<Arc<FuseWindow>, WindowError> {
        let Parts { shared, flush_interval, device, session, opener, guardian } =
            self.0.take().expect("taken here and by drop alone");
        let notifier = session.notifier();
        let session = session.spawn().map_err(WindowError::Thread)?;
        let opened = opener.join().unwrap_or_else(|_| Err(io::Error::other("the thread that opens it panicked")));
        let is_ours = |file: &File| Ok(rustix::fs::fstat(file)?.st_dev == device);
        let file = opened.and_then(|file| match is_ours(&file) {
            Ok(true) => Ok(file),
            Ok(false) => Err(io::Error::other("another file system is mounted over it")),
            Err(error) => Err(error),
        });
        let file = match file {
            Ok(file) => file,
            Err(error) => {
                if guardian.abort() {
                    let _ = session.join();
                } else {
                    std::mem::forget(session);
                }
                return Err(WindowError::File(error));
            }
        };

        let kernel = Arc::new(Kernel { file, notifier });
        let mut running = Running { shared: Arc::clone(&shared), kernel, session, threads: Vec::new(), guardian };
        let started = running.start("window-evict", evict::evict).and_then(|()| {
            running.start("window-flush", move |shared, kernel| flusher::flush(shared, kernel, flush_interval))?;
            running.start("window-ahead", reader::read_ahead)
        });
        // Dropped on error, which stops the threads that were started.
        let window = Arc::new(FuseWindow { shared, running: Some(running) });
        started.map_err(WindowError::Thread)?;
        window.shared.media.set_window(&window);
        Ok(window)
    }
}

impl Drop for MountedWindow {
    fn drop(&mut self) {
        let Some(parts) = self.0.take() else { return };
        if parts.guardian.abort() {
            // Its unmounting finds nothing mounted, and the opener nothing to wait for.
            drop(parts.session);
            let _ = parts.opener.join();
        } else {
            std::mem::forget(parts.session);
        }
    }
}
