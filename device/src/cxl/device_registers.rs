//! Placeholder with the face of the device register block: reads zeros.

use std::sync::Arc;

use super::{Msix, Type3Config};
use crate::hdm::media::Media;

/// The device register block (64 KiB).
pub(crate) struct DeviceRegisters;

impl DeviceRegisters {
    pub(crate) fn new(_config: &Type3Config, _media: Arc<Media>, _msix: Arc<dyn Msix>) -> Self {
        Self
    }
    pub(crate) fn set_component_state_source(&self, _source: Box<dyn Fn() -> Vec<u8> + Send + Sync>) {}
    pub(crate) fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }
    pub(crate) fn write(&self, _offset: u64, _data: &[u8]) {}
    pub(crate) fn reset(&self) {}
    pub(crate) fn inject_low(&self) {}
    pub(crate) fn inject_high(&self) {}
    pub(crate) fn vector_armed(&self, _vector: u16) {}
}
