//! Judging by comparison: what the streams of a canary say together, and what each metric's finding is made of.
//!
//! A rollback needs the evidence of all streams together, one level for all. A metric passes when the candidate is
//! safe by it: within its limit, or without twice stable's odds. In between a step may end when nothing speaks
//! against the candidate, since a weight that rises on time exposes few where there are few requests.

use std::time::Duration;

use super::comparison::policy::{LEANING, SHARES};
use super::comparison::safety::{self, BETA, Safe};
use super::comparison::{Comparison, Pod, combined, routing};
use super::evidence::{Evidence, whole_second};
use super::text;
use super::threshold;
use super::types::{Allows, Compared, Target};
use super::watch::Watch;
use crate::domain::Timestamp;
use crate::spec::{Metric, MetricSource};

/// Highest acceptable failing share where no metric names one.
const USUAL_LIMIT: f64 = 0.01;
/// A step may end without the requests that it needs after this time.
const LONGEST_STEP: Duration = Duration::from_secs(300);
/// A share of requests that is within this factor of the weight is no fault of the routing: others may call too.
const ROUTING_FACTOR: f64 = 1.5;
/// Requests are expected to follow a new weight after this time.
const SETTLE: Duration = Duration::from_secs(60);
/// How sure it has to be that somebody is beyond the limit: one in twenty.
const BEYOND: f64 = 20.0;

/// What fails, in a few words, and how it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Failures,
    Slow,
    Rejections,
}

/// One stream as the rule sees it.
pub(super) struct Stream<'a> {
    pub(super) kind: Kind,
    pub(super) name: &'a str,
    pub(super) watch: &'a Watch,
    share: f64,
    /// `ln E` after the guards.
    pub(super) evidence: f64,
    /// The same without the least number of failures, which a rollback needs and doubt does not.
    pub(super) doubt: f64,
}

/// All streams of a canary.
pub(super) struct Streams<'a> {
    target: &'a Target,
    now: Timestamp,
    step: Timestamp,
    pub(super) all: Vec<Stream<'a>>,
    pub(super) whole: f64,
    pub(super) doubt: f64,
    pub(super) needed: f64,
}

/// What a counted metric says in comparison.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Ruling {
    /// Worse, and chance is excluded.
    Harmful,
    /// Nothing was read since the step began.
    NoReading,
    /// Requests do not follow the weight; the candidate's share of them.
    Misrouted(f64),
    /// Stable itself is beyond the limit.
    StableBeyond(Pod),
    /// The candidate is beyond the limit.
    Beyond(Pod),
    /// Looks worse.
    Leaning,
    /// Nothing yet.
    Open,
    Safe(Safe),
}

/// The highest acceptable failing share of a metric.
pub(super) fn limit_of(metric: &Metric) -> Option<f64> {
    match metric.source {
        MetricSource::SuccessRate { min } => Some((1.0 - min / 100.0).clamp(0.0, 1.0)),
        MetricSource::Latency { quantile, .. } => Some((1.0 - quantile).clamp(0.0, 1.0)),
        MetricSource::Custom { .. } => None,
    }
}

impl<'a> Streams<'a> {
    pub(super) fn of(target: &'a Target, evidence: &'a Evidence, now: Timestamp) -> Self {
        let step = whole_second(target.window.step);
        let metrics = &target.analysis.metrics;
        let strictest = metrics
            .iter()
            .filter(|metric| matches!(metric.source, MetricSource::SuccessRate { .. }))
            .filter_map(limit_of)
            .fold(None, |least: Option<f64>, limit| {
                Some(least.map_or(limit, |least| least.min(limit)))
            });
        let mut all = Vec::new();
        let mut put = |kind, name: &'a str, watch: &'a Watch, share, limit: Option<f64>| {
            let floor = floor(target, limit);
            let evidence = watch.ln_evidence(step, floor, limit);
            all.push(Stream {
                kind,
                name,
                watch,
                share,
                evidence: evidence.harm,
                doubt: evidence.doubt,
            });
        };
        if let Some(watch) = &evidence.failures {
            put(Kind::Failures, "failures", watch, SHARES.0, strictest);
        }
        let latencies = evidence.slow.len().max(1) as f64;
        for (name, slow) in &evidence.slow {
            let metric = metrics.iter().find(|metric| metric.name == *name);
            let share = SHARES.1 / latencies;
            put(
                Kind::Slow,
                name,
                &slow.watch,
                share,
                metric.and_then(limit_of),
            );
        }
        if let Some(watch) = &evidence.rejections {
            put(Kind::Rejections, "client errors", watch, SHARES.2, None);
        }
        let weighted = |part: fn(&Stream<'_>) -> f64| {
            let parts: Vec<(f64, f64)> = all.iter().map(|s| (s.share, part(s))).collect();
            combined(&parts)
        };
        let alpha = target.analysis.alpha;
        let alpha = if alpha.is_finite() { alpha } else { 0.01 };
        Self {
            target,
            now,
            step,
            whole: weighted(|stream| stream.evidence),
            doubt: weighted(|stream| stream.doubt),
            all,
            needed: -alpha.clamp(1e-12, 0.5).ln(),
        }
    }

    pub(super) fn is_harmful(&self) -> bool {
        self.whole >= self.needed
    }

    /// The stream that says most.
    pub(super) fn strongest(&self) -> Option<&Stream<'a>> {
        let weight = |stream: &Stream<'_>| stream.share.ln() + stream.evidence.max(stream.doubt);
        self.all
            .iter()
            .max_by(|a, b| weight(a).total_cmp(&weight(b)))
    }

    fn elapsed(&self) -> Duration {
        (self.now - self.target.window.step)
            .to_std()
            .unwrap_or_default()
    }

    /// What a counted metric says; `recently` are the last counts of candidate and stable in its stream.
    pub(super) fn ruling(
        &self,
        stream: &Stream<'_>,
        limit: f64,
        is_read: bool,
        recently: (Pod, Pod),
    ) -> Ruling {
        if self.is_harmful()
            && self
                .strongest()
                .is_some_and(|strongest| strongest.name == stream.name)
        {
            return Ruling::Harmful;
        }
        if !is_read {
            return Ruling::NoReading;
        }
        let safe = safety::safe(stream.watch.test(), Some(limit));
        if let Some(share) = self
            .misrouted(recently)
            .filter(|_| stream.kind == Kind::Failures)
        {
            return Ruling::Misrouted(share);
        }
        let is_beyond = |(n, x): Pod| x >= 3 && threshold::ln_evidence(n, x, limit) >= BEYOND.ln();
        if is_beyond(recently.1) && safe != Some(Safe::Absolute) && !self.is_harmful() {
            return Ruling::StableBeyond(recently.1);
        }
        let is_suspect =
            stream.doubt >= LEANING.ln() || (self.doubt >= LEANING.ln() && self.blames(stream));
        if is_suspect {
            return Ruling::Leaning;
        }
        // Bursts in stable's past temper all evidence, even against a candidate that fails all the time: whatever the
        // comparison says, it gets no more traffic while it is beyond the limit.
        if is_beyond(recently.0) {
            return Ruling::Beyond(recently.0);
        }
        safe.map_or(Ruling::Open, Ruling::Safe)
    }

    /// Whether this stream says most, or stands for client errors, which have no metric of their own.
    fn blames(&self, stream: &Stream<'_>) -> bool {
        self.strongest().is_some_and(|strongest| {
            strongest.name == stream.name
                || (strongest.kind == Kind::Rejections && stream.kind == Kind::Failures)
        })
    }

    /// The share of the requests that the candidate gets, if that is not what the weight says.
    fn misrouted(&self, (candidate, stable): (Pod, Pod)) -> Option<f64> {
        let weight = f64::from(self.target.window.weight?) / 100.0;
        if !self.target.analysis.counting.routing || self.elapsed() < SETTLE {
            return None;
        }
        let share = candidate.0 as f64 / (candidate.0 + stable.0).max(1) as f64;
        if share <= weight * ROUTING_FACTOR && share * ROUTING_FACTOR >= weight {
            return None;
        }
        let evidence = routing::ln_misrouted(candidate.0, stable.0, weight);
        (evidence > routing::SUSPICIOUS.ln()).then_some(share)
    }

    /// What a ruling allows; `requests` are the candidate's on this step.
    pub(super) fn allows(&self, ruling: Ruling, requests: u64, least: u64) -> Allows {
        let exposed = requests >= least || (requests > 0 && self.elapsed() >= LONGEST_STEP);
        match ruling {
            Ruling::Safe(_) => Allows {
                step: exposed,
                promotion: true,
            },
            Ruling::Open => Allows {
                step: exposed,
                promotion: false,
            },
            Ruling::Harmful
            | Ruling::NoReading
            | Ruling::Misrouted(_)
            | Ruling::StableBeyond(_)
            | Ruling::Beyond(_)
            | Ruling::Leaning => Allows::default(),
        }
    }

    /// The numbers of one stream.
    pub(super) fn compared(&self, stream: &Stream<'_>) -> Compared {
        let test = stream.watch.test();
        let (candidate, stable) = (test.candidate(), test.stable());
        Compared {
            stream: stream.name.to_owned(),
            requests: candidate.0,
            failures: candidate.1,
            stable_requests: stable.0,
            stable_failures: stable.1,
            theta: test.theta(),
            ln_evidence: stream.evidence,
            whole: (self.whole, self.needed),
            p_value: test.p_value(),
            odds: test.lower_bound(),
            phi: test.phi(),
        }
    }

    /// The sentence of a rollback: what was seen, how sure it is, on which counts, how long after the step.
    ///
    /// Without a bound over the whole rollout it was a later start that saw the harm: then the last counts tell more.
    pub(super) fn harm(&self, stream: &Stream<'_>, recently: (Pod, Pod)) -> String {
        let test = stream.watch.test();
        let (candidate, stable) = match test.lower_bound() {
            None if recently.0.1 > 0 => recently,
            _ => (test.candidate(), test.stable()),
        };
        let words = stream.kind.words();
        let sure = text::percent((1.0 - (-self.needed).exp()) * 100.0);
        let times = times_at_least(test).map_or_else(
            || format!("{} more often than stable", words.verb),
            |times| format!("{} {times} times as often as stable at least", words.verb),
        );
        format!(
            "candidate {times} ({sure} sure), {} of {} against {} of {} {}, {} after the step",
            text::thousands(candidate.1),
            text::thousands(candidate.0),
            text::thousands(stable.1),
            text::thousands(stable.0),
            words.what,
            text::length(self.elapsed()),
        )
    }

    /// What is missing for safety, in requests and minutes.
    pub(super) fn missing(&self, stream: &Stream<'_>, limit: f64) -> String {
        let (n, x) = stream.watch.test().candidate();
        let more = safety::requests_missing(n, x, limit);
        let of_step = stream.watch.since_step(self.step);
        let (requests, _) = of_step.map_or((0, 0), |(candidate, _)| candidate);
        let seconds = self.elapsed().as_secs_f64();
        let what = stream.kind.words().what;
        let mut sentence = format!(
            "promotion needs {} more {what} without a failure",
            text::thousands(more)
        );
        if stream.kind != Kind::Failures {
            sentence = format!(
                "promotion needs {} more {what} within the limit",
                text::thousands(more)
            );
        }
        if requests > 0 && seconds >= 1.0 {
            let wait = more as f64 * seconds / requests as f64;
            // A float cast saturates.
            let minutes = (wait / 60.0).ceil() as u64;
            sentence = format!(
                "{sentence}, about {} at this rate",
                text::length(Duration::from_secs(minutes * 60))
            );
        }
        sentence
    }
}

/// The words for a kind of stream.
struct Words {
    verb: &'static str,
    what: &'static str,
}

impl Kind {
    fn words(self) -> Words {
        match self {
            Self::Failures => Words {
                verb: "fails",
                what: "requests",
            },
            Self::Slow => Words {
                verb: "is slow",
                what: "answers",
            },
            Self::Rejections => Words {
                verb: "blames the client",
                what: "requests",
            },
        }
    }
}

/// The lower bound of the odds ratio as a ratio of rates, which is what people mean by "times as often".
fn times_at_least(test: &Comparison) -> Option<String> {
    let odds = test.lower_bound()?;
    let (n, x) = test.stable();
    let rate = if n == 0 { 0.0 } else { x as f64 / n as f64 };
    let times = odds / (1.0 - rate + odds * rate);
    let tenths = (times * 10.0).floor() / 10.0;
    (tenths > 1.0).then(|| text::number(tenths))
}

fn floor(target: &Target, limit: Option<f64>) -> f64 {
    let limit = limit.unwrap_or(USUAL_LIMIT);
    let floor = target.analysis.counting.floor;
    floor.map_or(0.1 * limit, |percent| percent / 100.0)
}

/// How sure a pass is.
pub(super) fn sureness() -> String {
    text::percent((1.0 - BETA) * 100.0)
}
