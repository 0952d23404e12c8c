//! `memory`: a program that holds memory on a chosen node.
//! It reads [`protocol::Order`] lines and answers each with one [`protocol::Answer`] line, in order. A scenario can so
//! fill memory, do something else, and verify it later, all on the same pages.

mod churn;
mod direct;
pub mod guard;
pub mod numa;
pub mod protocol;
pub mod race;
pub mod region;
pub mod request;
mod session;
mod source;
mod userfault;
pub mod write;

pub use session::serve;
