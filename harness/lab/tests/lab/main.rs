//! The lab through its public face: provisioning, a machine without a guest (qtest), machines that fail, reports, and
//! which room uses which.

mod machine_failures;
mod provision;
mod qtest;
mod reports;
mod rooms;
