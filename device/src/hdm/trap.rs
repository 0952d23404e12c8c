//! The trapped window: each guest access is a message.
