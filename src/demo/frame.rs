//! What an audience gets to see: one value per second of the story, and one per event.

use std::collections::BTreeMap;

use super::mesh::Tally;
use crate::analysis::Finding;
use crate::domain::Timestamp;

/// How things are at one moment.
#[derive(Debug, Clone)]
pub struct Frame {
    /// When.
    pub at: Timestamp,
    /// What the story shows at present.
    pub title: String,
    /// What stable serves.
    pub stable: String,
    /// The candidate, while there is one.
    pub candidate: Option<String>,
    /// Per cent that the mesh sends to the candidate; `None` while the namespace is gone.
    pub weight: Option<f64>,
    /// Who got which version since the last step.
    pub tally: Tally,
    /// The last verdict's findings.
    pub findings: Vec<Finding>,
    /// Why Serin does not move.
    pub waiting: String,
    /// The newest commits, oldest first.
    pub commits: Vec<Commit>,
}

/// A commit, in a few words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// First digits of its id.
    pub id: String,
    /// Who made it.
    pub who: String,
    /// Its subject.
    pub subject: String,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// The next part of the story.
    Scene(String),
    /// A commit, and its sentence for people.
    Commit(Commit, String),
    /// What happened outside of Git.
    Event(String),
}

/// A sentence about the whole story, with the numbers it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The sentence.
    pub sentence: String,
    /// Whether it is so.
    pub holds: bool,
}

/// Whoever watches. An error ends the story.
pub trait Audience {
    /// Something happened.
    fn hear(&mut self, at: Timestamp, news: &News) -> std::io::Result<()>;

    /// A second has passed.
    fn see(&mut self, frame: &Frame) -> std::io::Result<()>;
}

/// Requests by version of one user, or of all but one.
pub fn versions(tally: &Tally, belongs: impl Fn(&str) -> bool) -> BTreeMap<Option<String>, u64> {
    let mut sum: BTreeMap<Option<String>, u64> = BTreeMap::new();
    for (_, counts) in tally.iter().filter(|(user, _)| belongs(user)) {
        for (version, count) in counts {
            *sum.entry(version.clone()).or_default() += count;
        }
    }
    sum
}
