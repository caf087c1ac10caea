//! Prometheus in memory: the `Metrics` port, answering from the mesh's counters as well or as badly as told.

use std::time::Duration;

use super::lifeline::CrashPoint;
use super::mesh::{Mesh, Workloads, World};
use crate::analysis::{
    Answer, AskError, CUSTOM_LABEL, Counted, Labels, Part, Purpose, Query, Series,
};
use crate::domain::{CanaryId, Timestamp, canary_deployment};
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

impl World {
    fn answer(&mut self, query: &Query) -> Answer {
        let ahead = (self.now - query.at).num_seconds();
        if ahead.abs() > query.purpose.clock_tolerance() {
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
                let asked: Vec<CanaryId> = match &query.purpose {
                    Purpose::Requests(ids) => ids.clone(),
                    Purpose::Counters(_, members) => {
                        let mut ids: Vec<_> = members.iter().map(|m| m.canary.clone()).collect();
                        ids.dedup();
                        ids
                    }
                    Purpose::Checks(id, _) => vec![id.clone()],
                    Purpose::Latency(_) | Purpose::Custom(_) | Purpose::Clock => {
                        return Answer::Series(Vec::new());
                    }
                };
                if self.mood != PrometheusMood::Nan {
                    for id in &asked {
                        let times = self.answered.entry(id.clone()).or_default();
                        times.push(self.now);
                    }
                }
                self.absurd |= self.mood == PrometheusMood::Absurd;
                let times = instants(query);
                return match &query.purpose {
                    Purpose::Counters(_, members) => self.counted(members, &times),
                    Purpose::Checks(id, _) => self.checked(id, query.range, &times),
                    _ => self.series(&asked, &times),
                };
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

    /// The workload of a version, where it is known by its name.
    fn workload(&self, id: &CanaryId, of_candidate: bool) -> Option<String> {
        match &self.services.get(id)?.workloads {
            Workloads::Managed(name, _) if of_candidate => Some(canary_deployment(name)),
            Workloads::Managed(name, _) => Some(name.clone()),
            Workloads::BringYourOwn(_) => None,
        }
    }

    /// Requests of a version until a moment, `failed` or not; `None` when the server has no such series.
    fn count(&self, id: &CanaryId, workload: &str, failed: bool, at: Timestamp) -> Option<f64> {
        let key = (id.clone(), workload.to_owned(), failed);
        self.counters.get(&key)?.at(at, self.frozen)
    }

    /// What the queries of a spec count: without latencies, and without requests that blame the client.
    fn counted(&self, members: &[Counted], times: &[Timestamp]) -> Answer {
        let series = members.iter().enumerate().filter_map(|(index, member)| {
            let workload = self.workload(&member.canary, member.of_candidate)?;
            let samples = times.iter().filter_map(|at| {
                let of = |failed| self.count(&member.canary, &workload, failed, *at);
                let value = match member.part {
                    Part::Requests => match (of(false), of(true)) {
                        (None, None) => return None,
                        (good, bad) => good.unwrap_or_default() + bad.unwrap_or_default(),
                    },
                    Part::Failures => of(true)?,
                    Part::Rejections | Part::Buckets(_) => return None,
                };
                Some((*at, self.shown(value)))
            });
            let samples: Vec<(Timestamp, f64)> = samples.collect();
            let labels = [
                ("pod", workload.as_str()),
                (CUSTOM_LABEL, &index.to_string()),
            ];
            (!samples.is_empty()).then(|| Series {
                labels: labels.into_iter().collect(),
                samples,
            })
        });
        Answer::Series(series.collect())
    }

    /// The candidate's success rate in per cent over each interval before these times.
    fn checked(
        &self,
        id: &CanaryId,
        range: Option<(Timestamp, Duration)>,
        times: &[Timestamp],
    ) -> Answer {
        let Some((workload, (_, every))) = self.workload(id, true).zip(range) else {
            return Answer::Series(Vec::new());
        };
        let every = chrono::Duration::from_std(every).unwrap_or(chrono::Duration::seconds(60));
        let samples = times.iter().filter_map(|at| {
            let gained = |failed| {
                let count = |at| self.count(id, &workload, failed, at).unwrap_or_default();
                count(*at) - count(*at - every)
            };
            let (good, bad) = (gained(false), gained(true));
            (good + bad > 0.0).then(|| (*at, self.shown(100.0 * good / (good + bad))))
        });
        let samples: Vec<(Timestamp, f64)> = samples.collect();
        let one = Series {
            labels: Labels::default(),
            samples,
        };
        Answer::Series(if one.samples.is_empty() {
            vec![]
        } else {
            vec![one]
        })
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
    // In order of their names, as Prometheus sends them.
    let all = [
        ("destination_workload", workload),
        ("destination_workload_namespace", namespace),
        ("pod", workload),
        ("reporter", "destination"),
        ("response_code", if failed { "500" } else { "200" }),
        ("response_flags", "-"),
    ];
    let mut labels = Labels::roomy();
    for (name, value) in all {
        labels.set(name, value);
    }
    Series { labels, samples }
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
