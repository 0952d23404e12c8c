//! The medium's commands: what changes it beside the data path. They are serialised among themselves.

use super::*;

impl Media {
    /// Media operation Zero / Sanitize: the range (4 KiB aligned) reads as zeros, holds no media, has no poison.
    /// Guest stores to it that race with the command may be lost. Not from a window's handler.
    pub fn zero(&self, dpa: Range<u64>) -> Result<(), MediaError> {
        self.check(&dpa, BLOCK_SIZE as u64)?;
        let _serial = self.begin_command();
        let mut start = dpa.start;
        while start < dpa.end {
            let chunk = start..dpa.end.min(start + ZERO_CHUNK);
            start = chunk.end;
            self.zero_chunk(chunk)?;
            self.settle();
        }
        Ok(())
    }

    /// Poisons one line (64-byte aligned DPA): its data is lost, loads see the pattern. Injecting twice is no error.
    /// Not from a window's handler.
    pub fn inject_poison(&self, dpa: u64) -> Result<(), MediaError> {
        self.check(&(dpa..dpa.saturating_add(LINE_SIZE)), LINE_SIZE)?;
        let (block, line) = (dpa / BLOCK_SIZE as u64, dpa % BLOCK_SIZE as u64 / LINE_SIZE);
        let _serial = self.begin_command();
        let hold = self.hold(dpa..dpa + LINE_SIZE);
        {
            let _serial = self.lock_block(block);
            self.change_poison(|poison| poison.inject(block, line)).map_err(|_| MediaError::PoisonListFull)?;
        }
        self.invalidate(block);
        drop(hold);
        Ok(())
    }

    /// Clears the poison of one line and writes `data` there. Not from a window's handler.
    pub fn clear_poison(&self, dpa: u64, data: &[u8; LINE_SIZE as usize]) -> Result<(), MediaError> {
        self.check(&(dpa..dpa.saturating_add(LINE_SIZE)), LINE_SIZE)?;
        let (block, line) = (dpa / BLOCK_SIZE as u64, dpa % BLOCK_SIZE as u64 / LINE_SIZE);
        let _serial = self.begin_command();
        let hold = self.hold(dpa..dpa + LINE_SIZE);
        let result = {
            let _serial = self.lock_block(block);
            let mut contents = [0; BLOCK_SIZE];
            self.store.load().read(block, &mut contents)?;
            let at = (line * LINE_SIZE) as usize;
            contents[at..at + data.len()].copy_from_slice(data);
            self.store_locked(block, &contents, !(1 << line), 0)
        };
        if result.is_err() {
            self.overflowed(block);
        }
        self.invalidate(block);
        drop(hold);
        self.settle();
        result
    }

    /// Changes the watermarks; a crossing that follows from it is sent at once.
    pub fn set_watermarks(&self, watermarks: Watermarks) -> Result<(), MediaError> {
        {
            let _serial = self.begin_command();
            let physical = self.store.load().usage().physical;
            self.crossings
                .change(|gate| Ok(Gate::new(watermarks, physical)?.carry(gate)))
                .map_err(|e| bad_watermarks(e, physical))?;
        }
        self.settle();
        Ok(())
    }

    /// Changes the media that exists; a crossing that follows from it is sent at once.
    pub fn set_physical(&self, bytes: u64) -> Result<(), MediaError> {
        {
            let _serial = self.begin_command();
            let bytes = bytes - bytes % BLOCK_SIZE as u64;
            // Stores continue meanwhile: the gate must not see a new size with old watermarks, so both change under its
            // lock.
            self.crossings
                .change(|gate| {
                    let resized = gate.resized(bytes)?;
                    self.store.load().set_physical(bytes);
                    Ok(resized.carry(gate))
                })
                .map_err(|e| bad_watermarks(e, bytes))?;
        }
        self.settle();
        Ok(())
    }

    /// Waits for the command under way, and for a power cycle that goes on in the background.
    pub(super) fn begin_command(&self) -> MutexGuard<'_, bool> {
        let mut cycling = self.command.lock();
        while *cycling {
            self.cycled.wait(&mut cycling);
        }
        cycling
    }

    /// Ignores write-backs to a range until the guard is dropped. Waits for those under way.
    fn hold(&self, dpa: Range<u64>) -> Hold<'_> {
        *self.held.write() = dpa;
        Hold(self)
    }

    fn zero_chunk(&self, dpa: Range<u64>) -> Result<(), MediaError> {
        let blocks = dpa.start / BLOCK_SIZE as u64..dpa.end / BLOCK_SIZE as u64;
        let _hold = self.hold(dpa.clone());
        self.store.load().trim(blocks.clone())?;
        self.change_poison(|poison| poison.clear_blocks(blocks));
        if let Some(window) = self.window() {
            window.invalidate(dpa);
        }
        Ok(())
    }

    fn invalidate(&self, block: u64) {
        if let Some(window) = self.window() {
            let dpa = block * BLOCK_SIZE as u64;
            window.invalidate(dpa..dpa + BLOCK_SIZE as u64);
        }
    }

    fn check(&self, dpa: &Range<u64>, align: u64) -> Result<(), MediaError> {
        if dpa.start > dpa.end
            || dpa.end > self.capacity
            || !dpa.start.is_multiple_of(align)
            || !dpa.end.is_multiple_of(align)
        {
            return Err(MediaError::BadRange { dpa: dpa.start, length: dpa.end.saturating_sub(dpa.start), align });
        }
        Ok(())
    }
}

/// While it lives, what the window writes back to a range is ignored.
struct Hold<'a>(&'a Media);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        *self.0.held.write() = 0..0;
    }
}

impl Watermarks {
    /// Whether a medium of this physical size can have them.
    pub fn check(self, physical: u64) -> Result<(), MediaError> {
        Gate::new(self, physical).map(drop).map_err(|invalid| bad_watermarks(invalid, physical))
    }
}

pub(super) fn bad_watermarks(invalid: Invalid, physical: u64) -> MediaError {
    MediaError::BadWatermarks { low: invalid.low, high: invalid.high, physical }
}
