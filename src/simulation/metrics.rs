//! Prometheus in memory: the `Metrics` port, answering from the mesh's counters as well or as badly as told.

use std::time::Duration;

use super::lifeline::CrashPoint;
use super::mesh::{Mesh, World};
use crate::analysis::{Answer, AskError, Purpose, Query, Series};
use crate::domain::{CanaryId, Timestamp};
use crate::ports::Metrics;

/// How Prometheus answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrometheusMood {
    /// With what it counted.
    #[default]
    Up,
    /// Not at all.
    Down,
    /// With nothing.
    Empty,
    /// With NaN.
    Nan,
    /// With warnings.
    Partial,
    /// Not in time.
    Hang,
    /// With an HTTP error.
    Refused,
    /// With what it counted before its targets could no longer be scraped.
    Stale,
    /// With figures that no counter can have.
    Absurd,
}

/// Seconds that the engine's clock may differ from Prometheus' own: as the adapter for the real one has it.
const CLOCK_TOLERANCE: i64 = 30;

impl World {
    fn answer(&mut self, query: &Query) -> Answer {
        let ahead = (self.now - query.at).num_seconds();
        if ahead.abs() > CLOCK_TOLERANCE {
            self.seen.note("clock: Prometheus disagrees");
            return Answer::Failed(AskError::Clock(ahead));
        }
        self.seen.asked(self.mood);
        let failure = match self.mood {
            PrometheusMood::Down => AskError::Unreachable("connection refused".to_owned()),
            PrometheusMood::Partial => AskError::Partial("a store did not answer".to_owned()),
            PrometheusMood::Hang => AskError::Deadline(Duration::from_secs(10)),
            PrometheusMood::Refused => AskError::Refused("503 Service Unavailable".to_owned()),
            PrometheusMood::Empty => return Answer::Series(Vec::new()),
            PrometheusMood::Up
            | PrometheusMood::Nan
            | PrometheusMood::Stale
            | PrometheusMood::Absurd => {
                let Purpose::Requests(asked) = &query.purpose else {
                    return Answer::Series(Vec::new());
                };
                if self.mood != PrometheusMood::Nan {
                    for id in asked {
                        let times = self.answered.entry(id.clone()).or_default();
                        times.push(self.now);
                    }
                }
                self.absurd |= self.mood == PrometheusMood::Absurd;
                return self.series(asked, &instants(query));
            }
        };
        Answer::Failed(failure)
    }

    fn series(&self, asked: &[CanaryId], times: &[Timestamp]) -> Answer {
        let series = asked.iter().flat_map(|id| {
            let service = self.services.get(id);
            let names = service.map(|s| (s.namespace.clone(), s.names()));
            names.into_iter().flat_map(move |(namespace, names)| {
                names.into_iter().flat_map(move |workload| {
                    let namespace = namespace.clone();
                    [false, true].into_iter().filter_map(move |failed| {
                        let key = (id.clone(), workload.clone(), failed);
                        let counter = self.counters.get(&key)?;
                        let samples: Vec<(Timestamp, f64)> = times
                            .iter()
                            .filter_map(|at| Some((*at, counter.at(*at, self.frozen)?)))
                            .map(|(at, value)| (at, self.shown(value)))
                            .collect();
                        (!samples.is_empty())
                            .then(|| series(&namespace, &workload, failed, samples))
                    })
                })
            })
        });
        Answer::Series(series.collect())
    }

    fn shown(&self, value: f64) -> f64 {
        match self.mood {
            PrometheusMood::Nan => f64::NAN,
            PrometheusMood::Absurd => match self.now.timestamp() % 3 {
                0 => f64::INFINITY,
                1 => -value,
                _ => value * 1e300 * 1e9,
            },
            PrometheusMood::Up
            | PrometheusMood::Down
            | PrometheusMood::Empty
            | PrometheusMood::Partial
            | PrometheusMood::Hang
            | PrometheusMood::Refused
            | PrometheusMood::Stale => value,
        }
    }
}

/// The instants that a query asks about.
fn instants(query: &Query) -> Vec<Timestamp> {
    match query.range {
        None => vec![query.at],
        Some((start, step)) => {
            let step = chrono::Duration::from_std(step).unwrap_or(chrono::Duration::seconds(15));
            std::iter::successors(Some(start), |at| Some(*at + step))
                .take_while(|at| *at <= query.at)
                .collect()
        }
    }
}

fn series(namespace: &str, workload: &str, failed: bool, samples: Vec<(Timestamp, f64)>) -> Series {
    let labels = [
        ("destination_workload_namespace", namespace),
        ("destination_workload", workload),
        ("pod", workload),
        ("response_code", if failed { "500" } else { "200" }),
        ("response_flags", "-"),
        ("reporter", "destination"),
    ];
    Series {
        labels: labels
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        samples,
    }
}

impl Metrics for Mesh {
    async fn ask(&self, queries: &[Query]) -> Vec<Answer> {
        let killed = || Answer::Failed(AskError::Unreachable("killed".to_owned()));
        if !self.passes(CrashPoint::BeforeAsk) {
            return queries.iter().map(|_| killed()).collect();
        }
        let mut world = self.world();
        world.queries += queries.len();
        let answers = queries.iter().map(|query| world.answer(query)).collect();
        drop(world);
        self.passes(CrashPoint::AfterAsk);
        answers
    }
}
