//! Command return codes (CXL 3.1, table 8-34), those that this device gives.

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(in crate::cxl) enum ReturnCode {
    /// The command is done.
    Success = 0x00,
    /// The command was accepted and continues in the background.
    BackgroundStarted = 0x01,
    /// A field of the input payload has a value the command does not take.
    InvalidInput = 0x02,
    /// There is no such command.
    Unsupported = 0x03,
    /// The device failed in itself.
    InternalError = 0x04,
    /// A background operation is under way; there can be only one.
    Busy = 0x06,
    /// The media is disabled (Sanitize is under way or did not finish).
    MediaDisabled = 0x07,
    /// One firmware package is transferred at a time.
    FirmwareTransferInProgress = 0x08,
    /// A part of a firmware package that does not follow the one before.
    FirmwareTransferOutOfOrder = 0x09,
    /// A firmware package that is none.
    FirmwareVerificationFailed = 0x0a,
    /// There is no such firmware slot, or not for this.
    FirmwareInvalidSlot = 0x0b,
    /// A handle does not name the oldest records of the log, in order.
    InvalidHandle = 0x0e,
    /// A DPA outside the capacity.
    InvalidPhysicalAddress = 0x0f,
    /// No more poison can be injected before some is cleared.
    InjectPoisonLimitReached = 0x10,
    /// The medium refused.
    PermanentMediaFailure = 0x11,
    /// The background operation was stopped on request.
    Aborted = 0x12,
    /// The input payload is not as long as the command wants it.
    InvalidPayloadLength = 0x16,
    /// There is no log with this UUID.
    InvalidLog = 0x17,
    /// This background operation cannot be stopped.
    RequestAbortNotSupported = 0x20,
}
