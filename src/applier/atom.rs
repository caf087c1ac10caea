//! Texts that thousands of objects have in common: kinds, namespaces, versions, field managers. Each is kept once.
//!
//! A memory of a pure function: what it holds or forgets changes nothing but the space that texts take.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

/// As many are kept before those are looked for that nobody uses any more.
const FEW: usize = 256;

/// A text that is kept once, however often it is used.
#[derive(Clone, Eq)]
pub struct Atom(Arc<str>);

/// All that are in use, and some that were.
struct Table {
    known: BTreeSet<Arc<str>>,
    /// At this many, those go that nobody uses.
    sweep_at: usize,
}

static ATOMS: Mutex<Table> = Mutex::new(Table {
    known: BTreeSet::new(),
    sweep_at: FEW,
});

impl Table {
    fn atom(&mut self, text: &str) -> Atom {
        if let Some(known) = self.known.get(text) {
            return Atom(Arc::clone(known));
        }
        if self.known.len() >= self.sweep_at {
            // One that only this set holds is nobody's, and it is handed out under this lock alone.
            self.known.retain(|atom| Arc::strong_count(atom) > 1);
            self.sweep_at = FEW.max(2 * self.known.len());
        }
        let atom: Arc<str> = text.into();
        self.known.insert(Arc::clone(&atom));
        Atom(atom)
    }
}

impl Atom {
    /// The one that says this.
    pub fn of(text: &str) -> Self {
        ATOMS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .atom(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Atom {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Atom {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl PartialEq<str> for Atom {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<&str> for Atom {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}

impl Ord for Atom {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        match self == other {
            true => std::cmp::Ordering::Equal,
            false => self.0.cmp(&other.0),
        }
    }
}

impl PartialOrd for Atom {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_once_and_for_as_long_as_somebody_uses_it() {
        let mut table = Table {
            known: BTreeSet::new(),
            sweep_at: FEW,
        };
        let kept = table.atom("Service");
        assert!(Arc::ptr_eq(&kept.0, &table.atom("Service").0));
        for number in 0..10 * FEW {
            table.atom(&format!("word {number}"));
        }
        assert!(table.known.len() <= FEW, "{}", table.known.len());
        assert_eq!(kept, table.atom("Service"));
        assert!(table.atom("Deployment") < kept);
    }
}
