//! A copy without files that are too large for Serin anyway. The history of the branch is in it all the same, commit by commit
//! and folder by folder: who changed what, and when, is answered from it, however long ago that was.
//! For the same reason it is never shallow: whoever committed at the cut would be taken for the author of all that is older.
//!
//! `git` fetches a missing object by itself when it comes across one, without telling. Serin's own reading never does:
//! what is missing is either known to be too large, or brought by one request that has a deadline.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gix::ObjectId;

use super::objects::{self, local, local_io};
use super::snapshot::MAX_FILE;
use crate::ports::RepositoryError;

/// Objects by id.
pub(super) type Ids = BTreeSet<ObjectId>;

/// File of our copy that names what was left out for its size.
const TOO_LARGE: &str = "serin-too-large";
/// Mark of a pack of which not all that it refers to is there.
const PROMISED: &str = "promisor";
/// How packs are called on the way to one.
const JOINED: &str = "joined";
/// Packs up to this size are joined when there are many: each fetch of a copy with holes leaves one.
const SMALL_PACK: u64 = 16 << 20;
/// As many as `git` takes for too many.
const MANY_PACKS: usize = 50;

/// How much of the branch is in our copy.
#[derive(Debug, Clone)]
pub(super) enum Extent {
    /// Everything.
    Whole,
    /// Everything but large files.
    Partial {
        /// Files that are known to be too large.
        without: Arc<Ids>,
    },
}

impl Extent {
    /// A partial copy of which nothing is known to be left out.
    pub(super) fn empty() -> Self {
        let without = Arc::default();
        Self::Partial { without }
    }

    /// That of the copy in this folder.
    pub(super) fn of(folder: &Path) -> Self {
        let configuration = std::fs::read_to_string(folder.join("config")).unwrap_or_default();
        if !configuration.to_lowercase().contains("partialclonefilter") {
            return Self::Whole;
        }
        let list = std::fs::read_to_string(folder.join(TOO_LARGE)).unwrap_or_default();
        let ids = list
            .lines()
            .filter_map(|line| ObjectId::from_hex(line.as_bytes()).ok());
        Self::Partial {
            without: Arc::new(ids.collect()),
        }
    }

    /// Notes that those of these that are not in the copy are too large for it.
    pub(super) fn lacks(self, folder: &Path, ids: Ids) -> Result<Self, RepositoryError> {
        let Self::Partial { without } = self else {
            return Ok(self);
        };
        let repo = objects::open(folder)?;
        let mut all = (*without).clone();
        all.extend(ids.into_iter().filter(|id| !repo.has_object(*id)));
        let list: String = all.iter().map(|id| format!("{id}\n")).collect();
        let file = folder.join(TOO_LARGE);
        std::fs::write(&file, list).map_err(|error| local_io(&file, &error))?;
        Ok(Self::Partial {
            without: Arc::new(all),
        })
    }
}

/// The argument of `git fetch` that leaves out what is above the limit.
pub(super) fn filter() -> String {
    format!("--filter=blob:limit={}", MAX_FILE + 1)
}

fn packs(folder: &Path) -> PathBuf {
    folder.join("objects").join("pack")
}

/// The server left nothing out: nothing in our copy is a promise.
pub(super) fn make_whole(folder: &Path) -> Result<(), RepositoryError> {
    let failed = |error| local_io(folder, &error);
    for mark in promised(&packs(folder)).map_err(failed)? {
        std::fs::remove_file(mark).map_err(failed)?;
    }
    Ok(())
}

fn promised(packs: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(packs)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == PROMISED) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Small packs that are to become one.
#[derive(Debug)]
pub(super) struct Small {
    marks: Vec<PathBuf>,
    /// What is in them, as `git pack-objects` reads it.
    pub(super) ids: Vec<u8>,
}

/// The base of the names that `git pack-objects` is given.
pub(super) fn joined(folder: &Path) -> PathBuf {
    packs(folder).join(JOINED)
}

/// Finds small packs, if there are so many that they are in the way.
pub(super) fn small_packs(folder: &Path) -> Result<Option<Small>, RepositoryError> {
    let failed = |error| local_io(folder, &error);
    let mut marks = promised(&packs(folder)).map_err(failed)?;
    marks.retain(|mark| {
        let pack = mark.with_extension("pack").metadata();
        pack.is_ok_and(|pack| pack.len() <= SMALL_PACK)
    });
    if marks.len() < MANY_PACKS {
        return Ok(None);
    }
    let mut ids = Vec::new();
    for mark in &marks {
        let index = mark.with_extension("idx");
        let index = gix::odb::pack::index::File::at(index, gix::hash::Kind::Sha1).map_err(local)?;
        for entry in index.iter() {
            ids.extend_from_slice(format!("{}\n", entry.oid).as_bytes());
        }
    }
    Ok(Some(Small { marks, ids }))
}

impl Small {
    /// Puts the one that was made of them in their place. A crash in between leaves some objects twice.
    pub(super) fn replace(self, folder: &Path, hash: &str) -> Result<(), RepositoryError> {
        let made = packs(folder).join(format!("{JOINED}-{hash}.pack"));
        let pack = packs(folder).join(format!("pack-{hash}.pack"));
        let replaced = || {
            // A pack counts once its index is there.
            std::fs::rename(&made, &pack)?;
            std::fs::write(pack.with_extension(PROMISED), "")?;
            std::fs::rename(made.with_extension("idx"), pack.with_extension("idx"))?;
            for mark in self
                .marks
                .iter()
                .filter(|mark| mark.with_extension("pack") != pack)
            {
                for end in ["idx", "pack", "rev", PROMISED] {
                    match std::fs::remove_file(mark.with_extension(end)) {
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                            return Err(error);
                        }
                        Ok(()) | Err(_) => {}
                    }
                }
            }
            for rest in std::fs::read_dir(packs(folder))?.flatten() {
                if rest.file_name().to_string_lossy().starts_with(JOINED) {
                    std::fs::remove_file(rest.path())?;
                }
            }
            Ok(())
        };
        replaced().map_err(|error| local_io(folder, &error))
    }
}
