//! The bytes of `rollout.yaml` as a state, tolerant of people's formatting and strict about their mistakes.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, SubsecRound as _};
use serde_json::Value;

use super::{API_VERSION, KIND, StateFile, Unreadable};
use crate::analysis::Verdict;
use crate::domain::{CanaryId, CommitId, Person, RepoPath, Revision, Timestamp, Weight};
use crate::progression::{
    Approval, Attribution, DrainCause, Failure, Hold, HoldReason, Phase, Previous, Rejection,
    Rollout, State, VerdictNote,
};
use crate::record::fields::{Fields, Problems, nearest};
use crate::spec::{Candidate, CandidateContent, Labels, Version};
use crate::yaml::memory;
use crate::yaml::node::{Node, NodeValue};

/// Every field of the file, in the order in which it is written.
const FIELDS: [&str; 27] = [
    "apiVersion",
    "kind",
    "metadata",
    "canary",
    "sequence",
    "phase",
    "drain",
    "failure",
    "step",
    "steps",
    "weight",
    "mirror",
    "matches",
    "approval",
    "approvedBy",
    "stableReplicas",
    "started",
    "since",
    "ladder",
    "candidate",
    "held",
    "stable",
    "previous",
    "rejected",
    "retry",
    "resume",
    "lastVerdict",
];

const PHASES: [&str; 4] = ["Idle", "Progressing", "Draining", "Failed"];
const DRAINS: [&str; 4] = ["Promoted", "RolledBack", "Withdrawn", "Superseded"];
const APPROVALS: [&str; 3] = ["none", "pending", "granted"];
const HOLDS: [&str; 2] = ["Adopted", "AnalysisFailed"];
const VERDICTS: [Verdict; 4] = [
    Verdict::Pass,
    Verdict::Fail,
    Verdict::Inconclusive,
    Verdict::Error,
];

/// Reads the state of the canary `id` from the file at `path`. All mistakes at once.
pub fn read(path: &RepoPath, bytes: &[u8], id: &CanaryId) -> Result<StateFile, Unreadable> {
    let mut problems = Problems::of(path);
    let reading = memory::read(bytes);
    let parsed = &reading.parsed;
    for error in &parsed.errors {
        problems.at(error.line, error.column, error.message.clone());
    }
    let root = match parsed.documents.as_slice() {
        [document] => &document.root,
        [] => {
            if parsed.errors.is_empty() {
                problems.at(
                    1,
                    1,
                    "the file is empty: it has to hold the state of a canary",
                );
            }
            return Err(Unreadable::Invalid(problems.into_list()));
        }
        [_, second, ..] => {
            problems.add(
                second.root.span,
                "a second document: the file holds the state of one canary",
            );
            return Err(Unreadable::Invalid(problems.into_list()));
        }
    };
    if let Some(other) = owner(root).filter(|other| other != id) {
        return Err(Unreadable::Foreign(other));
    }
    let state = Fields::open(root, "rollout.yaml", &FIELDS, &mut problems)
        .and_then(|fields| state_file(&fields, &mut problems));
    match (problems.into_list(), state) {
        (problems, Some(state)) if problems.is_empty() => Ok(state),
        (problems, _) => Err(Unreadable::Invalid(problems)),
    }
}

/// The canary that the file says it belongs to.
fn owner(root: &Node) -> Option<CanaryId> {
    root.get("canary")?.as_str()?.parse().ok()
}

fn state_file(fields: &Fields<'_>, problems: &mut Problems<'_>) -> Option<StateFile> {
    fields.required("apiVersion", problems, |node| {
        word(node, &[API_VERSION], |_| ())
    });
    fields.required("kind", problems, |node| word(node, &[KIND], |_| ()));
    fields.required("canary", problems, |node| {
        let parsed: Result<CanaryId, _> = text(node)?.parse();
        parsed.map_err(|error| error.to_string())
    });
    let sequence = fields.required("sequence", problems, whole);
    let stable = fields
        .required_node("stable", problems)
        .and_then(|node| version(node, problems));
    let phase = phase(fields, problems);
    let held = fields
        .get("held")
        .map(|node| hold(node, problems))
        .unwrap_or(Some(None));
    let rejected = list(fields, "rejected", problems, rejection);
    let previous = fields
        .get("previous")
        .map(|node| previous(node, problems).map(Some))
        .unwrap_or(Some(None));
    let retry = fields.optional("retry", problems, whole);
    let resume = fields.optional("resume", problems, whole);
    let last_verdict = fields
        .get("lastVerdict")
        .map(|node| verdict(node, problems).map(Some))
        .unwrap_or(Some(None));
    let (phase, granted_by_hand) = phase?;
    Some(StateFile {
        state: State {
            sequence: sequence?,
            stable: stable?,
            phase,
            held: held?,
            rejected: rejected?,
            previous: previous?,
            retry: retry.unwrap_or_default(),
            resume: resume.unwrap_or_default(),
            last_verdict: last_verdict?.map(Arc::new),
        },
        granted_by_hand,
    })
}

/// The phase with its data, and whether its gate was opened by hand.
fn phase(fields: &Fields<'_>, problems: &mut Problems<'_>) -> Option<(Phase, bool)> {
    let name = fields.required("phase", problems, |node| {
        word(node, &PHASES, ToOwned::to_owned)
    })?;
    match name.as_str() {
        "Progressing" => {
            let (rollout, by_hand) = rollout(fields, problems)?;
            Some((Phase::Progressing(rollout), by_hand))
        }
        "Draining" => {
            let cause = drain(fields, problems);
            let (rollout, by_hand) = rollout(fields, problems)?;
            Some((Phase::Draining(rollout, cause?), by_hand))
        }
        "Failed" => {
            no_traffic(fields, &name, problems);
            let node = fields.required_node("failure", problems)?;
            failure(node, problems).map(|failure| (Phase::Failed(failure), false))
        }
        _ => {
            no_traffic(fields, &name, problems);
            Some((Phase::Idle, false))
        }
    }
}

/// A weight without a candidate is a mistake that must not pass for a wish that was heard.
fn no_traffic(fields: &Fields<'_>, phase: &str, problems: &mut Problems<'_>) {
    let weight = fields.optional("weight", problems, percent);
    if let Some(node) = fields.get("weight")
        && weight.is_some_and(|weight| weight > Weight::ZERO)
    {
        let weight = weight.unwrap_or_default().percent();
        problems.add(
            node.span,
            format!(
                "`weight` is `{weight}`, but in the phase {phase} there is no candidate to send \
                 requests to: write 0, and propose a candidate in the canary's spec"
            ),
        );
    }
}

fn rollout(fields: &Fields<'_>, problems: &mut Problems<'_>) -> Option<(Rollout, bool)> {
    let step = fields.required("step", problems, small);
    let steps = fields.optional("steps", problems, small);
    if let (Some(step), Some(steps), Some(node)) = (step, steps, fields.get("step"))
        && step > steps
    {
        problems.add(
            node.span,
            format!("`step` is `{step}`: the ladder has {steps} steps, write 0 to {steps}"),
        );
    }
    let weight = fields.required("weight", problems, percent);
    let mirror = optional(fields, "mirror", problems, percent);
    let matches = optional(fields, "matches", problems, |node| match node.to_json() {
        Value::Array(matches) => Ok(matches),
        _ => Err("write a list of Istio HTTPMatchRequests".to_owned()),
    });
    let approval = approval(fields, problems);
    let stable_replicas = optional(fields, "stableReplicas", problems, |node| {
        number(node).ok_or_else(|| "write a number of replicas, 1 or more".to_owned())
    });
    let started = fields.required("started", problems, time);
    let since = fields.required("since", problems, time);
    let ladder = fields.required("ladder", problems, revision);
    let candidate = fields
        .required_node("candidate", problems)
        .and_then(|node| candidate(node, problems));
    let (approval, by_hand) = approval?;
    let rollout = Rollout {
        candidate: Arc::new(candidate?),
        step: step?,
        weight: weight?,
        mirror: mirror?,
        matches: matches?.unwrap_or_default(),
        started: started?,
        since: since?,
        ladder: ladder?,
        approval,
        stable_replicas: stable_replicas?,
    };
    Some((rollout, by_hand))
}

/// The gate, and whether somebody opened it by hand.
fn approval(fields: &Fields<'_>, problems: &mut Problems<'_>) -> Option<(Approval, bool)> {
    let word = optional(fields, "approval", problems, |node| {
        word(node, &APPROVALS, ToOwned::to_owned)
    })?;
    match (word.as_deref(), fields.get("approvedBy")) {
        (Some("granted"), Some(node)) => {
            let by = attribution(node, problems)?;
            Some((Approval::Granted(by), false))
        }
        (Some("granted"), None) => Some((Approval::Pending, true)),
        (Some("pending"), _) => Some((Approval::Pending, false)),
        (Some(_) | None, _) => Some((Approval::NotNeeded, false)),
    }
}

fn drain(fields: &Fields<'_>, problems: &mut Problems<'_>) -> Option<DrainCause> {
    let name = fields.required("drain", problems, |node| {
        word(node, &DRAINS, ToOwned::to_owned)
    })?;
    Some(match name.as_str() {
        "Promoted" => DrainCause::Promoted,
        "Withdrawn" => DrainCause::Withdrawn,
        "Superseded" => DrainCause::Superseded,
        _ => {
            let node = fields.required_node("failure", problems)?;
            DrainCause::RolledBack(failure(node, problems)?)
        }
    })
}

fn version(node: &Node, problems: &mut Problems<'_>) -> Option<Version> {
    let fields = Fields::open(node, "stable", &["revision", "summary"], problems)?;
    version_fields(&fields, problems)
}

fn version_fields(fields: &Fields<'_>, problems: &mut Problems<'_>) -> Option<Version> {
    let revision = fields.required("revision", problems, revision);
    let summary = fields.optional("summary", problems, text);
    Some(Version {
        revision: revision?,
        summary: summary.unwrap_or_default(),
    })
}

fn previous(node: &Node, problems: &mut Problems<'_>) -> Option<Previous> {
    let known = ["revision", "summary", "until"];
    let fields = Fields::open(node, "previous", &known, problems)?;
    let version = version_fields(&fields, problems);
    let until = fields.required("until", problems, time);
    Some(Previous {
        version: version?,
        until: until?,
    })
}

fn candidate(node: &Node, problems: &mut Problems<'_>) -> Option<Candidate> {
    let known = [
        "revision",
        "yields",
        "summary",
        "images",
        "patch",
        "labels",
        "olderThanStable",
    ];
    let fields = Fields::open(node, "candidate", &known, problems)?;
    let revision_of = fields.required("revision", problems, revision);
    let yields = fields.required("yields", problems, revision);
    let summary = fields.optional("summary", problems, text);
    let images = optional(&fields, "images", problems, texts);
    let labels = optional(&fields, "labels", problems, texts);
    let patch = fields.get("patch").map(Node::to_json);
    let older = fields.optional("olderThanStable", problems, boolean);
    let content = content(&fields, images?, patch, labels?, problems);
    Some(Candidate {
        revision: revision_of?,
        yields: yields?,
        summary: summary.unwrap_or_default(),
        content: content?,
        older_than_stable: older.unwrap_or_default(),
    })
}

fn content(
    fields: &Fields<'_>,
    images: Option<BTreeMap<String, String>>,
    patch: Option<Value>,
    labels: Option<Labels>,
    problems: &mut Problems<'_>,
) -> Option<CandidateContent> {
    match (images, patch, labels) {
        (None, None, Some(labels)) => Some(CandidateContent::Labels(labels)),
        (None, None, None) => {
            problems.add(
                fields.span(),
                "`candidate` says nothing: it has to have images, patch or labels",
            );
            None
        }
        (_, _, Some(_)) => {
            problems.add(
                fields.span(),
                "`candidate` has labels as well as images or a patch: only one of them can be meant",
            );
            None
        }
        (images, patch, None) => Some(CandidateContent::Template {
            images: images.unwrap_or_default(),
            patch,
        }),
    }
}

/// `Some(None)` cannot come out of it: what is written as `held` holds, and only its absence lets go.
fn hold(node: &Node, problems: &mut Problems<'_>) -> Option<Option<Hold>> {
    if !matches!(node.value, NodeValue::Mapping(_)) {
        problems.add(
            node.span,
            "`held` is written by Serin: remove the field to let the rollout go on, and write \
             `paused: true` into the canary's spec to hold it",
        );
        return None;
    }
    let fields = Fields::open(node, "held", &["reason", "detail", "at"], problems)?;
    let reason = fields.required("reason", problems, |node| {
        word(node, &HOLDS, |name| match name {
            "Adopted" => HoldReason::Adopted,
            _ => HoldReason::AnalysisFailed,
        })
    });
    let detail = fields.optional("detail", problems, text);
    let at = fields.required("at", problems, time);
    Some(Some(Hold {
        reason: reason?,
        detail: detail.unwrap_or_default(),
        at: at?,
    }))
}

fn failure(node: &Node, problems: &mut Problems<'_>) -> Option<Failure> {
    let known = ["candidate", "summary", "at", "reason"];
    let fields = Fields::open(node, "failure", &known, problems)?;
    let candidate = fields.required("candidate", problems, revision);
    let summary = fields.optional("summary", problems, text);
    let at = fields.required("at", problems, time);
    let reason = fields.optional("reason", problems, text);
    Some(Failure {
        candidate: candidate?,
        summary: summary.unwrap_or_default(),
        at: at?,
        reason: reason.unwrap_or_default(),
    })
}

fn rejection(node: &Node, problems: &mut Problems<'_>) -> Option<Rejection> {
    let fields = Fields::open(node, "rejected", &["revision", "at", "reason"], problems)?;
    let revision = fields.required("revision", problems, revision);
    let at = fields.required("at", problems, time);
    let reason = fields.optional("reason", problems, text);
    Some(Rejection {
        revision: revision?,
        at: at?,
        reason: reason.unwrap_or_default(),
    })
}

fn verdict(node: &Node, problems: &mut Problems<'_>) -> Option<VerdictNote> {
    let known = ["verdict", "sentence", "at", "numbers", "failedChecks"];
    let fields = Fields::open(node, "lastVerdict", &known, problems)?;
    let words = VERDICTS.map(Verdict::as_str);
    let verdict = fields.required("verdict", problems, |node| {
        word(node, &words, |name| {
            VERDICTS
                .into_iter()
                .find(|verdict| verdict.as_str() == name)
        })
    });
    let sentence = fields.optional("sentence", problems, text);
    let at = fields.required("at", problems, time);
    // For people alone, so that nothing in it can be wrong.
    let numbers = node.get("numbers").map(Node::to_json);
    let strikes = fields.optional("failedChecks", problems, whole);
    Some(VerdictNote {
        verdict: verdict??,
        sentence: sentence.unwrap_or_default(),
        at: at?,
        numbers: numbers
            .and_then(|value| value.as_object().cloned())
            .unwrap_or_default(),
        strikes: strikes.map_or(0, |n| u32::try_from(n).unwrap_or(u32::MAX)),
    })
}

fn attribution(node: &Node, problems: &mut Problems<'_>) -> Option<Attribution> {
    let known = ["name", "email", "commit", "subject", "at"];
    let fields = Fields::open(node, "approvedBy", &known, problems)?;
    let name = fields.required("name", problems, text);
    let email = fields.required("email", problems, text);
    let commit = fields.required("commit", problems, text);
    let subject = fields.optional("subject", problems, text);
    let at = fields.required("at", problems, time);
    Some(Attribution {
        person: Person {
            name: name?,
            email: email?,
        },
        commit: CommitId::new(commit?),
        subject: subject.unwrap_or_default(),
        at: at?,
    })
}

/// An optional field: `None` when it is wrong, `Some(None)` when it is absent.
fn optional<T>(
    fields: &Fields<'_>,
    key: &str,
    problems: &mut Problems<'_>,
    read: impl FnOnce(&Node) -> Result<T, String>,
) -> Option<Option<T>> {
    if fields.get(key).is_none() {
        return Some(None);
    }
    fields.optional(key, problems, read).map(Some)
}

/// An optional list of blocks.
fn list<T>(
    fields: &Fields<'_>,
    key: &str,
    problems: &mut Problems<'_>,
    mut read: impl FnMut(&Node, &mut Problems<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let Some(node) = fields.get(key) else {
        return Some(Vec::new());
    };
    let NodeValue::Sequence(items) = &node.value else {
        problems.add(node.span, format!("`{key}` has to be a list"));
        return None;
    };
    items.iter().map(|item| read(item, problems)).collect()
}

fn text(node: &Node) -> Result<String, String> {
    let text = node.as_str().ok_or("write a text")?;
    Ok(text.to_owned())
}

fn texts(node: &Node) -> Result<BTreeMap<String, String>, String> {
    const EXPECTED: &str = "write a mapping from names to texts";
    let NodeValue::Mapping(entries) = &node.value else {
        return Err(EXPECTED.to_owned());
    };
    entries
        .iter()
        .map(|(key, value)| Some((key.as_str()?.to_owned(), value.as_str()?.to_owned())))
        .collect::<Option<_>>()
        .ok_or_else(|| EXPECTED.to_owned())
}

fn number<T: std::str::FromStr>(node: &Node) -> Option<T> {
    match &node.value {
        NodeValue::Scalar {
            text,
            is_string: false,
        } if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        NodeValue::Scalar { .. } | NodeValue::Sequence(_) | NodeValue::Mapping(_) => None,
    }
}

fn whole(node: &Node) -> Result<u64, String> {
    number(node).ok_or_else(|| "write a whole number from 0 on".to_owned())
}

fn small(node: &Node) -> Result<u16, String> {
    number(node).ok_or_else(|| "write the number of a step, 0 or more".to_owned())
}

fn percent(node: &Node) -> Result<Weight, String> {
    number(node)
        .and_then(Weight::new)
        .ok_or_else(|| "write a whole number from 0 to 100".to_owned())
}

fn boolean(node: &Node) -> Result<bool, String> {
    match node.to_json() {
        Value::Bool(value) => Ok(value),
        _ => Err("write true or false".to_owned()),
    }
}

fn time(node: &Node) -> Result<Timestamp, String> {
    let text = text(node)?;
    DateTime::parse_from_rfc3339(&text)
        // As it is written: a fraction that a person typed would be gone after the next step, as if somebody changed it.
        .map(|at| at.to_utc().trunc_subsecs(0))
        .map_err(|_| "write a time like 2026-01-31T12:00:00Z".to_owned())
}

fn revision(node: &Node) -> Result<Revision, String> {
    let text = text(node)?;
    let usable = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric());
    if usable {
        Ok(Revision::recorded(text))
    } else {
        Err("write the hex digits of a revision".to_owned())
    }
}

/// One of a few words.
fn word<T>(node: &Node, known: &[&str], read: impl FnOnce(&str) -> T) -> Result<T, String> {
    let found = text(node)?;
    if known.contains(&found.as_str()) {
        return Ok(read(&found));
    }
    let meant = nearest(&found, known)
        .map(|near| format!(" (did you mean `{near}`?)"))
        .unwrap_or_default();
    Err(format!("write {}{meant}", known.join(" or ")))
}
