//! What was read lately, by content: a file that Serin writes is checked, committed, read back and looked at again within
//! seconds, and is parsed once for all of that.
//!
//! A memory of a pure function: what it holds or forgets changes nothing but the time that reading takes. It is bounded,
//! and each thread has its own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::BuildHasher as _;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::node::{Parsed, parse};

/// Readings of one generation; two are kept. A tree is some twenty times as large as its text, so that 128 of 1 KiB are
/// about 3 MiB for each thread, and the files of a dozen canaries that step together.
const GENERATION: usize = 64;
/// Longer contents are not kept: what Serin writes is shorter.
const LONGEST: usize = 16 * 1024;

/// A content that was parsed, and the JSON of its documents once somebody wants it.
#[derive(Debug)]
pub struct Reading {
    /// Documents with positions, and what is wrong.
    pub parsed: Parsed,
    values: OnceLock<Vec<Value>>,
}

impl Reading {
    fn of(content: &[u8]) -> Self {
        Self {
            parsed: parse(content),
            values: OnceLock::new(),
        }
    }

    /// The first document as JSON; null where there is none.
    pub fn first(&self) -> &Value {
        self.values().first().unwrap_or(&Value::Null)
    }

    /// The documents as JSON, in order.
    pub fn values(&self) -> &[Value] {
        self.values.get_or_init(|| {
            let documents = self.parsed.documents.iter();
            documents.map(|document| document.root.to_json()).collect()
        })
    }
}

/// Two generations: what the young one does not hold is looked for in the old one, and moves.
#[derive(Default)]
struct Memory {
    young: Generation,
    old: Generation,
}

type Generation = BTreeMap<u64, (Box<[u8]>, Arc<Reading>)>;

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

impl Memory {
    fn get(&mut self, key: u64, content: &[u8]) -> Option<Arc<Reading>> {
        let same = |(known, _): &&(Box<[u8]>, Arc<Reading>)| **known == *content;
        if let Some((_, reading)) = self.young.get(&key).filter(same) {
            return Some(Arc::clone(reading));
        }
        let found = self.old.remove(&key).filter(|entry| same(&entry))?;
        let reading = Arc::clone(&found.1);
        self.keep(key, found);
        Some(reading)
    }

    fn keep(&mut self, key: u64, entry: (Box<[u8]>, Arc<Reading>)) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, entry);
    }
}

/// Two contents with one key take each other's place, and nothing worse: the content itself is compared.
fn key(content: &[u8]) -> u64 {
    foldhash::fast::FixedState::default().hash_one(content)
}

/// Parses, or remembers having done so.
pub fn read(content: &[u8]) -> Arc<Reading> {
    if content.len() > LONGEST {
        return Arc::new(Reading::of(content));
    }
    let key = key(content);
    if let Some(known) = MEMORY.with_borrow_mut(|memory| memory.get(key, content)) {
        return known;
    }
    let reading = Arc::new(Reading::of(content));
    let entry = (content.into(), Arc::clone(&reading));
    MEMORY.with_borrow_mut(|memory| memory.keep(key, entry));
    reading
}

/// The same without remembering it: for the many files that are read once.
pub fn peek(content: &[u8]) -> Arc<Reading> {
    let known = (content.len() <= LONGEST)
        .then(|| MEMORY.with_borrow_mut(|memory| memory.get(key(content), content)));
    known
        .flatten()
        .unwrap_or_else(|| Arc::new(Reading::of(content)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_is_parsed_once_and_the_memory_is_bounded() {
        let first = read(b"a: 1\n");
        assert!(Arc::ptr_eq(&first, &read(b"a: 1\n")));
        assert!(Arc::ptr_eq(&first, &peek(b"a: 1\n")));
        assert_eq!(first.values(), [serde_json::json!({"a": 1})]);
        for number in 0..2 * GENERATION {
            read(format!("b: {number}\n").as_bytes());
        }
        assert!(!Arc::ptr_eq(&first, &read(b"a: 1\n")), "forgotten");
        let held = MEMORY.with_borrow(|memory| memory.young.len() + memory.old.len());
        assert!(held <= 2 * GENERATION, "{held}");
    }

    #[test]
    fn what_is_only_looked_at_or_very_long_is_not_kept() {
        assert!(!Arc::ptr_eq(&peek(b"c: 1\n"), &peek(b"c: 1\n")));
        let long = format!("d: {}\n", "x".repeat(LONGEST));
        assert!(!Arc::ptr_eq(&read(long.as_bytes()), &read(long.as_bytes())));
        assert_eq!(read(b"e: [\n").parsed.errors.len(), 1);
    }
}
