//! Checks whether KVM can be used.

use std::{
    ffi::c_void,
    fs::{self, OpenOptions},
    os::{
        fd::{FromRawFd, OwnedFd},
        unix::fs::FileTypeExt,
    },
    path::Path,
    ptr,
};

use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl};

/// Why KVM cannot be used, or `None` if it can. Also checks the processor's flags: on some machines `/dev/kvm` opens but
/// cannot run an ordinary kernel.
pub fn obstacle() -> Option<String> {
    obstacle_at(Path::new("/dev/kvm"), &cpuinfo())
}

/// Whether the processor has `vmx` or `svm`.
pub fn processor_can_virtualize() -> bool {
    has_virtualization(&cpuinfo())
}

fn obstacle_at(device: &Path, cpuinfo: &str) -> Option<String> {
    if !has_virtualization(cpuinfo) {
        return Some("the processor offers no vmx or svm".to_owned());
    }
    let name = device.display();
    match fs::metadata(device) {
        Ok(there) if there.file_type().is_char_device() => {}
        Ok(_) => return Some(format!("{name} is not a device")),
        Err(error) => return Some(format!("{name} cannot be opened: {error}")),
    }
    let kvm = match OpenOptions::new().read(true).write(true).open(device) {
        Ok(kvm) => kvm,
        Err(error) => return Some(format!("{name} cannot be opened: {error}")),
    };
    // SAFETY: CreateVm describes KVM_CREATE_VM, which takes a number and touches no memory of this process.
    unsafe { ioctl(kvm, CreateVm) }.err().map(|error| format!("{name} cannot create a virtual machine: {error}"))
}

fn has_virtualization(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().filter_map(|line| line.strip_prefix("flags")?.split_once(':'));
    flags.flat_map(|(_, flags)| flags.split_whitespace()).any(|flag| flag == "vmx" || flag == "svm")
}

pub(super) fn cpuinfo() -> String {
    fs::read_to_string("/proc/cpuinfo").unwrap_or_default()
}

/// `KVM_CREATE_VM` for the default machine type. Closing the descriptor destroys the virtual machine.
struct CreateVm;

// SAFETY: the argument is the number 0 and no pointer, and what is returned is a new file descriptor.
unsafe impl Ioctl for CreateVm {
    type Output = OwnedFd;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        // _IO(KVMIO, 0x01)
        0xae01
    }

    fn as_ptr(&mut self) -> *mut c_void {
        ptr::null_mut()
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> rustix::io::Result<OwnedFd> {
        // SAFETY: the system call succeeded, so this is a descriptor that nothing else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(output) })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn virtualization_is_a_whole_flag_of_the_processor() {
        assert!(has_virtualization("processor\t: 0\nflags\t\t: fpu vmx sse\n"));
        assert!(has_virtualization("flags : svm"));
        assert!(!has_virtualization("flags\t: fpu vmxoff\nvmx flags\t: vnmi\nbugs : svm"));
        assert!(!has_virtualization(""));
    }

    #[test]
    fn an_unusable_kvm_device_gives_the_reason() {
        let capable = "flags : vmx";
        let obstacle = |path: &Path| obstacle_at(path, capable).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(obstacle(file.path()).contains("is not a device"));
        assert!(obstacle(Path::new("/nonexistent")).contains("cannot be opened"));
        assert!(obstacle(Path::new("/dev/null")).contains("cannot create a virtual machine"));
        assert!(obstacle_at(Path::new("/dev/kvm"), "flags : fpu").unwrap().contains("vmx or svm"));
    }
}
