//! Writes the index files of libkmod: `modules.dep.bin` and the like.
//!
//! libkmod reads only these; the text files beside them are for people. `depmod` would write them, but the host may not
//! have it, and running it in the guest would slow down every boot. No crate writes them. The format has not changed since
//! 2008: a trie in big-endian words, described in kmod's `libkmod-index.c`.

/// "BOOTFAST", and version 2.1.
const MAGIC: u32 = 0xb007_f457;
const VERSION: u32 = 0x0002_0001;
/// A reference to a node is its offset in the file. The upper bits tell which fields the node has.
const PREFIX: u32 = 1 << 31;
const VALUES: u32 = 1 << 30;
const CHILDREN: u32 = 1 << 29;

/// Key and value.
type Entry<'a> = (&'a [u8], &'a str);

/// Builds an index. For a repeated key, `modprobe` prefers the first value.
///
/// Keys that are not ASCII or contain a zero byte are left out: libkmod could not look them up.
pub(super) fn index<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let fits = |key: &str| key.bytes().all(|byte| byte.is_ascii() && byte != 0);
    let mut sorted: Vec<Entry> =
        entries.into_iter().filter(|(key, _)| fits(key)).map(|(key, value)| (key.as_bytes(), value)).collect();
    // Stable, so that values of one key keep their order.
    sorted.sort_by_key(|(key, _)| *key);
    let mut file = [MAGIC, VERSION, 0].map(u32::to_be_bytes).concat();
    let root = if sorted.is_empty() { 0 } else { write_node(&mut file, &sorted) };
    file[8..12].copy_from_slice(&root.to_be_bytes());
    file
}

/// Writes the subtree of sorted, non-empty entries. Returns the reference to its root.
fn write_node(file: &mut Vec<u8>, entries: &[Entry]) -> u32 {
    let (first, last) = (entries[0].0, entries[entries.len() - 1].0);
    // The entries are sorted, so the prefix of the first and last is common to all.
    let shared = first.iter().zip(last).take_while(|(one, other)| one == other).count();
    let (values, below) = entries.split_at(entries.partition_point(|(key, _)| key.len() == shared));
    let children: Vec<(u8, u32)> = below
        .chunk_by(|one, other| one.0[shared] == other.0[shared])
        .map(|group| {
            let rests: Vec<Entry> = group.iter().map(|(key, value)| (&key[shared + 1..], *value)).collect();
            (group[0].0[shared], write_node(file, &rests))
        })
        .collect();

    let mut reference = file.len() as u32;
    if shared > 0 {
        reference |= PREFIX;
        file.extend(&first[..shared]);
        file.push(0);
    }
    if let (Some((first, _)), Some((last, _))) = (children.first(), children.last()) {
        reference |= CHILDREN;
        file.extend([*first, *last]);
        let child = |byte| children.iter().find(|(label, _)| *label == byte).map_or(0, |(_, child)| *child);
        file.extend((*first..=*last).flat_map(|byte| child(byte).to_be_bytes()));
    }
    if !values.is_empty() {
        reference |= VALUES;
        file.extend((values.len() as u32).to_be_bytes());
        for (priority, (_, value)) in (0_u32..).zip(values) {
            file.extend(priority.to_be_bytes());
            file.extend(value.bytes().chain([0]));
        }
    }
    reference
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(file: &[u8], at: usize) -> u32 {
        u32::from_be_bytes(file[at..at + 4].try_into().unwrap())
    }

    fn text(file: &[u8], at: usize) -> &str {
        std::str::from_utf8(file[at..].split(|byte| *byte == 0).next().unwrap()).unwrap()
    }

    /// Looks up the values of a key like libkmod.
    fn find<'a>(file: &'a [u8], key: &str) -> Vec<&'a str> {
        assert_eq!((word(file, 0), word(file, 4)), (0xb007_f457, 0x0002_0001));
        let (mut reference, mut key) = (word(file, 8), key);
        while reference != 0 {
            let mut at = (reference & 0x0fff_ffff) as usize;
            if reference & PREFIX != 0 {
                let prefix = text(file, at);
                let Some(rest) = key.strip_prefix(prefix) else { return Vec::new() };
                (key, at) = (rest, at + prefix.len() + 1);
            }
            let mut child = 0;
            if reference & CHILDREN != 0 {
                let (first, last) = (file[at], file[at + 1]);
                if let Some(byte) = key.bytes().next().filter(|byte| (first..=last).contains(byte)) {
                    child = word(file, at + 2 + 4 * usize::from(byte - first));
                }
                at += 2 + 4 * (usize::from(last - first) + 1);
            }
            if key.is_empty() {
                let count = if reference & VALUES != 0 { word(file, at) } else { 0 };
                at += 4;
                return (0..count)
                    .map(|priority| {
                        assert_eq!(word(file, at), priority);
                        let value = text(file, at + 4);
                        at += 4 + value.len() + 1;
                        value
                    })
                    .collect();
            }
            (reference, key) = (child, &key[1..]);
        }
        Vec::new()
    }

    #[test]
    fn every_key_is_found_and_no_other() {
        let entries = [("on", "1"), ("once", "2"), ("one", "3"), ("ask", "4"), ("ate", "5"), ("on", "6")];
        let file = index(entries);
        assert_eq!(find(&file, "on"), ["1", "6"]);
        assert_eq!(find(&file, "once"), ["2"]);
        assert_eq!(find(&file, "one"), ["3"]);
        assert_eq!(find(&file, "ask"), ["4"]);
        assert_eq!(find(&file, "ate"), ["5"]);
        for key in ["", "o", "onc", "onces", "a", "at", "b", "z"] {
            assert!(find(&file, key).is_empty(), "{key}");
        }
    }

    #[test]
    fn an_empty_index_finds_nothing() {
        assert_eq!(index([]).len(), 12);
        assert!(find(&index([]), "device_dax").is_empty());
    }

    #[test]
    fn keys_that_libkmod_cannot_hold_are_left_out() {
        let file = index([("größe", "1"), ("a\0b", "2"), ("a", "3")]);
        assert_eq!(file, index([("a", "3")]));
    }
}
