//! A state as the bytes of `rollout.yaml`.

use chrono::SecondsFormat;
use serde_json::{Value, json};

use super::{API_VERSION, KIND};
use crate::domain::{CanaryId, RepoPath, Timestamp};
use crate::progression::{
    Approval, Attribution, DrainCause, Failure, Hold, HoldReason, Phase, Rollout, State,
};
use crate::spec::{Candidate, CandidateContent, Version};
use crate::yaml::emit;

/// The bytes of `rollout.yaml` for `state`. `steps` is the number of rungs of the ladder, `home_file` the file that
/// the `Canary` is written in. The same arguments give the same bytes; times are cut to whole seconds.
pub fn write(id: &CanaryId, state: &State, steps: u16, home_file: &RepoPath) -> Vec<u8> {
    let mut file = Writer::new(id, home_file);
    file.put("apiVersion", API_VERSION);
    file.put("kind", KIND);
    file.put(
        "metadata",
        json!({
            "name": id.name,
            "namespace": id.namespace,
            "annotations": {"config.kubernetes.io/local-config": "true"},
        }),
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
    fn put(&mut self, key: &str, value: impl Into<Value>) {
        emit::append_field(&mut self.text, key, value.into());
    }

    fn put_some(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    fn phase(&mut self, state: &State, steps: u16) {
        match &state.phase {
            Phase::Idle => {
                self.put("phase", "Idle");
                self.put("weight", 0);
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
                self.put("weight", 0);
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
            self.put("matches", rollout.matches.clone());
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
            let mut fields = version(&previous.version);
            fields["until"] = time(previous.until).into();
            fields
        });
        self.put_some("previous", previous);
        if !state.rejected.is_empty() {
            let rejected = state.rejected.iter().map(|rejection| {
                json!({
                    "revision": rejection.revision.as_str(),
                    "at": time(rejection.at),
                    "reason": rejection.reason,
                })
            });
            self.put("rejected", rejected.collect::<Vec<_>>());
        }
        self.put("retry", state.retry);
        self.put("resume", state.resume);
        let verdict = state.last_verdict.as_ref().map(|note| {
            let mut fields = json!({
                "verdict": note.verdict.as_str(),
                "sentence": note.sentence,
                "at": time(note.at),
            });
            if !note.numbers.is_empty() {
                fields["numbers"] = note.numbers.clone().into();
            }
            if note.strikes > 0 {
                fields["failedChecks"] = note.strikes.into();
            }
            fields
        });
        self.put_some("lastVerdict", verdict);
    }
}

fn version(version: &Version) -> Value {
    json!({"revision": version.revision.as_str(), "summary": version.summary})
}

fn candidate(candidate: &Candidate) -> Value {
    let mut fields = json!({
        "revision": candidate.revision.as_str(),
        "yields": candidate.yields.as_str(),
        "summary": candidate.summary,
    });
    match &candidate.content {
        CandidateContent::Template { images, patch } => {
            fields["images"] = json!(images);
            if let Some(patch) = patch {
                fields["patch"] = patch.clone();
            }
        }
        CandidateContent::Labels(labels) => fields["labels"] = json!(labels),
    }
    if candidate.older_than_stable {
        fields["olderThanStable"] = true.into();
    }
    fields
}

fn hold(hold: &Hold) -> Value {
    let reason = match hold.reason {
        HoldReason::Adopted => "Adopted",
        HoldReason::AnalysisFailed => "AnalysisFailed",
    };
    json!({"reason": reason, "detail": hold.detail, "at": time(hold.at)})
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

fn failure(failure: &Failure) -> Value {
    json!({
        "candidate": failure.candidate.as_str(),
        "summary": failure.summary,
        "at": time(failure.at),
        "reason": failure.reason,
    })
}

fn attribution(by: &Attribution) -> Value {
    json!({
        "name": by.person.name,
        "email": by.person.email,
        "commit": by.commit.as_str(),
        "subject": by.subject,
        "at": time(by.at),
    })
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
