//! The kernel's CXL trace events.

use anyhow::{Context, Result};
use serde_json::Value;

use super::events;
use super::events::PoisonList;
use super::{LIMIT, Lab};
use crate::guest::trace::Trace;
use crate::record::facts::pick;

impl Lab {
    /// Waits for a trace event of this name, and returns some of its fields.
    pub fn event(&self, trace: &mut Trace, name: &str, keys: &[&str]) -> Result<Value> {
        Ok(pick(&self.whole_event(trace, name)?, keys))
    }

    /// As [`Lab::event`], with all fields.
    pub fn whole_event(&self, trace: &mut Trace, name: &str) -> Result<Value> {
        let marker = format!(" {name}: ");
        let line = trace
            .wait_for(|line| line.contains(&marker), LIMIT)
            .with_context(|| format!("no {name} in the guest's trace"))?;
        Ok(Value::Object(events::fields(&line)))
    }

    /// All events of this name so far.
    pub fn events_seen(&self, trace: &mut Trace, name: &str) -> Vec<Value> {
        let marker = format!(" {name}: ");
        let lines = trace.lines().iter().filter(|line| line.contains(&marker));
        lines.map(|line| Value::Object(events::fields(line))).collect()
    }

    /// Makes the kernel read the device's poison list, and collects it from the trace events.
    pub fn poison_list(&self) -> Result<PoisonList> {
        let trace = self.guest.trace("poison", &["cxl:cxl_poison"])?;
        self.guest.write_file("/sys/bus/cxl/devices/mem0/trigger_poison_list", "1")?;
        let mut list = PoisonList::default();
        for line in trace.stop()?.iter().filter(|line| line.contains(" cxl_poison: ")) {
            list.add(line)?;
        }
        Ok(list)
    }
}
