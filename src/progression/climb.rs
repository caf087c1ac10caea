//! Up the ladder: passing the gates of a step, the next rung, promotion.

use std::sync::Arc;

use super::begin::clock;
use super::decide::{Answer, Desk, with_judgement};
use super::state::{
    Approval, Aspect, Cause, Decision, DrainCause, Hold, HoldReason, Phase, Readiness, Rollout,
    State, TransitionKind, WaitingOn,
};
use super::{freeze, replicas};
use crate::analysis::{Judgement, Verdict, next_look};
use crate::domain::{Timestamp, Weight};
use crate::spec::{Candidate, CandidateContent, OnFailure, OnInconclusive, Rung};

/// A candidate is on its way: what moves it, or what it waits for.
pub(super) fn progress(desk: &Desk<'_>, mut state: State, mut rollout: Rollout) -> Answer {
    if let Some(answer) = proposal_changed(desk, &state, &rollout) {
        return answer;
    }
    if let Some(hold) = state.held.clone() {
        return held(desk, state, rollout, hold);
    }
    if rollout.ladder != desk.canary.ladder_revision {
        return reanchor(desk, state, rollout);
    }
    let judgement = desk.seen.judgement.clone();
    if let Some(judgement) = judgement
        .clone()
        .filter(|judgement| judgement.verdict == Verdict::Fail)
    {
        return failed(desk, state, rollout, judgement);
    }
    if let Some(answer) = replicas::grow(desk, &state, &rollout) {
        return answer;
    }
    match gate(desk, &rollout, judgement.as_ref()) {
        Gate::Closed { on, wake_at } => desk.wait(state, on, wake_at),
        Gate::TimedOut(reason) => desk.roll_back(
            state,
            rollout,
            Cause::Rule("deadline passed".to_owned()),
            reason,
            judgement,
        ),
        Gate::Open(rule) => {
            let before = state.clone();
            let next = usize::from(rollout.step);
            let Some(rung) = desk.canary.ladder.get(next) else {
                return promote(desk, state, &rollout, rule, judgement);
            };
            if let Some(answer) = clock(desk, &state) {
                return answer;
            }
            if let Some(observed) = desk.seen.observed
                && rollout.since == rollout.started
            {
                rollout.started = observed.max(rollout.started);
            }
            let step = rollout.step.saturating_add(1);
            let (judgement, seen) = match judgement {
                Some(judgement) if rollout.has_traffic() => {
                    let seen = format!(": {}", judgement.sentence);
                    (Some(judgement), seen)
                }
                Some(judgement) => named_users_only(judgement),
                None => (None, String::new()),
            };
            enter(&mut rollout, step, rung, desk.now);
            replicas::note(desk, &mut rollout);
            state.remember(judgement.as_ref());
            let sentence = advance_sentence(&before, &rollout, &seen);
            state.phase = Phase::Progressing(rollout);
            let (decision, after) = desk.commit(
                &before,
                state,
                TransitionKind::Advance,
                Cause::Rule(rule),
                sentence,
            );
            (with_judgement(decision, judgement), after)
        }
    }
}

/// What a step without traffic leaves behind. No verdict opened its gate, so what could not be measured is no part of
/// the story, least of all an error of Prometheus; what was seen of the named users' requests is worth reading.
fn named_users_only(mut judgement: Judgement) -> (Option<Judgement>, String) {
    judgement
        .findings
        .retain(|finding| finding.value.is_some() && finding.verdict != Verdict::Error);
    if judgement.findings.is_empty() {
        return (None, String::new());
    }
    let seen: Vec<String> = judgement
        .findings
        .iter()
        .map(|finding| {
            let value = finding.value.as_deref().unwrap_or_default();
            match finding.samples {
                0 => format!("{} {value}", finding.metric),
                samples => format!("{} {value} ({samples} requests)", finding.metric),
            }
        })
        .collect();
    let seen = format!("; with the named users alone: {}", seen.join(", "));
    (Some(judgement), seen)
}

fn advance_sentence(before: &State, rollout: &Rollout, seen: &str) -> String {
    let mirror = rollout
        .mirror
        .map(|share| format!(", a copy of {share} of the requests"))
        .unwrap_or_default();
    let matches = if rollout.matches.is_empty() {
        ""
    } else {
        ", the requests that match its step"
    };
    format!(
        "{} gets {} of the requests{mirror}{matches} after {}{seen}.",
        rollout.candidate.summary,
        rollout.weight,
        before.weight()
    )
    .replace("..", ".")
}

/// The proposal is not the one that is being rolled out: traffic to stable first.
fn proposal_changed(desk: &Desk<'_>, state: &State, rollout: &Rollout) -> Option<Answer> {
    let (why, kind, sentence) = match &desk.canary.proposal {
        None => (
            DrainCause::Withdrawn,
            TransitionKind::Withdraw,
            format!(
                "{} is no longer proposed: traffic returns to stable.",
                rollout.candidate.summary
            ),
        ),
        Some(proposal) if proposal.revision != rollout.candidate.revision => (
            DrainCause::Superseded,
            TransitionKind::Restart,
            format!(
                "{} is proposed instead of {}: traffic returns to stable, then the ladder starts anew.",
                proposal.summary, rollout.candidate.summary
            ),
        ),
        Some(_) => return None,
    };
    let cause = desk.author_or(Aspect::Proposal, "the proposal changed");
    Some(desk.drain(state.clone(), rollout.clone(), why, (kind, cause, sentence)))
}

/// Nothing moves until a person says so: by raising `resume` in the spec.
fn held(desk: &Desk<'_>, mut state: State, rollout: Rollout, hold: Hold) -> Answer {
    if desk.canary.controls.resume <= state.resume {
        return desk.wait(state, WaitingOn::Person(hold), None);
    }
    if let Some(answer) = clock(desk, &state) {
        return answer;
    }
    state.resume = desk.canary.controls.resume;
    resume(
        desk,
        state,
        rollout,
        &hold,
        desk.author_or(Aspect::Resume, "resume was raised"),
    )
}

/// The hold ends; what was counted before it does not count again.
pub(super) fn resume(
    desk: &Desk<'_>,
    mut state: State,
    mut rollout: Rollout,
    hold: &Hold,
    cause: Cause,
) -> Answer {
    let before = state.clone();
    if hold.reason == HoldReason::AnalysisFailed {
        rollout.started = desk.now;
    }
    rollout.since = desk.now;
    state.held = None;
    let sentence = format!(
        "The rollout of {} goes on from {}.",
        rollout.candidate.summary, rollout.weight
    );
    state.phase = Phase::Progressing(rollout);
    desk.commit(&before, state, TransitionKind::Resume, cause, sentence)
}

/// The ladder was edited: the weight stays, the step becomes the highest rung that does not exceed it.
fn reanchor(desk: &Desk<'_>, mut state: State, mut rollout: Rollout) -> Answer {
    let before = state.clone();
    if rollout.step > 0 {
        let step = anchor(&desk.canary.ladder, rollout.weight);
        // The gate of the step that was left does not open the one that was reached.
        if step != rollout.step {
            rollout.approval = gate_of(&desk.canary.ladder, step);
        }
        rollout.step = step;
    }
    rollout.ladder = desk.canary.ladder_revision.clone();
    let sentence = format!(
        "The ladder was edited: {} stays at {}, which is step {} of {} now.",
        rollout.candidate.summary,
        rollout.weight,
        rollout.step,
        desk.steps()
    );
    state.phase = Phase::Progressing(rollout);
    desk.commit(
        &before,
        state,
        TransitionKind::Render,
        desk.author_or(Aspect::Ladder, "the ladder was edited"),
        sentence,
    )
}

/// The highest rung (from 1) whose weight does not exceed `weight`; 0 when there is none.
pub(super) fn anchor(ladder: &[Rung], weight: Weight) -> u16 {
    let rungs = ladder
        .iter()
        .take_while(|rung| rung.weight <= weight)
        .count();
    u16::try_from(rungs).unwrap_or(u16::MAX)
}

/// The gate that entering this rung (from 1) closes.
pub(super) fn gate_of(ladder: &[Rung], step: u16) -> Approval {
    let rung = usize::from(step)
        .checked_sub(1)
        .and_then(|index| ladder.get(index));
    if rung.is_some_and(|rung| rung.approval) {
        Approval::Pending
    } else {
        Approval::NotNeeded
    }
}

/// Puts a rollout onto a rung (from 1).
pub(super) fn enter(rollout: &mut Rollout, step: u16, rung: &Rung, now: Timestamp) {
    rollout.step = step;
    rollout.weight = rung.weight;
    rollout.mirror = rung.mirror;
    rollout.matches = rung.matches.clone();
    rollout.since = now;
    rollout.approval = if rung.approval {
        Approval::Pending
    } else {
        Approval::NotNeeded
    };
}

fn failed(desk: &Desk<'_>, mut state: State, rollout: Rollout, judgement: Judgement) -> Answer {
    match desk.canary.analysis.on_failure {
        OnFailure::Rollback => {
            let reason = trimmed(&judgement.sentence);
            let cause = Cause::Rule("verdict fail, onFailure: rollback".to_owned());
            desk.roll_back(state, rollout, cause, reason, Some(judgement))
        }
        OnFailure::Hold => {
            let before = state.clone();
            state.remember(Some(&judgement));
            state.held = Some(Hold {
                reason: HoldReason::AnalysisFailed,
                detail: trimmed(&judgement.sentence),
                at: desk.now,
            });
            let sentence = format!(
                "{} stays at {}: {}.",
                rollout.candidate.summary,
                rollout.weight,
                trimmed(&judgement.sentence)
            );
            let cause = Cause::Rule("verdict fail, onFailure: hold".to_owned());
            let (decision, after) =
                desk.commit(&before, state, TransitionKind::Halt, cause, sentence);
            (with_judgement(decision, Some(judgement)), after)
        }
    }
}

fn trimmed(sentence: &str) -> String {
    sentence.trim_end_matches('.').to_owned()
}

/// The answer of a step's gates.
enum Gate {
    /// Wait.
    Closed {
        on: WaitingOn,
        wake_at: Option<Timestamp>,
    },
    /// Too long without a verdict, and the spec says to roll back.
    TimedOut(String),
    /// Go on; the rule that allows it, in words.
    Open(String),
}

impl Gate {
    fn closed(on: WaitingOn, wake_at: Option<Timestamp>) -> Self {
        Self::Closed { on, wake_at }
    }
}

fn gate(desk: &Desk<'_>, rollout: &Rollout, judgement: Option<&Judgement>) -> Gate {
    let Some(observed) = desk.seen.observed else {
        return Gate::closed(WaitingOn::Observation, None);
    };
    let deadline = desk.canary.analysis.deadline;
    let late = deadline.is_some_and(|limit| after(observed, limit) <= desk.now);
    if let Readiness::NotReady(why) | Readiness::Broken(why) = &desk.seen.candidate {
        if late {
            return Gate::TimedOut(format!(
                "the candidate did not become ready in time: {}",
                trimmed(why)
            ));
        }
        let wake_at = deadline.map(|limit| after(observed, limit));
        return Gate::closed(WaitingOn::Candidate(why.clone()), wake_at);
    }
    let rung = usize::from(rollout.step)
        .checked_sub(1)
        .and_then(|index| desk.canary.ladder.get(index));
    let hold = rung.map_or(std::time::Duration::ZERO, |rung| rung.hold);
    let until = after(observed, hold);
    if desk.now < until {
        let look = next_look(&desk.canary.analysis, observed, desk.now);
        return Gate::closed(WaitingOn::HoldTime { until }, Some(until.min(look)));
    }
    let mut rule = match (rung, hold.is_zero()) {
        (None, _) => "the candidate is ready".to_owned(),
        (Some(_), true) => "no hold".to_owned(),
        (Some(_), false) => format!("hold of {} passed", crate::spec::duration::written(hold)),
    };
    let is_last = usize::from(rollout.step) >= desk.canary.ladder.len();
    match evidence(desk, rollout, judgement, (late, is_last)) {
        Ok(Some(passed)) => rule = format!("{rule}, {passed}"),
        Ok(None) => {
            rule = format!("{rule}, no verdict needed while it has no share of the requests")
        }
        Err(gate) => return gate,
    }
    match &rollout.approval {
        Approval::NotNeeded => {}
        Approval::Pending => return Gate::closed(WaitingOn::Approval { step: rollout.step }, None),
        Approval::Granted(by) => rule = format!("{rule}, approved by {}", by.brief()),
    }
    if let Some(until) = freeze::ends(&desk.canary.controls.freeze, desk.now) {
        return Gate::closed(WaitingOn::Freeze { until }, Some(until));
    }
    Gate::Open(rule)
}

/// What the evidence allows: `Ok` with the words of the verdict, or the gate it closes.
fn evidence(
    desk: &Desk<'_>,
    rollout: &Rollout,
    judgement: Option<&Judgement>,
    (late, is_last): (bool, bool),
) -> Result<Option<String>, Gate> {
    if !rollout.has_traffic() {
        return Ok(None);
    }
    let observed = desk.seen.observed.unwrap_or(desk.now);
    let look = Some(next_look(&desk.canary.analysis, observed, desk.now));
    let Some(judgement) = judgement else {
        let sentence = "Prometheus was not asked yet".to_owned();
        let deadline = desk.canary.analysis.deadline;
        return Err(Gate::closed(
            WaitingOn::Evidence { sentence, deadline },
            look,
        ));
    };
    match (
        judgement.verdict,
        late,
        desk.canary.analysis.on_inconclusive,
    ) {
        (Verdict::Pass, _, _) if desk.canary.analysis.skip => {
            Ok(Some("analysis skipped".to_owned()))
        }
        (Verdict::Pass, _, _) if is_last && judgement.allows.promotion => {
            Ok(Some("verdict pass".to_owned()))
        }
        (Verdict::Pass, _, _) if !is_last && judgement.allows.step => {
            Ok(Some("verdict pass".to_owned()))
        }
        (Verdict::Inconclusive, _, _) if !is_last && judgement.allows.step => {
            Ok(Some("no sign of harm".to_owned()))
        }
        (Verdict::Inconclusive | Verdict::Pass, true, OnInconclusive::Promote) => Ok(Some(
            "deadline passed without a verdict, onInconclusive: promote".to_owned(),
        )),
        (Verdict::Inconclusive | Verdict::Pass, true, OnInconclusive::Rollback) => {
            Err(Gate::TimedOut(format!(
                "no verdict within the deadline: {}",
                trimmed(&judgement.sentence)
            )))
        }
        (Verdict::Error, _, _) => Err(Gate::closed(
            WaitingOn::Metrics(trimmed(&judgement.sentence)),
            look,
        )),
        (Verdict::Pass | Verdict::Inconclusive | Verdict::Fail, _, _) => Err(Gate::closed(
            WaitingOn::Evidence {
                sentence: trimmed(&judgement.missing()),
                deadline: desk.canary.analysis.deadline,
            },
            look,
        )),
    }
}

fn promote(
    desk: &Desk<'_>,
    mut state: State,
    rollout: &Rollout,
    rule: String,
    judgement: Option<Judgement>,
) -> Answer {
    let before = state.clone();
    // The state file is left alone (see `Desk::commit`), so the verdict stands in the commit only.
    state.sequence = before.sequence;
    let place = match &rollout.candidate.content {
        CandidateContent::Template { .. } => "stable's own manifest",
        CandidateContent::Labels(_) => "the canary's spec as stable",
    };
    let sentence = format!(
        "{} passed every step and is written into {place}; traffic stays where it is until stable runs it.",
        rollout.candidate.summary
    );
    let (decision, after) = desk.commit(
        &before,
        state,
        TransitionKind::Promote,
        Cause::Rule(rule),
        sentence,
    );
    (with_judgement(decision, judgement), after)
}

pub(super) fn with_candidate(decision: Decision, candidate: &Candidate) -> Decision {
    match decision {
        Decision::Commit(mut transition) => {
            transition.candidate = Some(Arc::new(candidate.clone()));
            Decision::Commit(transition)
        }
        hold @ Decision::Hold { .. } => hold,
    }
}

/// `at + wait`, saturating at the end of time.
pub(super) fn after(at: Timestamp, wait: std::time::Duration) -> Timestamp {
    chrono::Duration::from_std(wait)
        .ok()
        .and_then(|wait| at.checked_add_signed(wait))
        .unwrap_or(Timestamp::MAX_UTC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::Finding;

    fn finding(value: Option<&str>, samples: u64, verdict: Verdict) -> Finding {
        Finding {
            metric: "success-rate".to_owned(),
            verdict,
            value: value.map(str::to_owned),
            threshold: ">= 99%".to_owned(),
            samples,
            failures: 0,
            window: std::time::Duration::from_secs(60),
            query: "sum(x)".to_owned(),
            sentence: String::new(),
        }
    }

    fn left(findings: Vec<Finding>) -> (Option<usize>, String) {
        let judgement = Judgement {
            verdict: Verdict::Inconclusive,
            allows: crate::analysis::Allows::default(),
            compared: None,
            findings,
            sentence: "only a failure counts".to_owned(),
            at: Timestamp::default(),
            strikes: None,
            load: None,
        };
        let (judgement, seen) = named_users_only(judgement);
        (judgement.map(|judgement| judgement.findings.len()), seen)
    }

    #[test]
    fn a_step_without_traffic_leaves_no_error_behind() {
        let down = || finding(None, 0, Verdict::Error);
        assert_eq!(left(vec![down()]), (None, String::new()));
        assert_eq!(
            left(vec![finding(None, 0, Verdict::Inconclusive)]),
            (None, String::new())
        );
        let few = finding(Some("100%"), 60, Verdict::Inconclusive);
        insta::assert_snapshot!(left(vec![down(), few]).1, @"; with the named users alone: success-rate 100% (60 requests)");
    }
}
