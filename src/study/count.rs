//! What the engine would count at a tick: exact differences of counters, pod by pod.

use super::scenario::Ms;
use super::traffic::{Counters, HISTORY, Pod, Side, World};

/// Requests and how many of them counted as bad, as the judge takes them.
pub type Counted = (u64, u64);

/// Differences since the last reading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// Failures among all requests, of stable's pods.
    pub stable: Vec<Counted>,
    /// The same of the candidate's pods.
    pub candidate: Vec<Counted>,
    /// Slow answers among the successes, of stable's pods.
    pub stable_slow: Vec<Counted>,
    /// The same of the candidate's pods.
    pub candidate_slow: Vec<Counted>,
}

/// The last values read.
#[derive(Debug, Clone, Default)]
pub struct Register {
    last: Vec<Option<Counters>>,
}

impl Register {
    /// Reads all pods at `at`, which is not later than the world's present. `None` when no candidate pod was seen: the
    /// engine holds then, and nothing is counted twice or lost.
    pub fn read(&mut self, world: &World, at: Ms) -> Option<Reading> {
        let pods = world.pods();
        let seen = |pod: &Pod| pod.side == Side::Candidate && pod.instant(at).is_some();
        if at > 0 && !pods.iter().any(seen) {
            return None;
        }
        self.last.resize(pods.len(), None);
        let mut reading = Reading::default();
        for (pod, last) in pods.iter().zip(&mut self.last) {
            let Some(scrape) = pod.instant(at) else {
                continue;
            };
            // A pod that began while the engine watched counts from zero; of an old one only the value is kept.
            let watched = pod.born > -HISTORY;
            let before = last.replace(scrape.seen);
            let Some(before) = before.or(watched.then(Counters::default)) else {
                continue;
            };
            let failed = scrape.seen.failed - before.failed;
            let ok = scrape.seen.ok - before.ok;
            let slow = scrape.seen.slow - before.slow;
            let (requests, slowness) = match pod.side {
                Side::Stable => (&mut reading.stable, &mut reading.stable_slow),
                Side::Candidate => (&mut reading.candidate, &mut reading.candidate_slow),
            };
            requests.push((ok + failed, failed));
            slowness.push((ok, slow));
        }
        Some(reading)
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::super::scenario;
    use super::*;

    #[test]
    fn readings_add_up_to_what_was_scraped() {
        for cell in scenario::stress() {
            let mut world = World::new(&cell.scenario, cell.rps, Random::new(9, &[]));
            let mut register = Register::default();
            register.read(&world, 0);
            world.route(0.5);
            let (mut requests, mut failed) = (0, 0);
            for tick in 1..40 {
                world.advance(tick * 15_000);
                if let Some(reading) = register.read(&world, world.now()) {
                    requests += reading.candidate.iter().map(|(n, _)| n).sum::<u64>();
                    failed += reading.candidate.iter().map(|(_, x)| x).sum::<u64>();
                }
            }
            let toll = world.toll();
            assert!(requests <= toll.requests, "{}", cell.scenario.name);
            // All but what came after the last scrape, and what a pod took along that ended between two scrapes.
            let missing = (toll.requests - requests) as f64;
            let unseen = cell.rps * 0.5 * 60.0 + 50.0;
            assert!(missing < unseen, "{}: {missing}", cell.scenario.name);
            if cell.scenario.slow.is_none() {
                assert!(failed <= toll.failed, "{}", cell.scenario.name);
            }
        }
    }
}
