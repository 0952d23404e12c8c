//! `online-node` and `offline-node`: the memory blocks of a node.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const NODES: &str = "/sys/devices/system/node";
const BLOCK_SIZE: &str = "/sys/devices/system/memory/block_size_bytes";

/// The result for a node's blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocks {
    /// The node.
    pub node: u32,
    /// Bytes in a block.
    pub block_bytes: u64,
    /// Blocks changed.
    pub changed: usize,
    /// Blocks already in the state.
    pub unchanged: usize,
    /// Blocks that could not be changed, with the reason.
    pub failed: Vec<(String, String)>,
}

/// Sets the state of every block: `online_movable`, `online_kernel`, `online` or `offline`.
///
/// # Errors
/// There is no such node. A block that cannot be changed is no error, but listed in the result.
pub fn set(node: u32, state: &str) -> io::Result<Blocks> {
    let block_bytes = fs::read_to_string(BLOCK_SIZE)
        .and_then(|text| u64::from_str_radix(text.trim(), 16).map_err(io::Error::other))?;
    set_under(&Path::new(NODES).join(format!("node{node}")), node, block_bytes, state)
}

fn set_under(path: &Path, node: u32, block_bytes: u64, state: &str) -> io::Result<Blocks> {
    let mut blocks: Vec<(u64, PathBuf)> = fs::read_dir(path)?
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix("memory")?.parse().ok()?;
            Some((number, entry.path()))
        })
        .collect();
    blocks.sort();
    // A movable zone shrinks best from its end.
    if state == "offline" {
        blocks.reverse();
    }
    let mut result = Blocks { node, block_bytes, changed: 0, unchanged: 0, failed: Vec::new() };
    let offline = |path: &Path| fs::read_to_string(path).map(|now| now.trim() == "offline");
    for (number, path) in blocks {
        let path = path.join("state");
        match offline(&path) {
            Ok(now) if now == (state == "offline") => result.unchanged += 1,
            _ => match fs::write(&path, state) {
                Ok(()) => result.changed += 1,
                Err(error) => result.failed.push((format!("memory{number}"), error.to_string())),
            },
        }
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_in_another_state_are_changed() {
        let root = std::env::temp_dir().join(format!("cxl-cram-node-{}", std::process::id()));
        for (block, state) in [("memory2", "offline\n"), ("memory10", "online\n"), ("memory_x", "offline\n")] {
            fs::create_dir_all(root.join(block)).unwrap();
            fs::write(root.join(block).join("state"), state).unwrap();
        }
        let blocks = set_under(&root, 1, 1 << 27, "online_movable").unwrap();
        assert_eq!((blocks.changed, blocks.unchanged, blocks.failed.len()), (1, 1, 0));
        assert_eq!(fs::read_to_string(root.join("memory2/state")).unwrap(), "online_movable");
        assert_eq!(fs::read_to_string(root.join("memory_x/state")).unwrap(), "offline\n");
        let blocks = set_under(&root, 1, 1 << 27, "offline").unwrap();
        assert_eq!((blocks.changed, blocks.unchanged), (2, 0));
        fs::remove_dir_all(root).unwrap();
    }
}
