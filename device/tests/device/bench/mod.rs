//! The bench as a user runs it: the program, its output and its exit code.

mod data;
mod failures;
mod inputs;
mod numbers;
