//! Whose commits the decisions of a pass rest on: what to ask the history, and what it said.
//!
//! Nothing is asked for a canary that does not move, and the walk begins at the newest commit that touched its inputs,
//! which mostly is the answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::plan::Plan;
use super::situation::{Situation, Sound, attribution};
use super::view::View;
use crate::domain::{CanaryId, RepoPath, files};
use crate::ports::{Fit, ForeignCommit, Question, Touch};
use crate::progression::{Approval, Aspect, Attribution, Intervention, Phase, State};
use crate::record::authorship::{self, Contents};
use crate::spec::Workload;

/// What is known of the commits behind the present state of a canary, by aspect.
pub(super) type Authors = BTreeMap<Aspect, Option<Attribution>>;

/// What files say about that which is asked for; `None` where they cannot be read.
type Said = Box<dyn Fn(&Contents) -> Option<Value> + Send + Sync>;

/// What the plans have to know before they can be written down, with the question to the history; without one where the
/// present files say nothing.
pub(super) fn sought(view: &View, plans: &[Plan]) -> Vec<((CanaryId, Aspect), Option<Question>)> {
    let mut sought = Vec::new();
    for (situation, plan) in view.situations.iter().zip(plans) {
        let Some(sound) = situation.sound() else {
            continue;
        };
        for aspect in &plan.sought {
            let question = question(view, situation, sound, *aspect);
            sought.push(((plan.id.clone(), *aspect), question));
        }
    }
    sought
}

/// Keeps the answers.
pub(super) fn keep(
    known: &mut BTreeMap<CanaryId, Authors>,
    asked: Vec<(CanaryId, Aspect)>,
    answers: Vec<Option<ForeignCommit>>,
) {
    for ((id, aspect), answer) in asked.into_iter().zip(answers) {
        let author = answer.as_ref().map(attribution);
        known.entry(id).or_default().insert(aspect, author);
    }
}

fn question(
    view: &View,
    situation: &Situation,
    sound: &Arc<Sound>,
    aspect: Aspect,
) -> Option<Question> {
    let known = Arc::clone(sound);
    let (paths, from, until);
    let value: Said;
    if aspect == Aspect::Edit {
        let intervention = sound.intervention.clone()?;
        let names = files::ALL.iter();
        paths = names
            .filter_map(|name| sound.canary.home.folder.join(name))
            .collect();
        (from, until) = (sound.origin.folder.clone(), sound.origin.ours.clone());
        value = Box::new(move |files: &Contents| {
            authorship::edited(&known.canary, &intervention, &known.state, files)
        });
    } else {
        paths = inputs(sound, aspect);
        from = sound.origin.input.clone();
        // Whatever was rendered at our last commit is nobody's doing any more, as after an upgrade of Serin.
        until = sound
            .origin
            .ours
            .clone()
            .filter(|_| aspect == Aspect::Rendering);
        value = Box::new(move |files: &Contents| authorship::written(&known.canary, aspect, files));
    }
    let content = |path: &RepoPath| {
        let (_, content) = view.tree.get(path)?;
        Some((path.clone(), Arc::clone(content)))
    };
    let present: Contents = paths.iter().filter_map(content).collect();
    let now = value(&present);
    debug_assert!(
        now.is_some() || sound.removed,
        "{} {aspect:?}",
        situation.id
    );
    let now = now?;
    Some(Question {
        paths,
        from,
        until,
        fits: Arc::new(move |touch| fit(touch, &now, &*value)),
    })
}

/// The files that an aspect may be written in.
fn inputs(sound: &Sound, aspect: Aspect) -> Vec<RepoPath> {
    let managed = matches!(sound.canary.workload, Workload::Managed(_));
    match aspect {
        Aspect::Existence | Aspect::Abort | Aspect::Retry | Aspect::Resume | Aspect::Ladder => {
            vec![sound.canary.home.file.clone()]
        }
        Aspect::Proposal if managed => vec![sound.canary.home.file.clone()],
        Aspect::Proposal | Aspect::Stable | Aspect::Rendering | Aspect::Edit => {
            sound.canary.inputs()
        }
    }
}

/// The change that made it what it is now: the same behind it, something else on every side before it.
fn fit(touch: &Touch, now: &Value, value: &dyn Fn(&Contents) -> Option<Value>) -> Fit {
    if value(&touch.after).as_ref() != Some(now) {
        return Fit::No;
    }
    let mut fit = Fit::Yes;
    for before in &touch.before {
        match value(before) {
            Some(before) if before == *now => return Fit::No,
            Some(_) => {}
            None => fit = Fit::Perhaps,
        }
    }
    fit
}

/// The intervention as the work of whoever really did it.
pub(super) fn reattributed(
    intervention: Option<&Intervention>,
    authors: &Authors,
) -> Option<Intervention> {
    let mut intervention = intervention?.clone();
    if let Some(Some(author)) = authors.get(&Aspect::Edit) {
        author.clone_into(intervention.by_mut());
    }
    Some(intervention)
}

/// The state, with a gate that was opened by hand opened by the same person.
pub(super) fn reapproved(mut state: State, sound: &Sound, authors: &Authors) -> State {
    if let (Some(Some(author)), Some(intervention)) =
        (authors.get(&Aspect::Edit), &sound.intervention)
        && let Phase::Progressing(rollout) | Phase::Draining(rollout, _) = &mut state.phase
        && let Approval::Granted(by) = &mut rollout.approval
        && by == intervention.by()
    {
        author.clone_into(by);
    }
    state
}
