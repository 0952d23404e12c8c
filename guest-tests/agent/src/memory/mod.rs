//! `memory`: a program that holds memory on a chosen node.
//!
//! It reads [`Order`](cxl_cram_wire::memory::Order) lines and answers each with one
//! [`Answer`](cxl_cram_wire::memory::Answer) line, in order. So a scenario can fill memory, do something else, and verify
//! the same pages later.

mod churn;
mod direct;
mod guard;
mod numa;
mod race;
pub mod region;
mod request;
mod session;
mod source;
mod userfault;
mod write;

pub use session::serve;
