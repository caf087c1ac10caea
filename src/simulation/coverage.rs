//! What really happened in simulations: every kind of fault and every way in which people steer has to occur, or a search
//! that finds nothing has proved nothing.

use std::collections::BTreeMap;
use std::fmt;

use super::lifeline::CrashPoint;
use super::metrics::PrometheusMood;
use super::remote::Commit;
use crate::domain::files;

/// What a search of some length has to meet.
pub const EVERYTHING: [&str; 55] = [
    "engine: two at once",
    "engine: overtaken",
    "engine: killed before fetch",
    "engine: killed after fetch",
    "engine: killed before observe",
    "engine: killed before ask",
    "engine: killed after ask",
    "engine: killed before push",
    "engine: killed after push",
    "engine: killed before apply",
    "engine: killed after apply",
    "clock: seconds off",
    "clock: an hour or more ahead",
    "clock: an hour or more behind",
    "clock: Prometheus disagrees",
    "remote: a push lost the race",
    "remote: away",
    "remote: a push was refused",
    "remote: the answer to an accepted push was lost",
    "remote: a push was lost",
    "prometheus: up",
    "prometheus: down",
    "prometheus: empty",
    "prometheus: NaN",
    "prometheus: partial",
    "prometheus: hangs",
    "prometheus: refuses",
    "prometheus: stale",
    "prometheus: absurd",
    "counters: reset",
    "cluster: down",
    "cluster: lagging",
    "cluster: candidate not ready",
    "cluster: namespace deleted",
    "cluster: edited by hand",
    "people: a new candidate",
    "people: another candidate in the middle of a rollout",
    "people: no candidate any more",
    "people: paused",
    "people: approved",
    "people: aborted",
    "people: another weight or step in rollout.yaml",
    "people: other weights in the VirtualService",
    "people: reverted a step",
    "people: reverted a promotion",
    "people: edited stable",
    "people: retried a rejected candidate",
    "people: resumed",
    "people: edited another rendered file",
    "people: edited the spec in the middle of a rollout",
    "people: removed the spec",
    "people: a mistake in the spec",
    "rollout: promoted",
    "rollout: rolled back for its figures",
    "rollout: versions of the user's own",
];

/// How often each of these happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<&'static str, u64>);

impl Coverage {
    /// It happened.
    pub fn note(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    /// Adds what happened elsewhere.
    pub fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    /// What never happened.
    pub fn missing(&self) -> Vec<&'static str> {
        let never = EVERYTHING.iter().filter(|what| !self.0.contains_key(*what));
        never.copied().collect()
    }

    pub(super) fn killed(&mut self, point: CrashPoint) {
        self.note(match point {
            CrashPoint::BeforeFetch => "engine: killed before fetch",
            CrashPoint::AfterFetch => "engine: killed after fetch",
            CrashPoint::BeforeObserve => "engine: killed before observe",
            CrashPoint::BeforeAsk => "engine: killed before ask",
            CrashPoint::AfterAsk => "engine: killed after ask",
            CrashPoint::BeforePush => "engine: killed before push",
            CrashPoint::AfterPush => "engine: killed after push",
            CrashPoint::BeforeApply => "engine: killed before apply",
            CrashPoint::AfterApply => "engine: killed after apply",
        });
    }

    pub(super) fn skewed(&mut self, by: chrono::Duration) {
        let hour = chrono::Duration::hours(1);
        self.note(match by {
            by if by >= hour => "clock: an hour or more ahead",
            by if by <= -hour => "clock: an hour or more behind",
            _ => "clock: seconds off",
        });
    }

    pub(super) fn asked(&mut self, mood: PrometheusMood) {
        self.note(match mood {
            PrometheusMood::Up => "prometheus: up",
            PrometheusMood::Down => "prometheus: down",
            PrometheusMood::Empty => "prometheus: empty",
            PrometheusMood::Nan => "prometheus: NaN",
            PrometheusMood::Partial => "prometheus: partial",
            PrometheusMood::Hang => "prometheus: hangs",
            PrometheusMood::Refused => "prometheus: refuses",
            PrometheusMood::Stale => "prometheus: stale",
            PrometheusMood::Absurd => "prometheus: absurd",
        });
    }

    /// What an engine said that it waits for.
    pub(super) fn waited(&mut self, reason: &str) {
        match reason {
            "Paused" => self.note("people: paused"),
            "SpecInvalid" => self.note("people: a mistake in the spec"),
            _ => {}
        }
    }

    /// What the engines' commits say.
    pub(super) fn history(&mut self, commits: &[Commit]) {
        for (index, commit) in commits.iter().enumerate() {
            let parent = index.checked_sub(1).and_then(|index| commits.get(index));
            match &commit.canary {
                Some(canary) => {
                    self.step(commit, parent);
                    if canary.ends_with("/shop") {
                        self.note("rollout: versions of the user's own");
                    }
                }
                None => self.persons(commit),
            }
        }
    }

    fn persons(&mut self, commit: &Commit) {
        let Some(reverted) = commit.subject().strip_prefix("Revert \"canary(") else {
            return;
        };
        if reverted.contains("): promote ") {
            self.note("people: reverted a promotion");
        } else if reverted.contains(" -> ") {
            self.note("people: reverted a step");
        }
    }

    fn step(&mut self, commit: &Commit, parent: Option<&Commit>) {
        let (_, what) = commit.subject().split_once("): ").unwrap_or_default();
        let by_person = commit.message.contains("\nSerin-Cause: person: ");
        let says = |text: &str| commit.message.replace('\n', " ").contains(text);
        let found = match what.split(' ').next().unwrap_or_default() {
            "start" if retries(commit, parent) => "people: retried a rejected candidate",
            "start" if by_person => "people: a new candidate",
            "restart" => "people: another candidate in the middle of a rollout",
            "withdraw" => "people: no candidate any more",
            "approve" => "people: approved",
            "roll" if by_person => "people: aborted",
            "roll" if says("Serin-Verdict: fail") => "rollout: rolled back for its figures",
            "adopt" if parent.is_some_and(|parent| touched(parent, files::VIRTUAL_SERVICE)) => {
                "people: other weights in the VirtualService"
            }
            "adopt" => "people: another weight or step in rollout.yaml",
            "follow" => "people: edited stable",
            "resume" => "people: resumed",
            "render" if says("edited what Serin generates") => {
                "people: edited another rendered file"
            }
            "render" => "people: edited the spec in the middle of a rollout",
            "remove" => "people: removed the spec",
            "promote" => "rollout: promoted",
            _ => return,
        };
        self.note(found);
    }
}

fn touched(commit: &Commit, file: &str) -> bool {
    commit.touched.iter().any(|path| path.file_name() == file)
}

/// Whether the candidate that starts was rejected in the state before.
fn retries(commit: &Commit, parent: Option<&Commit>) -> bool {
    let mut lines = commit.message.lines();
    let candidate = lines.find_map(|line| line.strip_prefix("Serin-Candidate: "));
    let Some((_, revision)) = candidate.and_then(|text| text.rsplit_once(' ')) else {
        return false;
    };
    let mut states = commit.touched.iter().filter_map(|path| {
        let is_state = path.file_name() == files::ROLLOUT;
        parent?.tree.get(path).filter(|_| is_state)
    });
    states.any(|file| {
        let text = super::text_of(&file.content);
        let rejected = text.split_once("\nrejected:").map(|(_, behind)| behind);
        rejected.is_some_and(|behind| behind.contains(revision))
    })
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for what in EVERYTHING {
            let count = self.0.get(what).copied().unwrap_or_default();
            let mark = if count == 0 { "  <- never" } else { "" };
            writeln!(f, "  {count:>9}  {what}{mark}")?;
        }
        Ok(())
    }
}
