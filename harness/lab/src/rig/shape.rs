//! The devices and the machine that a scenario asks for.

use std::ffi::OsString;

use clap::FromArgMatches;
use cxl_cram_device::{serve::ServeArgs, store::Codec};
use cxl_cram_kit::size::exact_bytes;

use crate::machine::config::Domain;
use crate::machine::decoders::Decoders;

/// A device that a scenario asks for.
#[derive(Clone, Copy, Debug)]
pub struct DeviceShape {
    /// HDM promised, bytes.
    pub capacity: u64,
    /// Media that exists, bytes.
    pub physical: u64,
    /// Bound on what the window keeps decompressed, bytes.
    pub cache: u64,
    /// The codec.
    pub codec: Codec,
    /// Further arguments.
    pub more: &'static [&'static str],
}

impl DeviceShape {
    /// 512 MiB promised, 256 MiB there, a 64 MiB cache, lz4.
    pub const USUAL: Self =
        Self { capacity: 512 << 20, physical: 256 << 20, cache: 64 << 20, codec: Codec::Lz4, more: &[] };

    /// The device's command line after the program's name. The user's options replace the shape's.
    pub(crate) fn arguments(&self, more: &[String]) -> Vec<OsString> {
        let own = [
            ("--capacity", exact_bytes(self.capacity)),
            ("--physical", exact_bytes(self.physical)),
            ("--cache", exact_bytes(self.cache)),
            ("--codec", self.codec.to_string()),
        ];
        let own = own.into_iter().flat_map(|(option, value)| [option.into(), value.into()]);
        let more = self.more.iter().map(OsString::from).chain(more.iter().map(OsString::from));
        ["serve".into(), "-v".into()].into_iter().chain(own).chain(more).collect()
    }

    /// The options of a device of this shape, read and checked as the device itself does.
    ///
    /// # Errors
    /// The device's own error about them.
    pub(crate) fn options(&self, more: &[String]) -> Result<ServeArgs, String> {
        let (program, socket) = (["cxl-cram-device".into()], ["--socket".into(), "socket".into()]);
        let line = program.into_iter().chain(self.arguments(more)).chain(socket);
        let parsed = cxl_cram_device::cli::command().try_get_matches_from(line).and_then(|matches| {
            let none = clap::ArgMatches::default();
            ServeArgs::from_arg_matches(matches.subcommand_matches("serve").unwrap_or(&none))
        });
        let message = |error: clap::Error| error.to_string().trim_start_matches("error: ").trim_end().to_owned();
        let options = parsed.map_err(message)?;
        options.check().map_err(|error| format!("{error:#}"))?;
        Ok(options)
    }
}

/// The machine that a scenario asks for.
#[derive(Clone, Copy, Debug)]
pub struct MachineShape {
    /// Ordinary memory, MiB.
    pub memory_mib: u64,
    /// Processors.
    pub processors: u32,
    /// Whether the corpus (256 MiB of real data) is attached, as /dev/vda.
    pub corpus: bool,
    /// The proximity domains that the firmware gives the windows of the first devices; usually none, and Linux
    /// assigns them.
    pub domains: &'static [Domain],
    /// Whether the firmware commits the decoders, each to its device's whole window.
    pub decoders: Decoders,
    /// Whether the kernel takes the windows for soft-reserved memory.
    pub soft_reserved: bool,
    /// A disk that the guest may write, MiB: the next of /dev/vda, /dev/vdb.
    pub scratch_mib: Option<u64>,
    /// Whether the guest has its own kernel and initramfs as disks, for [`Lab::kexec`](crate::lab::Lab::kexec).
    pub second_kernel: bool,
    /// Whether the guest has the selftests of its kernel's tree, see [`Need::Selftests`](crate::lab::need::Need::Selftests).
    pub selftests: bool,
    /// Whether the guest may restart. Otherwise a restart ends the machine.
    pub restarts: bool,
    /// Whether a load of poison raises a machine check.
    pub machine_checks: bool,
    /// Added to the kernel's command line.
    pub append: &'static str,
    /// Parts of console lines that this scenario expects, and that are therefore no trouble.
    pub expected: &'static [&'static str],
}

impl MachineShape {
    /// 1 GiB, two processors, nothing else.
    pub const USUAL: Self = Self {
        memory_mib: 1024,
        processors: 2,
        corpus: false,
        domains: &[],
        decoders: Decoders::Open,
        soft_reserved: false,
        scratch_mib: None,
        second_kernel: false,
        selftests: false,
        restarts: false,
        machine_checks: false,
        append: "",
        expected: &[],
    };
}
