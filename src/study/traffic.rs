//! A service under load, and what Prometheus scrapes of it.
//!
//! Requests arrive at random (Poisson) and are split over the pods of both sides; each fails with its scenario's
//! chance. Every pod is scraped each 15 s at a phase of its own. Counters are as Istio exposes them: a series appears
//! with its first count, stable's pods have a long history, a pod that ends takes its series with it.
//!
//! The definition is a simulation second by second. Here the counts between two moments at which anything changes
//! (a scrape, a weight, the scenario) are drawn at once: sums of Poisson counts are Poisson, so nothing that a rule can
//! see differs, and a rollout costs a fraction.

use super::promql::Point;
use super::random::Random;
use super::scenario::{Condition, Ms, Scenario};

/// Time between two scrapes.
pub const SCRAPE: Ms = 15_000;
/// The history before a rollout that the world begins with: 40 ticks, and one for their baseline.
pub const HISTORY: Ms = 41 * SCRAPE;
/// Past this no scenario changes any more; no rule lets a rollout last that long.
const HORIZON: Ms = 3 * 3_600_000;
/// A year: longer ago, or later, than anything here.
const EVER: Ms = 365 * 86_400_000;
/// How long an instant query takes the last sample for the present, as the engine asks: twice the scrape interval.
pub const LOOKBACK: Ms = 2 * SCRAPE;
/// Samples that are kept of a pod: five minutes and some, for the longest window that a rule looks at.
const KEPT: usize = 64;

/// Which version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What served before.
    Stable,
    /// What is proposed.
    Candidate,
}

/// The counters of a pod: requests that did not fail, failures, slow answers among the successes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Requests that did not fail.
    pub ok: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Answers above the latency limit.
    pub slow: u64,
}

/// What one scrape of a pod saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrape {
    /// When.
    pub at: Ms,
    /// What the pod had counted.
    pub seen: Counters,
}

/// One pod.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Its side.
    pub side: Side,
    /// When its proxy began to count; long ago for stable's first pods.
    pub born: Ms,
    /// When it ends.
    pub ends: Ms,
    next_scrape: Ms,
    counted: Counters,
    scrapes: Vec<Scrape>,
    /// How many times its side's failing share is this pod's.
    tilt: f64,
    burst: f64,
}

impl Pod {
    fn is_live(&self, at: Ms) -> bool {
        self.born <= at && at < self.ends
    }

    /// The newest scrape that an instant query at `at` sees.
    pub fn instant(&self, at: Ms) -> Option<Scrape> {
        // A target that is gone is marked stale at the next scrape.
        if at >= self.ends + SCRAPE {
            return None;
        }
        let newest = self.scrapes.iter().rev().find(|scrape| scrape.at <= at)?;
        (at - newest.at < LOOKBACK).then_some(*newest)
    }

    /// The samples of one series in the window that ends at `end`, left edge excluded. A series without a count so far
    /// does not exist.
    pub fn window(&self, end: Ms, range: Ms, series: fn(&Counters) -> u64) -> Vec<Point> {
        let inside = |scrape: &&Scrape| scrape.at > end - range && scrape.at <= end;
        self.scrapes
            .iter()
            .filter(inside)
            .map(|scrape| (scrape.at, series(&scrape.seen)))
            .filter(|(_, count)| *count > 0)
            .map(|(at, count)| Point {
                at,
                value: count as f64,
            })
            .collect()
    }
}

/// A client that stays on one side.
#[derive(Debug, Clone, Copy)]
struct Client {
    hash: f64,
    load: f64,
    failing: f64,
}

/// What happened to users so far.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Toll {
    /// Requests that the candidate answered.
    pub requests: u64,
    /// Those that failed, or were slow where the scenario is about that.
    pub failed: u64,
    /// What would have failed on stable.
    pub expected: f64,
}

impl Toll {
    /// Bad answers that the candidate is to blame for.
    pub fn excess(&self) -> f64 {
        self.failed as f64 - self.expected
    }
}

/// A service in a scenario at a moment.
#[derive(Debug, Clone)]
pub struct World {
    random: Random,
    scenario: Scenario,
    rps: f64,
    now: Ms,
    weight: f64,
    pods: Vec<Pod>,
    clients: Vec<Client>,
    /// Moments at which conditions change, newest last taken.
    changes: Vec<Ms>,
    outage: Option<(Ms, Ms)>,
    toll: Toll,
}

impl World {
    /// The service [`HISTORY`] before a rollout, advanced to its beginning.
    pub fn new(scenario: &Scenario, rps: f64, random: Random) -> Self {
        let mut world = Self {
            random,
            scenario: scenario.clone(),
            rps,
            now: -HISTORY - SCRAPE,
            weight: 0.0,
            pods: Vec::new(),
            clients: Vec::new(),
            changes: Vec::new(),
            outage: None,
            toll: Toll::default(),
        };
        world.populate();
        world.note_changes();
        world.advance(0);
        world
    }

    fn populate(&mut self) {
        let (stable, candidate) = if self.scenario.has(Condition::Single) {
            (1, 1)
        } else {
            (4, 2)
        };
        // A day of history; its failures are there from the start if there were any.
        let day = 86_400.0 * self.rps / stable as f64;
        for _ in 0..stable {
            let mut pod = self.pod(Side::Stable, -EVER, EVER);
            let requests = self.random.poisson(day);
            pod.counted.failed = self.random.binomial(requests, self.scenario.stable);
            pod.counted.ok = requests - pod.counted.failed;
            if let Some(slow) = self.scenario.slow {
                pod.counted.slow = self.random.binomial(pod.counted.ok, slow.stable);
            }
            self.pods.push(pod);
        }
        for index in 0..candidate {
            let mut pod = self.pod(Side::Candidate, -60_000, EVER);
            if self.scenario.has(Condition::OneBadPod) {
                pod.tilt = if index == 0 { 2.0 } else { 0.0 };
            }
            self.pods.push(pod);
        }
        for condition in self.scenario.conditions.clone() {
            match condition {
                Condition::Sticky(clients) => self.invite(clients),
                Condition::Churn => self.schedule_churn(),
                Condition::Gaps => {
                    let from = 60_000 + self.random.below(240_000) as Ms;
                    self.outage = Some((from, from + 120_000));
                }
                Condition::Bursts
                | Condition::Retries
                | Condition::Drift
                | Condition::Single
                | Condition::OneBadPod => {}
            }
        }
    }

    fn pod(&mut self, side: Side, born: Ms, ends: Ms) -> Pod {
        let phase = self.random.below(SCRAPE as u64) as Ms;
        let first = born.max(-HISTORY - SCRAPE);
        Pod {
            side,
            born,
            ends,
            next_scrape: first - first.rem_euclid(SCRAPE) + SCRAPE + phase,
            counted: Counters::default(),
            scrapes: Vec::new(),
            tilt: 1.0,
            burst: 1.0,
        }
    }

    fn invite(&mut self, clients: u16) {
        for _ in 0..clients {
            let client = Client {
                hash: self.random.unit(),
                load: self.random.exponential(),
                failing: self.random.exponential(),
            };
            self.clients.push(client);
        }
    }

    /// An autoscaler at work: stable has 3 to 8 pods, another number every two minutes; one candidate pod is replaced.
    fn schedule_churn(&mut self) {
        let mut at = -HISTORY + 60_000;
        while at < 45 * 60_000 {
            let wanted = 3 + self.random.below(6) as usize;
            let mut live: Vec<usize> = (0..self.pods.len())
                .filter(|i| {
                    self.pods
                        .get(*i)
                        .is_some_and(|pod| pod.side == Side::Stable && pod.is_live(at))
                })
                .collect();
            while live.len() > wanted {
                let index = live.remove(self.random.below(live.len() as u64) as usize);
                if let Some(pod) = self.pods.get_mut(index) {
                    pod.ends = at;
                }
            }
            for _ in live.len()..wanted {
                let pod = self.pod(Side::Stable, at, EVER);
                self.pods.push(pod);
            }
            at += 120_000;
        }
        let at = 45_000 + self.random.below(180_000) as Ms;
        if let Some(pod) = self.pods.iter_mut().find(|pod| pod.side == Side::Candidate) {
            pod.ends = at;
        }
        let pod = self.pod(Side::Candidate, at, EVER);
        self.pods.push(pod);
    }

    fn note_changes(&mut self) {
        let mut changes: Vec<Ms> = vec![self.scenario.onset, 60_000];
        for incident in &self.scenario.incidents {
            changes.extend([incident.from, incident.to]);
        }
        for pod in &self.pods {
            changes.extend([pod.born, pod.ends]);
        }
        if self.scenario.has(Condition::Bursts) || self.scenario.has(Condition::Drift) {
            let mut at = -HISTORY;
            while at < HORIZON / 2 {
                changes.push(at);
                at += SCRAPE;
            }
        }
        changes.retain(|at| *at > self.now && *at < HORIZON);
        changes.sort_unstable_by(|a, b| b.cmp(a));
        changes.dedup();
        self.changes = changes;
    }

    /// Sets the candidate's share of the traffic, from now on.
    pub fn route(&mut self, weight: f64) {
        self.weight = weight;
    }

    /// Whether Prometheus answers.
    pub fn is_reachable(&self, at: Ms) -> bool {
        !self
            .outage
            .is_some_and(|(from, to)| (from..to).contains(&at))
    }

    /// What the candidate did to users so far.
    pub fn toll(&self) -> Toll {
        self.toll
    }

    /// All pods that are or were.
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// The scenario.
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// The time.
    pub fn now(&self) -> Ms {
        self.now
    }

    /// Lets the time pass until `to`.
    pub fn advance(&mut self, to: Ms) {
        while self.now < to {
            let change = self.changes.last().copied().unwrap_or(EVER);
            let until = to.min(change);
            self.pass(until);
            if until == change {
                self.changes.pop();
                if self.scenario.has(Condition::Bursts) {
                    self.draw_bursts();
                }
            }
        }
    }

    fn draw_bursts(&mut self) {
        for pod in &mut self.pods {
            pod.burst = self.random.exponential();
        }
    }

    /// Time in which nothing but scrapes happens.
    fn pass(&mut self, until: Ms) {
        let from = self.now;
        let [stable, candidate] = [Side::Stable, Side::Candidate].map(|side| self.flow(side, from));
        let mut pods = std::mem::take(&mut self.pods);
        for pod in &mut pods {
            if !pod.is_live(from) {
                continue;
            }
            let flow = match pod.side {
                Side::Stable => stable,
                Side::Candidate => candidate,
            };
            let mut at = from;
            while at < until {
                let next = until.min(pod.next_scrape.max(at));
                self.serve(pod, flow, next - at);
                at = next;
                if at == pod.next_scrape {
                    self.scrape(pod);
                }
            }
        }
        self.pods = pods;
        self.now = until;
    }

    fn scrape(&mut self, pod: &mut Pod) {
        let at = pod.next_scrape;
        pod.next_scrape += SCRAPE;
        let lost = self.scenario.has(Condition::Gaps) && self.random.chance(0.05);
        if lost || !self.is_reachable(at) {
            return;
        }
        if pod.scrapes.len() >= 2 * KEPT {
            pod.scrapes.drain(..KEPT);
        }
        pod.scrapes.push(Scrape {
            at,
            seen: pod.counted,
        });
    }

    /// What a side gets and how it fails at a moment.
    fn flow(&self, side: Side, at: Ms) -> Flow {
        let live = self
            .pods
            .iter()
            .filter(|pod| pod.side == side && pod.is_live(at))
            .count();
        let (mut share, mut lean) = match side {
            Side::Stable => (1.0 - self.weight, 1.0),
            Side::Candidate => (self.weight, 1.0),
        };
        if !self.clients.is_empty() {
            (share, lean) = self.clientele(side);
        }
        let is_candidate = side == Side::Candidate && at >= self.scenario.onset;
        let own = if is_candidate {
            self.scenario.candidate
        } else {
            self.scenario.stable
        };
        let shared = self
            .scenario
            .incidents
            .iter()
            .filter(|incident| (incident.from..incident.to).contains(&at))
            .map(|incident| incident.share)
            .fold(0.0, f64::max);
        let slow = self.scenario.slow.map_or(0.0, |slow| match side {
            Side::Stable => slow.stable,
            Side::Candidate if at < 60_000 => slow.cold,
            Side::Candidate => slow.candidate,
        });
        let baseline = match self.scenario.slow {
            Some(slow) => slow.stable,
            None => 1.0 - (1.0 - self.scenario.stable * lean) * (1.0 - shared),
        };
        Flow {
            per_ms: self.rps * self.load(at) * share / live.max(1) as f64 / 1000.0,
            own: own * lean,
            shared,
            slow,
            baseline,
        }
    }

    /// Share of the traffic of the clients on a side, and how many times the average failing share is theirs.
    fn clientele(&self, side: Side) -> (f64, f64) {
        let (mut all, mut load, mut failing, mut weighted) = (0.0, 0.0, 0.0, 0.0);
        for client in &self.clients {
            all += client.load;
            weighted += client.load * client.failing;
            if (client.hash < self.weight) == (side == Side::Candidate) {
                load += client.load;
                failing += client.load * client.failing;
            }
        }
        if load <= 0.0 {
            return (0.0, 1.0);
        }
        (load / all, failing / load / (weighted / all))
    }

    fn load(&self, at: Ms) -> f64 {
        if self.scenario.has(Condition::Drift) {
            1.0 + 0.5 * (at as f64 / 300_000.0 * std::f64::consts::TAU).sin()
        } else {
            1.0
        }
    }

    fn serve(&mut self, pod: &mut Pod, flow: Flow, length: Ms) {
        let mut requests = self.random.poisson(flow.per_ms * length as f64);
        if requests == 0 {
            return;
        }
        let own = (flow.own * pod.tilt * pod.burst).min(1.0);
        let share = 1.0 - (1.0 - own) * (1.0 - flow.shared);
        let mut failed = self.random.binomial(requests, share);
        if self.scenario.has(Condition::Retries) {
            let again = self.random.binomial(failed, 0.8);
            let third = self.random.binomial(again, 0.8);
            // Each failing try is tried again, twice at most.
            requests += failed + again;
            failed += again + third;
        }
        let slow = self.random.binomial(requests - failed, flow.slow);
        pod.counted.ok += requests - failed;
        pod.counted.failed += failed;
        pod.counted.slow += slow;
        if pod.side == Side::Candidate {
            self.toll.requests += requests;
            self.toll.failed += if self.scenario.slow.is_some() {
                slow
            } else {
                failed
            };
            self.toll.expected += requests as f64 * flow.baseline;
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Flow {
    per_ms: f64,
    own: f64,
    shared: f64,
    slow: f64,
    baseline: f64,
}

#[cfg(test)]
mod tests;
