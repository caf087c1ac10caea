//! One rollout of one scenario under one rule.

use super::random::Random;
use super::rule::{Judge, Move, Rule};
use super::scenario::{Cell, Ms};
use super::traffic::World;

/// How a rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Traffic is back on stable.
    RolledBack,
    /// The candidate is stable now.
    Promoted,
    /// Nobody knows; a person has to look.
    Inconclusive,
}

/// A rollout that is over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Record {
    /// How it ended.
    pub end: End,
    /// When.
    pub at: Ms,
    /// Bad answers that are the candidate's fault until then.
    pub excess: f64,
    /// The candidate's requests until then.
    pub requests: u64,
}

/// Longest rollout; every rule ends far earlier.
const LONGEST: Ms = 2 * 3_600_000;

/// Runs a rollout. The same seed, cell and number give the same service to every rule.
pub fn run(rule: Rule, cell: &Cell, seed: u64, number: u64) -> Record {
    let random = Random::new(seed, &[name_of(cell), number]);
    let mut world = World::new(&cell.scenario, cell.rps, random);
    let mut judge = rule.begin(&world);
    drive(&mut world, judge.as_mut())
}

/// Lets a judge steer a world from the beginning of its rollout to the end.
pub fn drive(world: &mut World, judge: &mut dyn Judge) -> Record {
    loop {
        let end = match judge.look(world) {
            Move::Stay if world.now() < LONGEST => None,
            Move::Route(weight) => {
                world.route(weight);
                None
            }
            Move::RollBack => Some(End::RolledBack),
            Move::Promote => Some(End::Promoted),
            Move::Stay | Move::GiveUp => Some(End::Inconclusive),
        };
        if let Some(end) = end {
            return Record {
                end,
                at: world.now(),
                excess: world.toll().excess(),
                requests: world.toll().requests,
            };
        }
        let next = judge.next_look(world.now());
        world.advance(next);
    }
}

/// A number that depends on the cell alone (FNV-1a), so that adding cells changes no other.
pub fn name_of(cell: &Cell) -> u64 {
    let text = format!(
        "{} {} {}",
        cell.suite.as_str(),
        cell.scenario.name,
        cell.rps
    );
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::super::scenario;
    use super::*;

    fn cell(name: &str, rps: f64) -> Cell {
        scenario::core()
            .into_iter()
            .find(|cell| cell.scenario.name == name && cell.rps == rps)
            .unwrap()
    }

    #[test]
    fn a_total_failure_ends_as_each_rule_says() {
        let cell = cell("bad 0.1 -> 100%", 200.0);
        let ends: Vec<String> = Rule::ALL
            .iter()
            .map(|rule| {
                let record = run(*rule, &cell, 1, 0);
                format!("{} {:?} {}s", rule.name(), record.end, record.at / 1000)
            })
            .collect();
        insta::assert_snapshot!(ends.join("\n"), @r"
        Serin RolledBack 15s
        Flagger, threshold 1 RolledBack 120s
        Flagger, threshold 5 RolledBack 360s
        Argo docs, service-wide RolledBack 1500s
        Argo docs, canary only RolledBack 1800s
        Argo 1 min, 99% RolledBack 300s
        ");
    }

    #[test]
    fn a_perfect_candidate_is_promoted_by_all() {
        let mut perfect = cell("healthy 0.01%", 200.0);
        perfect.scenario.stable = 0.0;
        perfect.scenario.candidate = 0.0;
        for rule in Rule::ALL {
            let record = run(rule, &perfect, 1, 0);
            assert_eq!(record.end, End::Promoted, "{}", rule.name());
            assert_eq!(record.excess, 0.0);
        }
        assert_eq!(run(Rule::Serin, &perfect, 1, 0).at, 300_000);
        assert_eq!(run(Rule::Flagger1, &perfect, 1, 0).at, 300_000);
        assert_eq!(run(Rule::ArgoCanary, &perfect, 1, 0).at, 2_400_000);
    }

    #[test]
    fn the_same_number_gives_the_same_rollout() {
        let cell = cell("bad 0.1 -> 2%", 20.0);
        for rule in Rule::ALL {
            assert_eq!(run(rule, &cell, 3, 4), run(rule, &cell, 3, 4));
        }
        assert_ne!(
            run(Rule::Serin, &cell, 3, 4).excess,
            run(Rule::Serin, &cell, 3, 5).excess
        );
    }
}
