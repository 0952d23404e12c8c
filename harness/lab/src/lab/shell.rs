//! The guest's shell and programs.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{LIMIT, Lab};

impl Lab {
    /// Runs a shell line in the guest and returns its output; an exit code other than 0 is an error.
    pub fn sh(&self, line: &str) -> Result<String> {
        self.guest.output(&["sh", "-c", line], LIMIT).with_context(|| format!("in the guest: {line}"))
    }

    /// Runs a program of the guest (words separated by spaces) whose output is JSON.
    pub fn json(&self, line: &str) -> Result<Value> {
        let words: Vec<_> = line.split_whitespace().collect();
        let output = self.guest.output(&words, LIMIT).with_context(|| format!("in the guest: {line}"))?;
        // cxl prints nothing at all for an empty list.
        if output.trim().is_empty() {
            return Ok(Value::Array(Vec::new()));
        }
        serde_json::from_str(&output).with_context(|| format!("in the guest: {line}: not JSON: {output}"))
    }

    /// Runs `cxl` with these arguments and returns its JSON output.
    pub fn cxl(&self, words: &str) -> Result<Value> {
        self.json(&format!("cxl {words}"))
    }

    /// Whether a shell line in the guest ends with exit code 0.
    pub fn holds(&self, line: &str) -> Result<bool> {
        let ran = self.guest.run(&["sh", "-c", line], LIMIT).with_context(|| format!("in the guest: {line}"))?;
        Ok(ran.exit.success())
    }

    /// Runs a shell line in the guest that must fail, and returns its standard error. Success is an error.
    pub fn refused(&self, line: &str) -> Result<String> {
        let ran = self.guest.run(&["sh", "-c", line], LIMIT).with_context(|| format!("in the guest: {line}"))?;
        ensure!(!ran.exit.success(), "in the guest: {line}: succeeded, but must fail");
        Ok(ran.stderr.text().trim().to_owned())
    }
}
