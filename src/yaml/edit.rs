//! Edits that change only the bytes they have to.
