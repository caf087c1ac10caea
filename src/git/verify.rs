//! Whose signature the head needs, and which commit is in force while it does not have it.
//!
//! What was found good is remembered by a reference of our own copy, which nobody else can move: a restart begins there,
//! checks that commit itself with the keys of today, and never asks the head that is in doubt. A copy that is lost is no
//! reason to trust anybody: then the newest commit on the first-parent line that has a good signature is in force.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::command::Git;
use super::copy::{self, VERIFIED};
use super::keyring::{Half, Keyring};
use super::objects::{self, commit_id, local};
use super::settings::{Fingerprint, Verification};
use super::signature::{Refusal, Verdict, verdict};
use crate::domain::CommitId;
use crate::ports::RepositoryError;

/// Commits that the strict mode verifies at once; more are no step but a migration, which a person has to look at.
const MAX_STRICT: usize = 10_000;
/// Commits below a bad head among which a good one is looked for when our copy does not know it.
const MAX_BACK: usize = 10_000;
/// Signatures that are verified at the same time: each is up to three short processes.
const AT_ONCE: usize = 4;

/// Verifies heads.
pub(super) struct Verifier {
    settings: Verification,
    git: Arc<Git>,
    /// Our copy.
    local: PathBuf,
    limit: Duration,
    /// Files of the settings as they were when `keys` was made of them.
    files: Vec<Option<Vec<u8>>>,
    keys: Option<Arc<Keys>>,
    /// The last good head, as [`VERIFIED`] has it.
    verified: Option<CommitId>,
    /// Found good with the keys of today.
    good: Option<CommitId>,
    /// The last bad head, why, and what is in force instead.
    bad: Option<(CommitId, Unverified)>,
}

/// A head that is not good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unverified {
    /// Which commit is not, and why.
    pub(super) why: String,
    /// What is in force instead; `None`: nothing on the branch is good.
    pub(super) last_good: Option<CommitId>,
}

/// Keys, ready to be used.
struct Keys {
    arguments: Vec<String>,
    /// OpenPGP keys that are allowed.
    allowed: BTreeSet<Fingerprint>,
    keyring: Option<Keyring>,
}

impl Verifier {
    /// Reads no key yet.
    pub(super) fn new(
        settings: Verification,
        git: Arc<Git>,
        local: &Path,
        limit: Duration,
    ) -> Self {
        Self {
            settings,
            git,
            local: local.to_owned(),
            limit,
            files: Vec::new(),
            keys: None,
            verified: None,
            good: None,
            bad: None,
        }
    }

    /// What our copy remembers.
    pub(super) fn remembered(&mut self, verified: Option<CommitId>) {
        self.verified = verified;
    }

    /// Whether this commit is the last good head: the only one that a commit of ours may stand on.
    pub(super) fn is_good(&self, commit: &CommitId) -> bool {
        self.good.as_ref() == Some(commit) && self.verified == self.good
    }

    /// A head of the branch: `None` when it is good. Costs nothing when nothing has changed.
    pub(super) async fn head(
        &mut self,
        head: &CommitId,
    ) -> Result<Option<Unverified>, RepositoryError> {
        self.refresh().await?;
        if self.is_good(head) {
            return Ok(None);
        }
        if let Some((known, unverified)) = &self.bad
            && known == head
        {
            return Ok(Some(unverified.clone()));
        }
        match self.examine(head).await? {
            Ok(()) => {
                self.accept(head).await?;
                Ok(None)
            }
            Err(why) => {
                let last_good = self.last_good(head).await?;
                let unverified = Unverified { why, last_good };
                self.bad = Some((head.clone(), unverified.clone()));
                Ok(Some(unverified))
            }
        }
    }

    /// A commit of ours that is not on the branch yet.
    pub(super) async fn own(&mut self, commit: &CommitId) -> Result<(), RepositoryError> {
        self.refresh().await?;
        match self.check(commit).await? {
            Ok(()) => Ok(()),
            Err(why) => Err(RepositoryError::Signature(format!(
                "Serin's own commit would not be accepted ({why}): add its key to the allowed ones, and sign with it"
            ))),
        }
    }

    /// From now on this is the last good head.
    pub(super) async fn accept(&mut self, head: &CommitId) -> Result<(), RepositoryError> {
        let (folder, id) = (self.local.clone(), objects::object_id(head)?);
        copy::blocking(move || copy::set_reference(&objects::open(&folder)?, VERIFIED, id)).await?;
        self.verified = Some(head.clone());
        self.good = Some(head.clone());
        self.bad = None;
        Ok(())
    }

    /// Makes the keys anew when a file with them has changed: what was good with the old ones may not be any more.
    async fn refresh(&mut self) -> Result<(), RepositoryError> {
        let settings = &self.settings;
        let mut files = Vec::new();
        for file in [&settings.signers, &settings.keyring, &settings.revoked] {
            let content = file.as_ref().map(|file| {
                std::fs::read(file).map_err(|error| {
                    RepositoryError::Signature(format!(
                        "failed to read {}: {error}",
                        file.display()
                    ))
                })
            });
            files.push(content.transpose()?);
        }
        let is_there = |keys: &Arc<Keys>| {
            keys.keyring
                .as_ref()
                .is_none_or(|keyring| keyring.folder().exists())
        };
        if self.keys.as_ref().is_some_and(is_there) && files == self.files {
            return Ok(());
        }
        // The old keyring goes before the new one is made in its place.
        self.keys = None;
        self.good = None;
        self.bad = None;
        self.keys = Some(Arc::new(self.make_keys().await?));
        self.files = files;
        Ok(())
    }

    async fn make_keys(&self) -> Result<Keys, RepositoryError> {
        let settings = &self.settings;
        // What is not given must not come from a person's own configuration.
        let name = |file: &Option<PathBuf>| match file {
            Some(file) => file.to_string_lossy().into_owned(),
            None => "/dev/null".to_owned(),
        };
        let arguments = [
            ("gpg.ssh.allowedSignersFile", name(&settings.signers)),
            ("gpg.ssh.revocationFile", name(&settings.revoked)),
        ];
        let arguments = arguments.map(|(key, value)| ["-c".to_owned(), format!("{key}={value}")]);
        let mut allowed = settings.fingerprints.clone();
        let keyring = match &settings.keyring {
            Some(file) => {
                let mut folder = self.local.as_os_str().to_owned();
                folder.push(".verify");
                let keyring =
                    Keyring::import(&self.git, folder.into(), file, Half::Public, self.limit)
                        .await?;
                let held: BTreeSet<Fingerprint> = keyring.keys.iter().cloned().collect();
                if let Some(missing) = allowed.difference(&held).next() {
                    return Err(RepositoryError::Signature(format!(
                        "{} does not hold the key {}",
                        file.display(),
                        missing.as_str()
                    )));
                }
                if allowed.is_empty() {
                    allowed = held;
                }
                Some(keyring)
            }
            None => None,
        };
        Ok(Keys {
            arguments: arguments.into_iter().flatten().collect(),
            allowed,
            keyring,
        })
    }

    /// The head, and in strict mode all that came since the last good one.
    async fn examine(&self, head: &CommitId) -> Result<Result<(), String>, RepositoryError> {
        if let Err(why) = self.check(head).await? {
            return Ok(Err(why));
        }
        let Some(since) = self.verified.as_ref().filter(|_| self.settings.strict) else {
            return Ok(Ok(()));
        };
        if !self.is_here(since).await? {
            return Ok(Err(format!(
                "the last good commit {} is gone, so nothing says what came since",
                since.short()
            )));
        }
        let range = format!("^{since}");
        let most = format!("--max-count={}", MAX_STRICT + 1);
        let arguments = ["rev-list", &most, head.as_str(), &range];
        let output = self.git.run(&arguments, self.limit).await;
        let output = output.map_err(|error| RepositoryError::Local(error.to_string()))?;
        if !output.success {
            let words = super::porcelain::complaint(&output.stderr);
            return Err(RepositoryError::Local(words));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let mut ids: Vec<CommitId> = text.lines().map(CommitId::new).collect();
        if ids.len() > MAX_STRICT {
            return Ok(Err(format!(
                "more than {MAX_STRICT} commits came since the last good one, {}",
                since.short()
            )));
        }
        ids.retain(|id| id != head);
        // The oldest first: that is where the trouble began.
        ids.reverse();
        self.check_all(ids).await
    }

    /// All of them, several at a time; the first in order that is not good.
    async fn check_all(&self, ids: Vec<CommitId>) -> Result<Result<(), String>, RepositoryError> {
        for chunk in ids.chunks(AT_ONCE) {
            let mut running = JoinSet::new();
            for (place, id) in chunk.iter().cloned().enumerate() {
                let check = self.checking(id)?;
                running.spawn(async move { (place, check.await) });
            }
            let mut results = Vec::new();
            while let Some(done) = running.join_next().await {
                results.push(done.map_err(|error| RepositoryError::Local(error.to_string()))?);
            }
            results.sort_by_key(|(place, _)| *place);
            for (_, result) in results {
                if let Err(why) = result? {
                    return Ok(Err(why));
                }
            }
        }
        Ok(Ok(()))
    }

    /// What is in force below a head that is not good.
    async fn last_good(&mut self, head: &CommitId) -> Result<Option<CommitId>, RepositoryError> {
        if let Some(verified) = self.verified.clone() {
            if self.good.as_ref() == Some(&verified) {
                return Ok(Some(verified));
            }
            // After a restart or with other keys: what was good may not be.
            if self.is_here(&verified).await? && self.check(&verified).await?.is_ok() {
                self.good = Some(verified.clone());
                return Ok(Some(verified));
            }
        }
        let (folder, start) = (self.local.clone(), objects::object_id(head)?);
        let signed = copy::blocking(move || signed_below(&objects::open(&folder)?, start)).await?;
        for id in signed {
            if self.check(&id).await?.is_ok() {
                self.accept(&id).await?;
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    async fn is_here(&self, id: &CommitId) -> Result<bool, RepositoryError> {
        let (folder, id) = (self.local.clone(), objects::object_id(id)?);
        copy::blocking(move || Ok(objects::open(&folder)?.has_object(id))).await
    }

    async fn check(&self, id: &CommitId) -> Result<Result<(), String>, RepositoryError> {
        self.checking(id.clone())?.await
    }

    /// Verifies one commit: no process for one without a signature.
    fn checking(
        &self,
        id: CommitId,
    ) -> Result<
        impl Future<Output = Result<Result<(), String>, RepositoryError>> + Send + use<>,
        RepositoryError,
    > {
        let Some(keys) = self.keys.clone() else {
            return Err(RepositoryError::Signature(
                "the keys have not been read yet".to_owned(),
            ));
        };
        let (git, folder, limit) = (Arc::clone(&self.git), self.local.clone(), self.limit);
        Ok(async move {
            let object = objects::object_id(&id)?;
            let (author, is_signed) = copy::blocking(move || {
                let repo = objects::open(&folder)?;
                let author = objects::commit(&repo, object)?.author.name;
                Ok((author, is_signed(&repo, object)?))
            })
            .await?;
            let refusal = if is_signed {
                keys.refusal(&git, &id, limit).await?
            } else {
                Some(Refusal::Unsigned)
            };
            let author: String = author
                .chars()
                .filter(|c| !c.is_control())
                .take(60)
                .collect();
            Ok(match refusal {
                None => Ok(()),
                Some(why) => Err(format!("commit {} by {author} {why}", id.short())),
            })
        })
    }
}

impl Keys {
    /// What is wrong with the signature of a commit; `None` when it is good.
    async fn refusal(
        &self,
        git: &Git,
        id: &CommitId,
        limit: Duration,
    ) -> Result<Option<Refusal>, RepositoryError> {
        let mut arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        arguments.extend(["verify-commit", "--raw", id.as_str()]);
        let gnupg = self.keyring.as_ref().map(Keyring::folder);
        let output = git.run_as(&arguments, gnupg, limit).await;
        let output = output.map_err(|error| RepositoryError::Signature(error.to_string()))?;
        Ok(match verdict(output.success, &output.stderr) {
            Verdict::Ssh { .. } => None,
            Verdict::OpenPgp { key } if self.allowed.contains(&key) => None,
            Verdict::OpenPgp { key } => {
                Some(Refusal::NotAllowed(format!("OpenPGP key {}", key.as_str())))
            }
            Verdict::Refused(why) => Some(why),
        })
    }
}

/// Whether a commit has a signature at all, good or bad.
fn is_signed(repo: &gix::Repository, id: gix::ObjectId) -> Result<bool, RepositoryError> {
    let commit = repo.find_commit(id).map_err(local)?;
    let decoded = commit.decode().map_err(local)?;
    Ok(decoded
        .extra_headers
        .iter()
        .any(|(name, _)| *name == "gpgsig"))
}

/// The commits with a signature below a head, on the line that `git log --first-parent` shows; the newest first.
fn signed_below(
    repo: &gix::Repository,
    head: gix::ObjectId,
) -> Result<Vec<CommitId>, RepositoryError> {
    let mut found = Vec::new();
    let mut at = objects::commit(repo, head)?;
    for _ in 0..MAX_BACK {
        let Some(parent) = at.parents.first() else {
            break;
        };
        at = objects::commit(repo, *parent)?;
        if is_signed(repo, at.id)? {
            found.push(commit_id(at.id));
        }
    }
    Ok(found)
}
