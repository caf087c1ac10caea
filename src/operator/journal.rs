//! What the log says: every change once.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::applier::Notice;
use crate::applier::ledger::Repaired;
use crate::domain::CanaryId;
use crate::instruments::{Instruments, Repair};
use crate::ports::Witness;
use crate::progression::WaitingOn;
use crate::reconcile::{CanaryReport, Pass};
use crate::record::message;
use crate::spec::Diagnostic;

/// Mistakes that are told at once; `serin validate` tells all.
const MOST_MISTAKES: usize = 20;

/// Tells what happens in the cluster: in the log, and in metrics where there are any.
#[derive(Debug, Default)]
pub struct Journal {
    /// The metrics.
    pub instruments: Option<Arc<Instruments>>,
    /// Whoever shows repairs as events; what it cannot take now is only logged.
    pub repairs: Option<mpsc::Sender<Repaired>>,
}

impl Witness for Journal {
    fn note(&self, notice: &Notice) {
        match notice {
            Notice::Repaired(repaired) => {
                let drift = &repaired.drift;
                let by = drift.by.as_deref().unwrap_or("somebody");
                let was = drift.differences.join("; ");
                info!(object = %drift.object, by, was, "repaired what differed from Git");
                if let Some(instruments) = &self.instruments {
                    let what = match drift.differences.is_empty() {
                        true => Repair::Deleted,
                        false => Repair::Edited,
                    };
                    instruments.repaired(&drift.object.kind.kind, what);
                }
                if let Some(repairs) = &self.repairs {
                    repairs.try_send(repaired.clone()).ok();
                }
            }
            Notice::Drifted(drift) => {
                let by = drift.by.as_deref().unwrap_or("somebody");
                let differs = drift.differences.join("; ");
                warn!(object = %drift.object, by, differs, "differs from Git and is not repaired");
            }
            Notice::Refused { object, words } => {
                warn!(%object, "the cluster refuses an object: {words}");
            }
            Notice::Stuck { object, words } => {
                warn!(%object, "its deletion does not end: {words}");
            }
            Notice::Unreadable { source, words } => {
                warn!(file = %source, "cannot be applied: {words}");
            }
            Notice::Pruned(object) => info!(%object, "removed what Git no longer has"),
        }
    }
}

/// What was said before, so that only changes are said.
#[derive(Debug, Default)]
pub(super) struct Told {
    problem: Option<String>,
    mistakes: Vec<Diagnostic>,
    waiting: BTreeMap<CanaryId, (&'static str, String)>,
    planned: BTreeMap<CanaryId, Vec<String>>,
}

impl Told {
    /// What would be committed, when it changes; not what only waits for its turn.
    fn tell_planned(&mut self, report: &CanaryReport) {
        let planned: Vec<String> = match report.waiting {
            WaitingOn::PlanMode | WaitingOn::PushRefused(_) => {
                report.planned.iter().map(message::what).collect()
            }
            _ => Vec::new(),
        };
        let before = self.planned.get(&report.id);
        if before.map_or(&[][..], Vec::as_slice) != planned {
            for what in &planned {
                info!(canary = %report.id, "would commit: {what}");
            }
            self.planned.insert(report.id.clone(), planned);
        }
    }

    pub(super) fn tell(&mut self, pass: &Pass) {
        if pass.problem != self.problem {
            match &pass.problem {
                Some(problem) => warn!(%problem, "nothing moves"),
                None => info!("the branch can be used again"),
            }
            self.problem.clone_from(&pass.problem);
        }
        if pass.head.is_some() && pass.problem.is_none() && pass.mistakes != self.mistakes {
            for mistake in pass.mistakes.iter().take(MOST_MISTAKES) {
                warn!("cannot be read, and nothing in it counts as removed: {mistake}");
            }
            self.mistakes.clone_from(&pass.mistakes);
        }
        for (id, commit, transition) in pass.moves() {
            info!(
                canary = %id, commit = commit.short(), from = %transition.from, to = %transition.to,
                "{}", message::what(transition)
            );
        }
        for report in &pass.canaries {
            let reason = report.waiting.reason();
            // What keeps a workload from being ready is news as well, but not how many of its pods are.
            let words = match &report.waiting {
                WaitingOn::Candidate(_) | WaitingOn::Stable(_) => report.waiting.to_string(),
                _ => String::new(),
            };
            let said = (reason, words.replace(|c: char| c.is_ascii_digit(), ""));
            if self.waiting.insert(report.id.clone(), said.clone()) != Some(said) {
                info!(canary = %report.id, reason, "{}", report.waiting);
            }
            self.tell_planned(report);
            if let Some(problem) = &report.problem {
                warn!(canary = %report.id, %problem, "failed to apply");
            }
        }
    }
}
