//! The record of a run: facts for the snapshot, figures for people, and the devices over time.
//!
//! - [`facts`]: facts and figures. [`cases`]: the results of a test program of the kernel's.
//! - [`timeline`]: samples and marks over time. [`recorder`] collects them: [`sampler`] asks each device,
//!   [`follower`] reads figures of the guest.

pub mod cases;
pub mod facts;
mod follower;
pub(crate) mod recorder;
pub(crate) mod sampler;
pub mod timeline;
