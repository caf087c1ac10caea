//! The ladder.

use std::time::Duration;

use super::super::mistake::{Mistakes, Place};
use super::super::{Rung, duration};
use super::part;
use super::route::check_match;
use crate::crd::{Climb, RungSpec};
use crate::domain::Weight;
use crate::yaml::node::{Node, NodeValue};

/// Most steps that a ladder may have.
const MOST: usize = 1000;

/// Reads `ladder`. Weights rise; neighbours with the same weight have to differ in what else they do, because a step
/// that changes nothing is one that was meant differently.
pub(super) fn read(spec: &Node, is_http: bool, mistakes: &mut Mistakes) -> Vec<Rung> {
    let Some(ladder) = spec.get("ladder") else {
        return Vec::new();
    };
    let items = match &ladder.value {
        NodeValue::Sequence(items) => items.as_slice(),
        NodeValue::Mapping(_) | NodeValue::Scalar { .. } => std::slice::from_ref(ladder),
    };
    let mut rungs: Vec<(Rung, Place)> = Vec::new();
    for item in items {
        if item.get("weight").is_some() {
            rungs.extend(rung(item, is_http, mistakes).map(|rung| (rung, rung_place(item))));
        } else {
            rungs.extend(
                climb(item, mistakes)
                    .into_iter()
                    .map(|rung| (rung, item.into())),
            );
        }
    }
    if rungs.len() > MOST {
        mistakes.error(
            ladder,
            format!(
                "`spec.ladder` has {} steps, at most {MOST} are allowed",
                rungs.len()
            ),
        );
    }
    check_order(&rungs, mistakes);
    rungs.into_iter().map(|(rung, _)| rung).collect()
}

fn rung_place(item: &Node) -> Place {
    item.get("weight").unwrap_or(item).into()
}

fn check_order(rungs: &[(Rung, Place)], mistakes: &mut Mistakes) {
    for pair in rungs.windows(2) {
        let [(before, _), (after, place)] = pair else {
            continue;
        };
        if after.weight < before.weight {
            mistakes.error(
                *place,
                format!(
                    "the weight falls from {} to {} here: weights rise along the ladder; going back is what a \
                     rollback does",
                    before.weight.percent(),
                    after.weight.percent()
                ),
            );
        } else if after.weight == before.weight
            && after.mirror == before.mirror
            && after.matches == before.matches
            && after.approval == before.approval
        {
            mistakes.error(
                *place,
                format!(
                    "the weight {} is repeated: a step differs from the one before it in `weight`, `approval`, \
                     `mirror` or `match`; to stay longer, raise `hold`",
                    after.weight.percent()
                ),
            );
        }
    }
}

fn rung(item: &Node, is_http: bool, mistakes: &mut Mistakes) -> Option<Rung> {
    for key in ["mirror", "match"] {
        if let Some((key_node, _)) = item.entry(key).filter(|_| !is_http) {
            mistakes.error(key_node, format!("`{key}` needs an HTTP route"));
        }
    }
    if let Some(matches) = item.get("match") {
        if matches.items().is_empty() && matches.as_str().is_none() {
            mistakes.error(matches, "`match` is empty: leave it out");
        }
        for entry in matches.items() {
            check_match(entry, true, mistakes);
        }
    }
    let rung: RungSpec = part(Some(item))?;
    Some(Rung {
        weight: Weight::new(rung.weight)?,
        hold: hold(rung.hold.as_deref()),
        approval: rung.approval.is_some(),
        mirror: rung
            .mirror
            .and_then(Weight::new)
            .filter(|share| *share > Weight::ZERO),
        matches: rung.matches.unwrap_or_default(),
    })
}

fn climb(item: &Node, mistakes: &mut Mistakes) -> Vec<Rung> {
    let Some(climb) = part::<Climb>(Some(item)) else {
        return Vec::new();
    };
    if climb.from > climb.to {
        mistakes.error(
            item,
            format!(
                "`from` is {} and `to` is {}: a climb goes up",
                climb.from, climb.to
            ),
        );
        return Vec::new();
    }
    if climb.by == 0 {
        return Vec::new();
    }
    let step = usize::try_from(climb.by).unwrap_or(usize::MAX);
    // Up to the first weight that is none: the schema says what is wrong, and nobody counts to 10^18 meanwhile.
    (climb.from..climb.to)
        .step_by(step)
        .map_while(Weight::new)
        .chain(Weight::new(climb.to))
        .map(|weight| Rung {
            weight,
            hold: hold(climb.hold.as_deref()),
            approval: false,
            mirror: None,
            matches: Vec::new(),
        })
        .collect()
}

fn hold(text: Option<&str>) -> Duration {
    text.and_then(duration::read).unwrap_or_default()
}
