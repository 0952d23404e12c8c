//! The kernel's own checks that a kernel is built with.

use clap::ValueEnum;

/// A set of the kernel's own checks: one fragment of its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Checks {
    /// Lock order, sleeping in atomic context, lists, objects, memory management
    Usual,
    /// Every access to memory (KASAN), page tables, memory management
    Kasan,
}

impl Checks {
    /// The fragment's file in `guest-tests/kernel`.
    pub(super) fn fragment(self) -> &'static str {
        match self {
            Self::Usual => "debug.config",
            Self::Kasan => "kasan.config",
        }
    }

    /// How many times slower the guest is, about.
    pub(super) fn slowdown(self) -> u32 {
        match self {
            Self::Usual => 3,
            Self::Kasan => 5,
        }
    }
}
