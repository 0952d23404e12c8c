//! The bench: how well data would compress on the device, without a guest.
//!
//! It reads pages of 4 KiB from files, memory dumps or a process, puts them through each codec on all cores, and says how
//! much media they would take, how long a block takes, and how much capacity a device could promise for such data.

pub mod html;
pub mod report;
