//! Another user's identity, for a server that root starts.

use std::{ffi::CString, fmt, mem::MaybeUninit, ptr, str::FromStr};

use rustix::{
    fs::{Gid, Uid},
    io::Errno,
    process::{parent_process_death_signal, set_parent_process_death_signal},
    thread::{CapabilitySet, set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

use super::{SandboxError, drop_bounding_set};

/// Bytes of an entry of the password database; longer ones are not read.
const ENTRY: usize = 64 << 10;

/// A user and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// The group's.
    pub gid: u32,
}

/// Why a text names no user.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// Neither a number nor a known name.
    #[error("there is no user '{0}'; give a name of the password database, or UID:GID")]
    Unknown(String),
    /// The number has no group.
    #[error("user id {0} is not in the password database; give its group as well, as {0}:GID")]
    NoGroup(u32),
    /// The group is no number.
    #[error("'{0}' is not a group id; give a number of 0 to 4294967294")]
    BadGroup(String),
}

impl FromStr for User {
    type Err = UserError;

    /// `NAME`, `UID`, `NAME:GID` or `UID:GID`.
    fn from_str(text: &str) -> Result<Self, UserError> {
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        let unknown = || UserError::Unknown(user.to_owned());
        let group =
            group.map(|group| number(group).ok_or_else(|| UserError::BadGroup(group.to_owned()))).transpose()?;
        let entry = match number(user) {
            Some(uid) => {
                by_number(uid).or_else(|| group.map(|gid| Self { uid, gid })).ok_or(UserError::NoGroup(uid))?
            }
            None => by_name(user).ok_or_else(unknown)?,
        };
        Ok(Self { gid: group.unwrap_or(entry.gid), ..entry })
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

impl User {
    /// Makes the calling thread, and those that it starts from now on, this user's: without supplementary groups, and with no
    /// way back. Other threads keep what they are.
    ///
    /// # Errors
    /// The process is not root's, or the user's limit on processes is reached.
    pub fn assume(self) -> Result<(), SandboxError> {
        self.change().map_err(|error| SandboxError::User { user: self, source: error.into() })
    }

    fn change(self) -> Result<(), Errno> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        // The kernel forgets it with the identity: a server that a harness ties to itself would stay behind.
        let tied = parent_process_death_signal()?;
        drop_bounding_set(CapabilitySet::empty())?;
        set_thread_groups(&[])?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        set_parent_process_death_signal(tied)
    }
}

/// A user's or group's number. The last stands for "no change" in system calls.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?.filter(|&id| id != u32::MAX)
}

fn by_name(name: &str) -> Option<User> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name is a string that lives through the call; the rest is `entry`'s.
    entry(|record, buffer, found| unsafe {
        libc::getpwnam_r(name.as_ptr(), record, buffer.as_mut_ptr().cast(), buffer.len(), found)
    })
}

fn by_number(uid: u32) -> Option<User> {
    // SAFETY: all pointers are `entry`'s.
    entry(|record, buffer, found| unsafe {
        libc::getpwuid_r(uid, record, buffer.as_mut_ptr().cast(), buffer.len(), found)
    })
}

/// The entry that `get` finds. Its pointers live through the call: a record to fill, a buffer for its strings, and the place
/// for the record's address if there is one.
fn entry(get: impl FnOnce(*mut libc::passwd, &mut [u8], *mut *mut libc::passwd) -> i32) -> Option<User> {
    let mut record = MaybeUninit::<libc::passwd>::uninit();
    let mut buffer = vec![0; ENTRY];
    let mut found = ptr::null_mut();
    if get(record.as_mut_ptr(), &mut buffer, &mut found) != 0 || found.is_null() {
        return None;
    }
    // SAFETY: the call has succeeded and found an entry: the record is filled.
    let record = unsafe { record.assume_init() };
    Some(User { uid: record.pw_uid, gid: record.pw_gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_name_or_a_number_with_or_without_a_group() {
        assert_eq!("root".parse(), Ok(User { uid: 0, gid: 0 }));
        assert_eq!("root:7".parse(), Ok(User { uid: 0, gid: 7 }));
        assert_eq!("0".parse(), Ok(User { uid: 0, gid: 0 }));
        assert_eq!("3999999999:5".parse(), Ok(User { uid: 3_999_999_999, gid: 5 }));
    }

    #[test]
    fn what_names_no_user_is_refused_with_what_does() {
        let refused = |text: &str| text.parse::<User>().unwrap_err();
        assert_eq!(refused("3999999999"), UserError::NoGroup(3_999_999_999));
        assert_eq!(refused("root:wheel"), UserError::BadGroup("wheel".into()));
        assert_eq!(refused("root:"), UserError::BadGroup(String::new()));
        for text in ["no such user", "", ":0", "-1", "4294967295:0", "ro\0ot", "+0"] {
            assert!(matches!(refused(text), UserError::Unknown(_)), "{text:?}");
        }
    }
}
