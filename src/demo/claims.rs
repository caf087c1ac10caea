//! What the demo claims, checked: against every request that was counted, and against the log of the repository alone.

use std::collections::BTreeMap;

use super::frame::{Claim, versions};
use super::mesh::Tally;
use super::stage::{APP, CANARY, DemoError, FAULT, NAMED, Stage, Step};
use super::story::Outage;
use crate::domain::{CanaryId, RepoPath};
use crate::git::{Local, LogEntry};
use crate::ports::Watch;
use crate::progression::TransitionKind;

const NEW: &str = "6.9.0";
/// Per cent by which counted shares may differ from weights.
const TOLERANCE: f64 = 3.0;

/// All claims, in the order of the story.
pub(super) fn check(stage: &Stage, outage: Outage) -> Result<Vec<Claim>, DemoError> {
    let log = log(stage)?;
    let mut claims = vec![
        named_user(&stage.steps),
        ladder(&stage.steps),
        restored(&stage.steps, outage),
        rolled_back(&stage.steps),
    ];
    claims.push(stable_manifest(stage)?);
    claims.push(recorded(stage, &log));
    Ok(claims)
}

fn claim(holds: bool, sentence: String) -> Claim {
    Claim { sentence, holds }
}

/// How many of the requests were answered by this version, and how many there were.
fn of(counts: &BTreeMap<Option<String>, u64>, version: &str) -> (u64, u64) {
    let got = counts.get(&Some(version.to_owned())).copied();
    (got.unwrap_or_default(), counts.values().sum())
}

fn everybody_else(tally: &Tally, version: &str) -> (u64, u64) {
    of(&versions(tally, |user| user != NAMED), version)
}

fn herself(tally: &Tally, version: &str) -> (u64, u64) {
    of(&versions(tally, |user| user == NAMED), version)
}

/// The steps of the first rollout or of the second.
fn rollout<'a>(steps: &'a [Step], version: &'a str) -> impl Iterator<Item = &'a Step> {
    steps.iter().filter(move |step| {
        let candidate = step.transition.candidate.as_ref();
        candidate.is_some_and(|candidate| candidate.summary.ends_with(version))
    })
}

fn named_user(steps: &[Step]) -> Claim {
    let start = rollout(steps, NEW).find(|step| step.transition.kind == TransitionKind::Start);
    let (hers, theirs) = start.map_or(((0, 0), (0, 0)), |step| {
        (herself(&step.tally, NEW), everybody_else(&step.tally, NEW))
    });
    claim(
        hers.0 > 0 && hers.0 == hers.1 && theirs.0 == 0 && theirs.1 > 0,
        format!(
            "At weight 0 {NAMED} got {NEW} on {} of her {} requests, everybody else on {} of {}.",
            hers.0, hers.1, theirs.0, theirs.1
        ),
    )
}

fn ladder(steps: &[Step]) -> Claim {
    let advances: Vec<&Step> = rollout(steps, NEW)
        .filter(|step| step.transition.kind == TransitionKind::Advance)
        .collect();
    let weights: Vec<u8> = advances
        .iter()
        .map(|step| step.transition.to.percent())
        .collect();
    let shares: Vec<f64> = advances
        .iter()
        .map(|step| {
            let mut counts = versions(&step.tally, |user| user != NAMED);
            counts.remove(&None);
            let (got, all) = of(&counts, NEW);
            100.0 * got as f64 / all.max(1) as f64
        })
        .collect();
    let close = weights
        .iter()
        .zip(&shares)
        .all(|(weight, share)| (f64::from(*weight) - share).abs() <= TOLERANCE);
    let shown: Vec<String> = shares.iter().map(|share| format!("{share:.1}%")).collect();
    claim(
        weights == [10, 60, 100] && close,
        format!(
            "At {}% it was {} of everybody else's requests.",
            weights
                .iter()
                .map(u8::to_string)
                .collect::<Vec<_>>()
                .join("%, "),
            shown.join(", ")
        ),
    )
}

fn restored(steps: &[Step], outage: Outage) -> Claim {
    let seconds = (outage.until - outage.from).num_seconds();
    let next = steps.iter().find(|step| step.at >= outage.from);
    let soaked = next.map_or(0, |step| (step.at - outage.until).num_seconds());
    let lost: u64 = steps
        .iter()
        .filter_map(|step| versions(&step.tally, |_| true).get(&None).copied())
        .sum();
    claim(
        outage.routed == 60.0 && lost > 0 && soaked >= 60,
        format!(
            "The deleted namespace was back after {seconds} s ({lost} requests lost) at {}%, Git's weight; the next \
             step waited for a new minute of evidence.",
            outage.routed
        ),
    )
}

fn rolled_back(steps: &[Step]) -> Claim {
    let bad = FAULT.version;
    let back = rollout(steps, bad).find(|step| step.transition.kind == TransitionKind::RollBack);
    let before = back.and_then(|back| {
        let index = steps.iter().position(|step| step.commit == back.commit)?;
        steps.get(index.checked_sub(1)?)
    });
    let seconds = before
        .zip(back)
        .map_or(0, |(before, back)| (back.at - before.at).num_seconds());
    let from = back.map_or(0, |back| back.transition.from.percent());
    let after: u64 = back.map_or(1, |back| everybody_else(&back.tally, bad).0);
    let failed = back.and_then(|back| back.transition.judgement.as_ref());
    let failures = failed.map_or(0, |judgement| {
        judgement
            .findings
            .iter()
            .map(|finding| finding.failures)
            .max()
            .unwrap_or_default()
    });
    claim(
        from == 10 && after == 0 && failures > 0,
        format!(
            "{bad} was taken back {seconds} s after it got {from}%, on {failures} failed requests; after that everybody \
             else got it on {after} requests."
        ),
    )
}

fn stable_manifest(stage: &Stage) -> Result<Claim, DemoError> {
    let snapshot = Local::open(&stage.repository, None)?.snapshot(None)?;
    let present = RepoPath::new(APP.0).and_then(|path| snapshot.files.get(&path).cloned());
    let wanted = APP.1.replace("podinfo:6.8.0", &format!("podinfo:{NEW}"));
    let holds = present.is_some_and(|(_, content)| *content == *wanted.as_bytes());
    Ok(claim(
        holds,
        format!(
            "{} says {NEW}: one word of it changed, the comments stayed.",
            APP.0
        ),
    ))
}

/// Everything that happened is in the log, and nothing else.
fn recorded(stage: &Stage, log: &[LogEntry]) -> Claim {
    let told: Vec<(&str, &str)> = stage
        .commits
        .iter()
        .rev()
        .map(|commit| (commit.id.as_str(), commit.subject.as_str()))
        .collect();
    let found: Vec<(&str, &str)> = log
        .iter()
        .map(|entry| (entry.id.short(), entry.subject.as_str()))
        .collect();
    let ours: Vec<&LogEntry> = log
        .iter()
        .filter(|entry| !entry.canaries.is_empty())
        .collect();
    let has = |entry: &LogEntry, key: &str| entry.trailers.iter().any(|(found, _)| found == key);
    let complete = ours.iter().all(|entry| {
        ["Serin-Cause", "Serin-Weight", "Serin-Step"]
            .iter()
            .all(|key| has(entry, key))
    });
    claim(
        told == found && complete && ours.len() == stage.steps.len(),
        format!(
            "All of it is in Git: {} commits by people, {} by Serin, one for each step.",
            log.len() - ours.len(),
            ours.len()
        ),
    )
}

fn log(stage: &Stage) -> Result<Vec<LogEntry>, DemoError> {
    let bad_path = || DemoError::Off("no path to look for".to_owned());
    let inputs = [APP.0, CANARY.0]
        .into_iter()
        .map(RepoPath::new)
        .collect::<Option<Vec<_>>>()
        .ok_or_else(bad_path)?;
    let folder = inputs
        .first()
        .and_then(|path| path.sibling("podinfo.serin"))
        .ok_or_else(bad_path)?;
    let watch = Watch {
        canary: CanaryId::new("test", "podinfo"),
        folder,
        inputs,
    };
    Ok(Local::open(&stage.repository, None)?.log(&watch, usize::MAX)?)
}
