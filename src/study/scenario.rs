//! What the benchmark's rollouts are about: how often each side fails, what happens around them, and at which load.
//!
//! A scenario is data. [`core`] is the suite that the goals are about; [`idle`] and [`stress`] hold what the core suite
//! does not model. What counts as healthy is decided by the candidate's own doing, not by what users see: an incident
//! that harms both sides is no fault of the candidate.

use serde::Serialize;

/// Milliseconds of a rollout; negative before it begins.
pub type Ms = i64;

/// What a perfect judge would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Truth {
    /// The candidate is no worse than stable: promote.
    Healthy,
    /// The candidate is worse, and beyond the limit of 1 %: roll back.
    Bad,
    /// The candidate is worse, but within the limit: either can be defended, so it is reported apart.
    WithinLimit,
}

/// A time in which both sides fail alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Incident {
    /// When it begins.
    pub from: Ms,
    /// When it is over.
    pub to: Ms,
    /// Share of requests that fail because of it.
    pub share: f64,
}

/// Conditions around both sides that a scenario may add.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Condition {
    /// Failures come in bursts: every 15 s each pod draws a factor of mean 1 and coefficient of variation 1.
    Bursts,
    /// A failing request is tried again up to twice, and 80 % of the tries fail too; each try is counted.
    Retries,
    /// So many clients with loads and failing shares of their own stay on the side that their hash gives them.
    Sticky(u16),
    /// Pods come and go: every two minutes stable is scaled to 3 to 8 pods, and one candidate pod is replaced.
    Churn,
    /// One scrape in twenty is lost, and Prometheus is away for two minutes.
    Gaps,
    /// The load swings between half and one and a half of its mean within five minutes.
    Drift,
    /// One pod of each side.
    Single,
    /// One of the candidate's pods fails twice as often as the candidate's share says, the other never.
    OneBadPod,
}

/// Slow answers, a second stream beside failures: share above the limit that 1 % may exceed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slow {
    /// Stable's share.
    pub stable: f64,
    /// The candidate's share.
    pub candidate: f64,
    /// The candidate's share in its first minute, when caches are cold.
    pub cold: f64,
}

/// One kind of rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// A few words.
    pub name: &'static str,
    /// What a perfect judge would do.
    pub truth: Truth,
    /// Share of stable's requests that fail.
    pub stable: f64,
    /// Share of the candidate's requests that fail.
    pub candidate: f64,
    /// When the candidate begins to fail like that; as stable before.
    pub onset: Ms,
    /// Times in which both fail.
    pub incidents: Vec<Incident>,
    /// What else is the case.
    pub conditions: Vec<Condition>,
    /// Slow answers, where the scenario is about them.
    pub slow: Option<Slow>,
}

impl Scenario {
    fn new(name: &'static str, truth: Truth, stable: f64, candidate: f64) -> Self {
        Self {
            name,
            truth,
            stable,
            candidate,
            onset: 0,
            incidents: Vec::new(),
            conditions: Vec::new(),
            slow: None,
        }
    }

    fn healthy(name: &'static str, share: f64) -> Self {
        Self::new(name, Truth::Healthy, share, share)
    }

    fn bad(name: &'static str, stable: f64, candidate: f64) -> Self {
        Self::new(name, Truth::Bad, stable, candidate)
    }

    /// A custom one, for planning: the candidate fails like this from the start.
    pub fn of_shares(name: &'static str, stable: f64, candidate: f64, limit: f64) -> Self {
        let truth = if candidate <= stable {
            Truth::Healthy
        } else if candidate > limit {
            Truth::Bad
        } else {
            Truth::WithinLimit
        };
        Self::new(name, truth, stable, candidate)
    }

    fn with(mut self, condition: Condition) -> Self {
        self.conditions.push(condition);
        self
    }

    fn beginning(mut self, second: i64) -> Self {
        self.onset = second * 1000;
        self
    }

    fn incident(mut self, from: i64, to: i64, share: f64) -> Self {
        self.incidents.push(Incident {
            from: from * 1000,
            to: to * 1000,
            share,
        });
        self
    }

    fn slow(mut self, stable: f64, candidate: f64, cold: f64) -> Self {
        self.slow = Some(Slow {
            stable,
            candidate,
            cold,
        });
        self
    }

    /// Whether a condition holds.
    pub fn has(&self, condition: Condition) -> bool {
        self.conditions.contains(&condition)
    }

    /// Whether the SLO is broken without the candidate's doing: threshold rules do what they were told there.
    pub fn breaks_slo_by_itself(&self) -> bool {
        self.stable > LIMIT && self.truth == Truth::Healthy
    }
}

/// Share of failures that the service may have: a success rate of 99 %.
pub const LIMIT: f64 = 0.01;

/// A scenario at a load.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// The suite it belongs to.
    pub suite: Suite,
    /// What happens.
    pub scenario: Scenario,
    /// Requests a second, both sides together.
    pub rps: f64,
}

/// Groups of cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suite {
    /// The 15 scenarios of the definition, at four loads.
    Core,
    /// Services that hardly anybody calls.
    Idle,
    /// What the core suite does not model.
    Stress,
}

impl Suite {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Idle => "idle",
            Self::Stress => "stress",
        }
    }
}

fn cells(suite: Suite, scenarios: Vec<Scenario>, loads: &[f64]) -> Vec<Cell> {
    scenarios
        .into_iter()
        .flat_map(|scenario| {
            loads.iter().map(move |rps| Cell {
                suite,
                scenario: scenario.clone(),
                rps: *rps,
            })
        })
        .collect()
}

/// The suite of the goals: 8 healthy, 6 bad and 1 within the limit, at 2, 20, 200 and 1,000 requests a second.
pub fn core() -> Vec<Cell> {
    let scenarios = vec![
        Scenario::healthy("healthy 0.01%", 0.0001),
        Scenario::healthy("healthy 0.1%", 0.001),
        Scenario::healthy("healthy 0.5%", 0.005),
        Scenario::healthy("healthy 0.9%", 0.009),
        Scenario::healthy("SLO broken by both, 2%", 0.02),
        Scenario::healthy("incident 10% for 3 min, both", 0.001).incident(75, 255, 0.10),
        Scenario::healthy("bursty 0.3%", 0.003).with(Condition::Bursts),
        Scenario::new("fix 0.8 -> 0.2%", Truth::Healthy, 0.008, 0.002),
        Scenario::bad("bad 0.1 -> 2%", 0.001, 0.02),
        Scenario::bad("bad 0.1 -> 5%", 0.001, 0.05),
        Scenario::bad("bad 0.1 -> 20%", 0.001, 0.20),
        Scenario::bad("bad 0.1 -> 100%", 0.001, 1.0),
        Scenario::bad("bad 0.5 -> 1.5%", 0.005, 0.015),
        Scenario::bad("bad 0.1 -> 5% after 2 min", 0.001, 0.05).beginning(120),
        Scenario::new(
            "within the limit, 0.1 -> 0.8%",
            Truth::WithinLimit,
            0.001,
            0.008,
        ),
    ];
    cells(Suite::Core, scenarios, &[2.0, 20.0, 200.0, 1000.0])
}

/// Healthy services with next to no traffic.
pub fn idle() -> Vec<Cell> {
    cells(
        Suite::Idle,
        vec![Scenario::healthy("healthy 0.1%", 0.001)],
        &[0.02, 0.05, 0.2, 0.5],
    )
}

/// What the core suite does not model: a healthy and a bad rollout under each condition.
pub fn stress() -> Vec<Cell> {
    let pair = |names: [&'static str; 2], condition: Condition| {
        [
            Scenario::healthy(names[0], 0.003).with(condition),
            Scenario::bad(names[1], 0.003, 0.05).with(condition),
        ]
    };
    let mut all = cells(
        Suite::Stress,
        vec![
            Scenario::healthy("healthy 0.1%", 0.001),
            Scenario::bad("bad 0.1 -> 5%", 0.001, 0.05),
        ],
        &[0.02, 0.2, 5000.0],
    );
    let mut scenarios = Vec::new();
    scenarios.extend(pair(
        ["retries, healthy 0.3%", "retries, 0.3 -> 5%"],
        Condition::Retries,
    ));
    scenarios.extend(pair(
        [
            "200 sticky clients, healthy 0.3%",
            "200 sticky clients, 0.3 -> 5%",
        ],
        Condition::Sticky(200),
    ));
    scenarios.extend(pair(
        [
            "pods come and go, healthy 0.3%",
            "pods come and go, 0.3 -> 5%",
        ],
        Condition::Churn,
    ));
    scenarios.extend(pair(
        [
            "scrapes and Prometheus lost, healthy 0.3%",
            "scrapes and Prometheus lost, 0.3 -> 5%",
        ],
        Condition::Gaps,
    ));
    scenarios.extend(pair(
        ["load drifts, healthy 0.3%", "load drifts, 0.3 -> 5%"],
        Condition::Drift,
    ));
    scenarios.extend([
        Scenario::healthy("nothing fails, scrapes and Prometheus lost", 0.0).with(Condition::Gaps),
        Scenario::healthy("nothing fails, pods come and go", 0.0).with(Condition::Churn),
        Scenario::healthy("two incidents, 30% and 10%, both", 0.001)
            .incident(80, 140, 0.30)
            .incident(200, 260, 0.10),
        Scenario::healthy("incident 70% for 2 min, both", 0.001).incident(97, 217, 0.70),
        Scenario::bad("0.1 -> 5% between two incidents", 0.001, 0.05)
            .incident(80, 140, 0.30)
            .incident(200, 260, 0.10),
        Scenario::healthy("slow 0.5%, both", 0.001).slow(0.005, 0.005, 0.005),
        Scenario::healthy("slow 0.2%, candidate cold 10% for 1 min", 0.001)
            .slow(0.002, 0.002, 0.10),
        Scenario::bad("slow 0.2 -> 3%", 0.001, 0.001).slow(0.002, 0.03, 0.03),
        Scenario::healthy("single pods, healthy 0.3%", 0.003).with(Condition::Single),
        Scenario::healthy("single pods, bursty 0.3%", 0.003)
            .with(Condition::Single)
            .with(Condition::Bursts),
        Scenario::healthy("single pods, incident 30% for 2 min", 0.001)
            .with(Condition::Single)
            .incident(97, 217, 0.30),
        Scenario::bad("single pods, 0.1 -> 5%", 0.001, 0.05).with(Condition::Single),
        Scenario::bad("single pods, bursty, 0.3 -> 5%", 0.003, 0.05)
            .with(Condition::Single)
            .with(Condition::Bursts),
        Scenario::bad("one of two pods fails 10%", 0.001, 0.05).with(Condition::OneBadPod),
    ]);
    all.extend(cells(Suite::Stress, scenarios, &[20.0, 500.0]));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_suite_is_the_defined_one() {
        let core = core();
        let count = |truth| {
            core.iter()
                .filter(|cell| cell.scenario.truth == truth)
                .count()
        };
        assert_eq!(count(Truth::Healthy), 8 * 4);
        assert_eq!(count(Truth::Bad), 6 * 4);
        assert_eq!(count(Truth::WithinLimit), 4);
    }

    #[test]
    fn every_cell_has_a_name_of_its_own() {
        let mut names: Vec<String> = [core(), idle(), stress()]
            .concat()
            .iter()
            .map(|cell| format!("{:?} {} {}", cell.suite, cell.scenario.name, cell.rps))
            .collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn truth_is_about_the_candidate() {
        for cell in [core(), idle(), stress()].concat() {
            let scenario = &cell.scenario;
            let slower = scenario
                .slow
                .is_some_and(|slow| slow.candidate > slow.stable);
            let worse = scenario.candidate > scenario.stable || slower;
            assert_eq!(scenario.truth != Truth::Healthy, worse, "{}", scenario.name);
        }
        assert_eq!(
            Scenario::of_shares("x", 0.001, 0.008, LIMIT).truth,
            Truth::WithinLimit
        );
    }
}
