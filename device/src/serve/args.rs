//! The options of `serve`.

use std::{path::PathBuf, sync::LazyLock, time::Duration};

use clap::{Args, ValueEnum};
use cxl_cram_kit::size::{exact_bytes, parse_bytes};

use crate::{
    cxl::{PayloadSize, cdat::ReadWrite},
    hdm::{fuse::FuseConfig, media::Threshold},
    sandbox::User,
    store::Codec,
};

/// The window's own defaults, as a user would type them.
static CACHE: LazyLock<String> = LazyLock::new(|| exact_bytes(FuseConfig::default().cache_bytes));
static READAHEAD: LazyLock<String> = LazyLock::new(|| exact_bytes(FuseConfig::default().readahead));

fn default_flush_interval() -> u64 {
    FuseConfig::default().flush_interval.as_millis() as u64
}

/// Serve the device to a QEMU >= 10.1 over vfio-user.
///
/// Runs until SIGTERM or SIGINT. One QEMU at a time, a second one is refused; when the first goes, the next may connect and
/// finds the device powered on afresh.
#[derive(Args, Clone, Debug)]
#[command(
    args_override_self = true,
    after_help = "\
Examples:
  A device that promises 1 GiB and has 512 MiB of media:
    cxl-cram-device serve --socket /tmp/cram.sock --capacity 1G --physical 512M

  Harder compression, a small decompressed cache, a control socket for qmp-shell:
    cxl-cram-device serve --socket /tmp/cram.sock --capacity 1G --physical 256M \\
        --codec zstd:3 --cache 32M --control /tmp/cram.ctl

  Quick while there is room; when there is not, cold blocks are compressed harder in the background:
    cxl-cram-device serve --socket /tmp/cram.sock --capacity 1G --physical 256M \\
        --codec adaptive --recompress-cpu 10

  Memory as slow as the tier that a test wants:
    cxl-cram-device serve --socket /tmp/cram.sock --latency 800,1200 --bandwidth 4000

  Exact accounting after every single store, for protocol tests (slow):
    cxl-cram-device serve --socket /tmp/cram.sock --capacity 256M --physical 64M --window trap"
)]
pub struct ServeArgs {
    /// Socket that QEMU's vfio-user-pci connects to; made with mode 0600
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,

    /// HDM promised to the guest: 256M to 8T in steps of 256M (M is 1048576, MB would be 1000000)
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = parse_bytes)]
    pub capacity: u64,

    /// Media that exists: what compressed data may take [default: half the capacity]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub physical: Option<u64>,

    /// Codec of the store: lz4, zstd, zstd:LEVEL, adaptive or adaptive:LEVEL (lz4, and zstd for cold blocks once media is short)
    #[arg(long, value_name = "CODEC", default_value = "lz4")]
    pub codec: Codec,

    /// CPU time that recompression may take, in per cent of one core (needs --codec adaptive) [default: 25]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub recompress_cpu: Option<u8>,

    /// How guest accesses reach the store: mapped and native, or one message each
    #[arg(long, value_enum, default_value_t = WindowKind::Fuse)]
    pub window: WindowKind,

    /// Bound on decompressed bytes held by the FUSE window
    #[arg(long, value_name = "SIZE", default_value = CACHE.as_str(), value_parser = parse_bytes)]
    pub cache: u64,

    /// Free media below this is the low crossing (MSI-X vector 12): per cent of the physical size, or a size
    #[arg(long, value_name = "N%|SIZE", default_value = "10%", value_parser = str::parse::<Threshold>)]
    pub low_watermark: Threshold,

    /// Free media above this is the high crossing (MSI-X vector 13): per cent of the physical size, or a size
    #[arg(long, value_name = "N%|SIZE", default_value = "20%", value_parser = str::parse::<Threshold>)]
    pub high_watermark: Threshold,

    /// How long a dirty page may wait for its write-back, in milliseconds: occupancy lags by at most this
    #[arg(long, value_name = "MS", default_value_t = default_flush_interval(), value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub flush_interval: u64,

    /// Most bytes the FUSE window reads ahead of one stream of accesses; 4096 for none, so that only touched pages are hot
    #[arg(long, value_name = "SIZE", default_value = READAHEAD.as_str(), value_parser = parse_bytes)]
    pub readahead: u64,

    /// Socket for QMP-style control (qmp-shell works); made with mode 0600
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,

    /// Latency of the memory, as its CDAT reports it: for reads and writes, or READ,WRITE [default: 250,300]
    #[arg(long, value_name = "NS")]
    pub latency: Option<ReadWrite<u16>>,

    /// Bandwidth of the memory, as its CDAT reports it: for reads and writes, or READ,WRITE [default: 16000]
    #[arg(long, value_name = "MB/s")]
    pub bandwidth: Option<ReadWrite<u32>>,

    /// The CDAT itself, as QEMU's `cdat=` takes it: header, structures, a checksum that is right. Served whatever it describes
    #[arg(long, value_name = "FILE", conflicts_with_all = ["latency", "bandwidth"])]
    pub cdat: Option<PathBuf>,

    /// Size of the mailbox's payload registers: a power of two from 2K to 1M. With 2K a media operation has up to 127 ranges
    #[arg(long, value_name = "SIZE", default_value_t = PayloadSize::default())]
    pub mailbox_payload: PayloadSize,

    /// Serial number of the function and of the memory device
    #[arg(long, value_name = "HEX", default_value = "0xc7a30001", value_parser = parse_serial)]
    pub serial: u64,

    /// As root: serve as this user, without supplementary groups. The sockets and the window's file are this user's
    #[arg(long, value_name = "NAME|UID[:GID]")]
    pub user: Option<User>,

    /// Whether the server gives up every right before it serves: files, programs, sockets, other processes. `off` is for a
    /// debugger, or a tracer of system calls: a guest that takes the server over then has all rights of its user
    #[arg(long, value_enum, default_value_t = Sandbox::On)]
    pub sandbox: Sandbox,

    /// Log more: -v for events, -vv for every register access ($CXL_CRAM_LOG takes tracing filters)
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl ServeArgs {
    /// Media that exists, bytes.
    pub fn physical(&self) -> u64 {
        self.physical.unwrap_or(self.capacity / 2)
    }

    /// The longest wait of a dirty page.
    pub fn flush_interval(&self) -> Duration {
        Duration::from_millis(self.flush_interval)
    }
}

/// How guest accesses reach the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WindowKind {
    /// QEMU maps a file of a FUSE file system: hot accesses are native
    Fuse,
    /// Every access is a message: slow, exact at once
    Trap,
}

impl WindowKind {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fuse => "fuse",
            Self::Trap => "trap",
        }
    }
}

/// Whether the server confines itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sandbox {
    /// As far as the kernel lets it; a warning says what is missing
    On,
    /// Not at all
    Off,
}

fn parse_serial(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    u64::from_str_radix(digits, 16).map_err(|_| format!("'{text}' is not a hexadecimal number of up to 64 bits"))
}
