//! Files: reading, writing, listing, waiting for them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use cxl_cram_wire::protocol::{Condition, Failure, MAX_BYTES, Reply};

use super::programs::millis;

/// Polling interval for a condition. sysfs sends no notification of changes, so polling is the only way.
const POLL: Duration = Duration::from_millis(2);

pub(super) fn read(path: &Path, limit: Option<usize>) -> Result<Reply, Failure> {
    let limit = limit.unwrap_or(MAX_BYTES).min(MAX_BYTES);
    let (mut data, failed) = (Vec::new(), |error| Failure::io(format_args!("read {}", path.display()), &error));
    // Reading one byte more than asked for shows whether the file goes on.
    File::open(path).and_then(|file| file.take(limit as u64 + 1).read_to_end(&mut data)).map_err(failed)?;
    let truncated = data.len() > limit;
    data.truncate(limit);
    Ok(Reply::File { data: data.into(), truncated })
}

pub(super) fn write(path: &Path, data: &[u8]) -> Result<Reply, Failure> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        let written = file.write(data)?;
        if written == data.len() { Ok(()) } else { file.write_all(&data[written..]) }
    };
    write().map(|()| Reply::Nothing).map_err(|error| Failure::io(format_args!("write {}", path.display()), &error))
}

pub(super) fn list(path: &Path) -> Result<Reply, Failure> {
    let names = || -> io::Result<Vec<String>> {
        fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    let mut names = names().map_err(|error| Failure::io(format_args!("list {}", path.display()), &error))?;
    names.sort();
    Ok(Reply::Names { names })
}

pub(super) fn wait_for(condition: &Condition, limit: Duration) -> Result<Reply, Failure> {
    let begin = Instant::now();
    loop {
        if holds(condition) {
            return Ok(Reply::Waited { elapsed_ms: millis(begin.elapsed()) });
        }
        if begin.elapsed() >= limit {
            return Err(not_yet(condition, limit));
        }
        thread::sleep(POLL);
    }
}

fn holds(condition: &Condition) -> bool {
    let content = |path: &str| read(Path::new(path), None).ok();
    match condition {
        Condition::Exists { path } => Path::new(path).exists(),
        Condition::Gone { path } => !Path::new(path).exists(),
        Condition::Is { path, text } => {
            matches!(content(path), Some(Reply::File { data, .. }) if data.text().trim() == text.trim())
        }
        Condition::Contains { path, text } => {
            matches!(content(path), Some(Reply::File { data, .. }) if data.text().contains(text.as_str()))
        }
    }
}

/// The condition, and the present state instead of it.
fn not_yet(condition: &Condition, limit: Duration) -> Failure {
    let now = |path: &str| match read(Path::new(path), Some(256)) {
        Ok(Reply::File { data, .. }) => format!("its content is {:?}", data.text()),
        Ok(_) => String::new(),
        Err(failure) => failure.message,
    };
    let what = match condition {
        Condition::Exists { path } => format!("{path} did not appear"),
        Condition::Gone { path } => format!("{path} did not go away"),
        Condition::Is { path, text } => format!("{path} did not become {text:?}: {}", now(path)),
        Condition::Contains { path, text } => format!("{path} did not come to contain {text:?}: {}", now(path)),
    };
    Failure { message: format!("{what} within {limit:?}"), errno: Some(libc::ETIMEDOUT) }
}
