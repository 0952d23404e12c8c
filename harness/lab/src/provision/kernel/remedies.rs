//! What the harness does for a kernel that was not configured for it, such as a distribution's.
//!
//! Both remedies work for every kernel. They are applied only where the configuration does not make them superfluous, because
//! each has a price: without the hypervisor's bit KVM's guests have no paravirtual clock.

/// The option by which a kernel under a hypervisor makes a region without flushing the processor's caches.
const NO_FLUSH: &str = "CONFIG_CXL_REGION_INVALIDATION_TEST=y";
/// The policy for new memory: by its name since 6.14, and by the name before. Only the older one can be absent and off.
const STAYS_OFFLINE: [&str; 2] =
    ["CONFIG_MHP_DEFAULT_ONLINE_TYPE_OFFLINE=y", "# CONFIG_MEMORY_HOTPLUG_DEFAULT_ONLINE is not set"];

/// What a machine changes for its kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remedies {
    /// Hide from the guest that it runs under a hypervisor: its kernel would refuse to make a region.
    pub hide_hypervisor: bool,
    /// Keep new memory offline until a scenario puts it online: by itself it would come online as ordinary memory, and never
    /// go away again.
    pub keep_memory_offline: bool,
}

impl Remedies {
    /// The remedies for a kernel of this configuration. An unknown one needs both.
    pub(super) fn of(config: Option<&str>) -> Remedies {
        let has = |line: &str| config.is_some_and(|config| config.lines().any(|other| other == line));
        Remedies { hide_hypervisor: !has(NO_FLUSH), keep_memory_offline: !STAYS_OFFLINE.into_iter().any(has) }
    }

    /// Words for the kernel's command line.
    pub fn append(self) -> &'static str {
        if self.keep_memory_offline { "memhp_default_state=offline" } else { "" }
    }

    /// What is done and why, a sentence each.
    pub fn notices(self) -> Vec<&'static str> {
        let hypervisor = "this kernel makes no CXL region under a hypervisor (no CONFIG_CXL_REGION_INVALIDATION_TEST): QEMU \
                          hides itself, with -cpu ...,hypervisor=off";
        let memory = "this kernel puts new memory online by itself: booted with memhp_default_state=offline";
        let all = [(self.hide_hypervisor, hypervisor), (self.keep_memory_offline, memory)];
        all.into_iter().filter(|(applies, _)| *applies).map(|(_, notice)| notice).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_configured_for_the_harness_needs_no_remedy() {
        let config = "CONFIG_CXL_REGION_INVALIDATION_TEST=y\nCONFIG_MHP_DEFAULT_ONLINE_TYPE_OFFLINE=y\n";
        assert_eq!(Remedies::of(Some(config)), Remedies::default());
        assert!(Remedies::default().notices().is_empty() && Remedies::default().append().is_empty());
        let older = "# CONFIG_MEMORY_HOTPLUG_DEFAULT_ONLINE is not set\nCONFIG_CXL_REGION_INVALIDATION_TEST=y\n";
        assert_eq!(Remedies::of(Some(older)), Remedies::default());
    }

    #[test]
    fn a_distributions_kernel_and_one_without_a_known_configuration_need_both() {
        let debian =
            "# CONFIG_CXL_REGION_INVALIDATION_TEST is not set\n# CONFIG_MHP_DEFAULT_ONLINE_TYPE_OFFLINE is not set\n";
        for config in [Some(debian), None] {
            let remedies = Remedies::of(config);
            assert!(remedies.hide_hypervisor && remedies.append() == "memhp_default_state=offline", "{config:?}");
            assert_eq!(remedies.notices().len(), 2);
        }
    }
}
