//! A cluster in memory: the `Cluster` port with objects that can be deleted and edited by hand, that lag, and that
//! refuse an apply which was compared with an older version of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::lifeline::CrashPoint;
use super::mesh::Mesh;
use crate::domain::{
    CanaryId, CommitId, Contents, RepoPath, SEQUENCE_ANNOTATION, Timestamp, files,
};
use crate::manifests::{Applied, Committed, Manifests};
use crate::ports::{ApplyError, Cluster, Sighting, Tree, Wanted};
use crate::progression::Readiness;

/// How the cluster answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClusterMood {
    /// At once.
    #[default]
    Up,
    /// Not at all.
    Down,
    /// It takes objects, and shows them half a minute later.
    Lagging,
    /// It takes objects, and the candidate's pods do not become ready.
    Unready,
}

/// How long a lagging cluster takes, in seconds.
const LAG: i64 = 30;

/// What the cluster holds of one canary.
#[derive(Debug, Clone)]
pub struct Held {
    /// Content by path.
    pub files: BTreeMap<RepoPath, Arc<[u8]>>,
    /// The commit that they were applied from.
    pub commit: CommitId,
    /// Since when.
    pub since: Timestamp,
    /// The cluster's own version of the objects, raised by every change.
    pub version: u64,
    /// Whether the checkers looked at it since it was applied.
    pub checked: bool,
}

impl Held {
    /// The canary's step number on the objects.
    fn sequence(&self) -> u64 {
        sequence(self.files.values().map(AsRef::as_ref))
    }
}

fn sequence<'a>(mut files: impl Iterator<Item = &'a [u8]>) -> u64 {
    files
        .find_map(|bytes| {
            let text = std::str::from_utf8(bytes).ok()?;
            let (_, behind) = text.split_once(SEQUENCE_ANNOTATION)?;
            let digits = behind.trim_start_matches([':', ' ', '"', '\'']);
            let end = digits.find(|c: char| !c.is_ascii_digit());
            digits.get(..end?)?.parse().ok()
        })
        .unwrap_or_default()
}

impl Cluster for Mesh {
    async fn follow(&mut self, _tree: Tree, _now: Timestamp) {}

    async fn observe(
        &mut self,
        wanted: &[Wanted<'_>],
        _now: Timestamp,
    ) -> Option<BTreeMap<CanaryId, Sighting>> {
        if !self.has_cluster {
            return None;
        }
        let lives = self.passes(CrashPoint::BeforeObserve);
        let (sightings, seen) = {
            let mut world = self.world();
            match world.cluster {
                ClusterMood::Down => world.seen.note("cluster: down"),
                ClusterMood::Lagging => world.seen.note("cluster: lagging"),
                ClusterMood::Unready => world.seen.note("cluster: candidate not ready"),
                ClusterMood::Up => {}
            }
            if !lives || world.cluster == ClusterMood::Down {
                return Some(BTreeMap::new());
            }
            let sightings: BTreeMap<CanaryId, Sighting> = wanted
                .iter()
                .map(|wanted| wanted.manifests)
                .map(|manifests| (manifests.canary.clone(), sight(&world, manifests)))
                .collect();
            let versions = |wanted: &Wanted<'_>| {
                let id = &wanted.manifests.canary;
                let held = world.objects.get(id);
                (id.clone(), held.map_or(0, |held| held.version))
            };
            (sightings, wanted.iter().map(versions).collect::<Vec<_>>())
        };
        self.seen.extend(seen);
        Some(sightings)
    }

    async fn apply(
        &mut self,
        manifests: Vec<Manifests<Committed>>,
        now: Timestamp,
    ) -> BTreeMap<CanaryId, Result<Manifests<Applied>, ApplyError>> {
        let applied = manifests.into_iter().map(|manifests| {
            let id = manifests.canary.clone();
            (id, self.apply_one(manifests, now))
        });
        applied.collect()
    }
}

impl Mesh {
    fn apply_one(
        &self,
        manifests: Manifests<Committed>,
        now: Timestamp,
    ) -> Result<Manifests<Applied>, ApplyError> {
        let refused = |words: &str| ApplyError {
            object: manifests.canary.to_string(),
            words: words.to_owned(),
        };
        if !self.passes(CrashPoint::BeforeApply) {
            return Err(refused("killed"));
        }
        let seen = self.seen.get(&manifests.canary).copied();
        {
            let mut world = self.world();
            if world.cluster == ClusterMood::Down {
                return Err(refused("connection refused"));
            }
            let before = world.objects.get(&manifests.canary);
            if before.map_or(0, |held| held.version) != seen.unwrap_or_default() {
                return Err(refused("the object has been modified"));
            }
            let files = existing(&manifests.files);
            let now = world.true_time(now);
            let since = match before {
                Some(held) if held.files == files => held.since,
                Some(_) | None => now,
            };
            world.changes += 1;
            let held = Held {
                files,
                commit: manifests.commit().clone(),
                since,
                version: world.changes,
                checked: false,
            };
            world.objects.insert(manifests.canary.clone(), held);
        }
        self.passes(CrashPoint::AfterApply);
        Ok(manifests.applied())
    }
}

fn sight(world: &super::mesh::World, manifests: &Manifests<Committed>) -> Sighting {
    let held = world.objects.get(&manifests.canary);
    let same = held.is_some_and(|held| holds(held, manifests));
    let number = || {
        let objects = objects(&manifests.files);
        sequence(objects.map(|(_, content)| &**content))
    };
    let lag = chrono::Duration::seconds(LAG);
    let shown = |held: &super::cluster::Held| {
        world.cluster != ClusterMood::Lagging || held.since + lag <= world.now
    };
    let unready = world.cluster == ClusterMood::Unready;
    Sighting {
        in_sync_since: held
            .filter(|held| same && shown(held))
            .map(|held| held.since),
        drift: match held {
            None => Some("the objects are gone".to_owned()),
            Some(_) if same => None,
            // Somebody knows a newer HEAD.
            Some(held) if held.sequence() > number() => None,
            Some(_) => Some("the objects differ from Git".to_owned()),
        },
        stable: Readiness::Ready,
        candidate: if unready {
            Readiness::NotReady("0 of 1 replicas are ready".to_owned())
        } else {
            Readiness::Ready
        },
        stable_replicas: world.stable_replicas,
    }
}

fn holds(held: &Held, manifests: &Manifests<Committed>) -> bool {
    let mut wanted = objects(&manifests.files);
    let mut held = held.files.iter();
    loop {
        match (wanted.next(), held.next()) {
            (None, None) => return true,
            (Some((path, content)), Some((other, held))) if path == other && content == held => {}
            _ => return false,
        }
    }
}

/// What is meant for a cluster: the state file stays in Git, it is no object.
fn objects(files: &Contents) -> impl Iterator<Item = (&RepoPath, &Arc<[u8]>)> {
    let present = files
        .iter()
        .filter(|(path, _)| path.file_name() != files::ROLLOUT);
    present.filter_map(|(path, content)| Some((path, content.as_ref()?)))
}

fn existing(files: &Contents) -> BTreeMap<RepoPath, Arc<[u8]>> {
    let shared = |(path, content): (&RepoPath, &Arc<[u8]>)| (path.clone(), Arc::clone(content));
    objects(files).map(shared).collect()
}
