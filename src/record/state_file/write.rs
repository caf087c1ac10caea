//! A state as the bytes of `rollout.yaml`.

use std::collections::BTreeMap;

use super::{API_VERSION, KIND};
use crate::domain::{CanaryId, RepoPath, Timestamp};
use crate::progression::{
    Approval, Attribution, DrainCause, Failure, Hold, HoldReason, Phase, Rollout, State,
    VerdictNote,
};
use crate::spec::{Candidate, CandidateContent, Version};
use crate::yaml::emit;
use crate::yaml::parts::Part;
use chrono::SecondsFormat;

/// The bytes of `rollout.yaml` for `state`. `steps` is the number of rungs of the ladder, `home_file` the file that
/// the `Canary` is written in. The same arguments give the same bytes; times are cut to whole seconds.
pub fn write(id: &CanaryId, state: &State, steps: u16, home_file: &RepoPath) -> Vec<u8> {
    let mut file = Writer::new(id, home_file);
    file.put("apiVersion", API_VERSION);
    file.put("kind", KIND);
    let local = Part::mapping([("config.kubernetes.io/local-config", "true".into())]);
    file.put(
        "metadata",
        Part::mapping([
            ("name", (&id.name).into()),
            ("namespace", (&id.namespace).into()),
            ("annotations", local),
        ]),
    );
    file.put("canary", id.to_string());
    file.put("sequence", state.sequence);
    file.phase(state, steps);
    file.put_some("held", state.held.as_ref().map(hold));
    file.put("stable", version(&state.stable));
    file.rest(state);
    file.text.into_bytes()
}

/// Fields in the order in which people read them, which is not the alphabet's.
struct Writer {
    text: String,
}

impl Writer {
    fn new(id: &CanaryId, home_file: &RepoPath) -> Self {
        let home = one_line(home_file.as_str());
        let id = one_line(&id.to_string());
        Self {
            text: format!(
                "# +argocd:skip-file-rendering\n\
                 # Where the rollout of {id} stands. Serin writes this file with each of its commits and reads it back.\n\
                 # You may commit a change of `weight` or `step` (Serin adopts it, and holds there), open a gate with\n\
                 # `approval: granted`, or remove the `held` block to let a held rollout go on.\n\
                 # Everything else is decided in {home}.\n"
            ),
        }
    }

    /// One field.
    fn put<'a>(&mut self, key: &str, value: impl Into<Part<'a>>) {
        emit::append_field(&mut self.text, key, &value.into());
    }

    fn put_some<'a>(&mut self, key: &str, value: Option<impl Into<Part<'a>>>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    fn phase(&mut self, state: &State, steps: u16) {
        match &state.phase {
            Phase::Idle => {
                self.put("phase", "Idle");
                self.put("weight", 0_u64);
            }
            Phase::Progressing(rollout) => {
                self.put("phase", "Progressing");
                self.rollout(rollout, steps);
            }
            Phase::Draining(rollout, cause) => {
                self.put("phase", "Draining");
                self.put("drain", drain(cause));
                self.put_some("failure", failure_of(cause).map(failure));
                self.rollout(rollout, steps);
            }
            Phase::Failed(failed) => {
                self.put("phase", "Failed");
                self.put("weight", 0_u64);
                self.put("failure", failure(failed));
            }
        }
    }

    fn rollout(&mut self, rollout: &Rollout, steps: u16) {
        self.put("step", rollout.step);
        // A ladder that lost rungs mid-rollout must not make the file contradict itself.
        self.put("steps", steps.max(rollout.step));
        self.put("weight", rollout.weight.percent());
        self.put_some("mirror", rollout.mirror.map(crate::domain::Weight::percent));
        if !rollout.matches.is_empty() {
            self.put("matches", rollout.matches.iter().collect::<Part<'_>>());
        }
        match &rollout.approval {
            Approval::NotNeeded => self.put("approval", "none"),
            Approval::Pending => self.put("approval", "pending"),
            Approval::Granted(by) => {
                self.put("approval", "granted");
                self.put("approvedBy", attribution(by));
            }
        }
        self.put_some("stableReplicas", rollout.stable_replicas);
        self.put("started", time(rollout.started));
        self.put("since", time(rollout.since));
        self.put("ladder", rollout.ladder.as_str());
        self.put("candidate", candidate(&rollout.candidate));
    }

    fn rest(&mut self, state: &State) {
        let previous = state.previous.as_ref().map(|previous| {
            let until = ("until", time(previous.until).into());
            Part::mapping(version_fields(&previous.version).into_iter().chain([until]))
        });
        self.put_some("previous", previous);
        if !state.rejected.is_empty() {
            let rejected = state.rejected.iter().map(|rejection| {
                Part::mapping([
                    ("revision", rejection.revision.as_str().into()),
                    ("at", time(rejection.at).into()),
                    ("reason", (&rejection.reason).into()),
                ])
            });
            self.put("rejected", rejected.collect::<Part<'_>>());
        }
        self.put("retry", state.retry);
        self.put("resume", state.resume);
        self.put_some("lastVerdict", state.last_verdict.as_deref().map(verdict));
    }
}

fn version(version: &Version) -> Part<'_> {
    Part::mapping(version_fields(version))
}

fn version_fields(version: &Version) -> [(&'static str, Part<'_>); 2] {
    [
        ("revision", version.revision.as_str().into()),
        ("summary", (&version.summary).into()),
    ]
}

fn candidate(candidate: &Candidate) -> Part<'_> {
    let mut fields = vec![
        ("revision", candidate.revision.as_str().into()),
        ("yields", candidate.yields.as_str().into()),
        ("summary", (&candidate.summary).into()),
    ];
    match &candidate.content {
        CandidateContent::Template { images, patch } => {
            fields.push(("images", texts(images)));
            fields.extend(patch.as_ref().map(|patch| ("patch", patch.into())));
        }
        CandidateContent::Labels(labels) => fields.push(("labels", texts(labels))),
    }
    if candidate.older_than_stable {
        fields.push(("olderThanStable", true.into()));
    }
    Part::mapping(fields)
}

fn texts(texts: &BTreeMap<String, String>) -> Part<'_> {
    let entries = texts.iter();
    Part::mapping(entries.map(|(key, text)| (key.as_str(), text.into())))
}

fn verdict(note: &VerdictNote) -> Part<'_> {
    let mut fields = vec![
        ("verdict", note.verdict.as_str().into()),
        ("sentence", (&note.sentence).into()),
        ("at", time(note.at).into()),
    ];
    if !note.numbers.is_empty() {
        let numbers = note.numbers.iter();
        let numbers = numbers.map(|(name, value)| (name.as_str(), value.into()));
        fields.push(("numbers", Part::mapping(numbers)));
    }
    if note.strikes > 0 {
        fields.push(("failedChecks", note.strikes.into()));
    }
    Part::mapping(fields)
}

fn hold(hold: &Hold) -> Part<'_> {
    let reason = match hold.reason {
        HoldReason::Adopted => "Adopted",
        HoldReason::AnalysisFailed => "AnalysisFailed",
    };
    Part::mapping([
        ("reason", reason.into()),
        ("detail", (&hold.detail).into()),
        ("at", time(hold.at).into()),
    ])
}

fn drain(cause: &DrainCause) -> &'static str {
    match cause {
        DrainCause::Promoted => "Promoted",
        DrainCause::RolledBack(_) => "RolledBack",
        DrainCause::Withdrawn => "Withdrawn",
        DrainCause::Superseded => "Superseded",
    }
}

fn failure_of(cause: &DrainCause) -> Option<&Failure> {
    match cause {
        DrainCause::RolledBack(failure) => Some(failure),
        DrainCause::Promoted | DrainCause::Withdrawn | DrainCause::Superseded => None,
    }
}

fn failure(failure: &Failure) -> Part<'_> {
    Part::mapping([
        ("candidate", failure.candidate.as_str().into()),
        ("summary", (&failure.summary).into()),
        ("at", time(failure.at).into()),
        ("reason", (&failure.reason).into()),
    ])
}

fn attribution(by: &Attribution) -> Part<'_> {
    Part::mapping([
        ("name", (&by.person.name).into()),
        ("email", (&by.person.email).into()),
        ("commit", by.commit.as_str().into()),
        ("subject", (&by.subject).into()),
        ("at", time(by.at).into()),
    ])
}

fn time(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A path or name inside a comment: a line break in it, by any version of YAML, must not end the comment.
fn one_line(text: &str) -> String {
    let is_break = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}');
    text.chars()
        .map(|c| if is_break(c) { '?' } else { c })
        .collect()
}
