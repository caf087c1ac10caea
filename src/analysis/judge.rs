//! What the counts mean: a finding per metric, and a verdict over all of them.
//!
//! A **pass** rests on requests since the step was observed: enough of them that a candidate at the limit would have
//! shown, and a failing share within the limit. A **fail** does not wait for that number. It rests on the whole
//! rollout, by a test that may be looked at any number of times; the test is restarted again and again, and the
//! restarts share its level, so that an hour of health does not hide what began a minute ago. (Restarting at each step
//! instead would need the times of all steps, which a rebuild after a restart of Serin does not have.) The level is
//! also shared between the metrics of a canary: `alpha` is the chance of a false rollback of the whole rollout.

use std::time::Duration;

use super::compared::Streams;
use super::counting::{Fault, Side, Stream, Tally};
use super::custom::{self, BAD_LOOKS, Look};
use super::evidence::{
    Bound, Buckets, Counts, Evidence, Ledger, next_reading, reading_due, whole_second,
};
use super::flagger;
use super::plan::{latency_for_people, requests_for_people};
use super::text;
use super::threshold::{self, BETA, MIN_FAILURES};
use super::types::{Allows, Finding, Judgement, Target, Verdict};
use crate::domain::Timestamp;
use crate::spec::{Analysis, Metric, MetricSource, Rule};

/// A reading may be this many ticks old, plus five seconds for the look itself.
const FRESH_TICKS: u32 = 2;

/// Says what the evidence for one canary means at `now`. Total; never a pass or a fail from missing data.
pub fn judge(target: &Target, ledger: &Ledger, now: Timestamp) -> Judgement {
    if target.analysis.skip {
        return Judgement {
            verdict: Verdict::Pass,
            allows: Allows::ALL,
            compared: None,
            findings: Vec::new(),
            sentence: "the analysis is skipped, as the spec says".to_owned(),
            at: now,
            strikes: None,
            load: None,
        };
    }
    let empty = Evidence::default();
    let evidence = ledger.of(target).unwrap_or(&empty);
    if let Some(threshold) = flagger::threshold(target) {
        return flagger::judge(target, evidence, threshold, now);
    }
    let compares = target.analysis.compare && target.window.comparable;
    let metrics = &target.analysis.metrics;
    let tests = metrics.iter().filter(|metric| {
        matches!(
            metric.source,
            MetricSource::SuccessRate { .. } | MetricSource::Latency { .. }
        )
    });
    let look = Context {
        target,
        evidence,
        now,
        needed: needed_evidence(target.analysis.alpha, tests.count()),
        streams: compares.then(|| Streams::of(target, evidence, now)),
    };
    let mut findings = Vec::with_capacity(metrics.len() + 1);
    let mut allows = Allows::ALL;
    for metric in metrics {
        let (finding, allowed) = look.finding(metric);
        allows.step &= allowed.step;
        allows.promotion &= allowed.promotion;
        findings.push(finding);
    }
    findings.extend(look.unnamed_harm(&findings));
    let worst = overall(findings.iter().map(|finding| finding.verdict));
    if worst == Verdict::Fail || metrics.is_empty() {
        allows = Allows::default();
    }
    let (verdict, sentence) = if worst != Verdict::Fail && !target.window.has_traffic {
        let words = "nobody but named users is sent to the candidate on this step, so only a failure counts";
        (Verdict::Inconclusive, words.to_owned())
    } else {
        (worst, text::of_verdict(&findings, worst))
    };
    let compared = look.streams.as_ref().and_then(|streams| {
        let stream = if streams.is_harmful() {
            streams.strongest()
        } else {
            streams.all.first()
        };
        stream.map(|stream| streams.compared(stream))
    });
    Judgement {
        verdict,
        allows,
        compared,
        findings,
        sentence,
        at: now,
        strikes: None,
        load: evidence.load(),
    }
}

/// Whether a target that was judged at `before` has to be looked at again at `now`.
pub fn is_due(target: &Target, before: Timestamp, now: Timestamp) -> bool {
    let every = target.analysis.every;
    match target.analysis.rule {
        Rule::Serin => reading_due(before, every) < reading_due(now, every),
        Rule::Flagger { .. } => flagger::is_due(target, before, now),
    }
}

/// The next moment after `now` at which there is something new to judge by, on a step that was observed at `step`.
pub fn next_look(analysis: &Analysis, step: Timestamp, now: Timestamp) -> Timestamp {
    match analysis.rule {
        Rule::Serin => next_reading(now, analysis.every),
        Rule::Flagger { .. } => flagger::next_check(analysis.every, step, now),
    }
}

/// The worst verdict: Fail, Error, Inconclusive, Pass in this order. Without any metric nothing can be said.
fn overall(verdicts: impl Iterator<Item = Verdict>) -> Verdict {
    let severity = |verdict: &Verdict| match verdict {
        Verdict::Pass => 0,
        Verdict::Inconclusive => 1,
        Verdict::Error => 2,
        Verdict::Fail => 3,
    };
    verdicts
        .max_by_key(severity)
        .unwrap_or(Verdict::Inconclusive)
}

/// `ln(metrics / alpha)`: the evidence that each of several tests has to reach so that all share one level.
fn needed_evidence(alpha: f64, metrics: usize) -> f64 {
    let alpha = if alpha.is_finite() { alpha } else { 0.01 };
    ((metrics.max(1) as f64) / alpha.clamp(1e-12, 0.5)).ln()
}

/// One look at one canary.
pub(super) struct Context<'a> {
    pub(super) target: &'a Target,
    pub(super) evidence: &'a Evidence,
    pub(super) now: Timestamp,
    needed: f64,
    /// The comparison, where there is one.
    pub(super) streams: Option<Streams<'a>>,
}

/// The candidate's counts since a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Span {
    from: Timestamp,
    counts: Counts,
}

/// A counted metric as the rule sees it.
struct Counted {
    /// Highest acceptable failing share.
    limit: f64,
    /// Since the step began; `None` before the first reading.
    step: Option<Span>,
    /// Since the rollout began and since each restart, with the share of the level that each has.
    spans: Vec<(f64, Span)>,
    /// Why the last look cannot be used.
    fault: Option<String>,
    /// Whether the last reading is recent.
    fresh: bool,
}

/// What the rule says of a counted metric.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Ruling {
    /// Chance is excluded on these requests.
    Fail(Span),
    Error,
    /// Nothing was read since the step began.
    NoReading,
    /// Fewer requests than a pass needs.
    Few(Span),
    /// Enough requests, too many failures, chance not excluded.
    Beyond(Span),
    Pass(Span),
}

impl Counted {
    fn ruling(&self, least: u64, needed: f64) -> Ruling {
        if let Some(span) = self.failing(needed) {
            return Ruling::Fail(span);
        }
        if self.fault.is_some() {
            return Ruling::Error;
        }
        match self.step {
            Some(span) if self.fresh => {
                let Counts {
                    requests, failures, ..
                } = span.counts;
                if requests < least {
                    Ruling::Few(span)
                } else if failures as f64 > self.limit * requests as f64 * (1.0 + 1e-12) {
                    Ruling::Beyond(span)
                } else {
                    Ruling::Pass(span)
                }
            }
            _ => Ruling::NoReading,
        }
    }

    /// The span that shows most, if all together exclude chance.
    fn failing(&self, needed: f64) -> Option<Span> {
        let weighted = |(share, span): &(f64, Span)| {
            let Counts {
                requests, failures, ..
            } = span.counts;
            let evidence = threshold::ln_evidence(requests, failures, self.limit);
            // One or two failures never speak, however unlikely they are; lowering a part keeps the level.
            let evidence = if failures < MIN_FAILURES {
                evidence.min(0.0)
            } else {
                evidence
            };
            (share.ln() + evidence, *span)
        };
        let parts: Vec<(f64, Span)> = self.spans.iter().map(weighted).collect();
        let terms: Vec<f64> = parts.iter().map(|(term, _)| *term).collect();
        if threshold::ln_sum_exp(&terms) < needed {
            return None;
        }
        let most = parts.into_iter().max_by(|(a, _), (b, _)| a.total_cmp(b));
        most.map(|(_, span)| span)
            .filter(|span| span.counts.failures >= MIN_FAILURES)
    }
}

impl Context<'_> {
    fn finding(&self, metric: &Metric) -> (Finding, Allows) {
        let by_threshold = |finding: Finding| {
            let passed = finding.verdict == Verdict::Pass;
            let allows = if passed {
                Allows::ALL
            } else {
                Allows::default()
            };
            (finding, allows)
        };
        match &metric.source {
            MetricSource::SuccessRate { min } => match &self.streams {
                Some(streams) => self.success_beside_stable(metric, *min, streams),
                None => by_threshold(self.success_rate(metric, *min)),
            },
            MetricSource::Latency { quantile, max } => match &self.streams {
                Some(streams) => self.latency_beside_stable(metric, (*quantile, *max), streams),
                None => by_threshold(self.latency(metric, *quantile, *max)),
            },
            MetricSource::Custom { query, min, max } => {
                by_threshold(self.custom(metric, query, (*min, *max)))
            }
        }
    }

    fn counted<T: Tally>(
        &self,
        stream: &Stream<T>,
        limit: f64,
        counts: impl Fn(&T) -> Counts,
    ) -> Counted {
        let step = whole_second(self.target.window.step);
        let whole = stream.since_rollout().map(|(from, total)| {
            let counts = counts(&total.candidate);
            (0.5, Span { from, counts })
        });
        // The s-th restart has 1/(2s(s+1)) of the level: together one half, however long the rollout lasts.
        let restarts = stream.since_restarts().map(|(index, from, total)| {
            let index = f64::from(index);
            let counts = counts(&total);
            (0.5 / (index * (index + 1.0)), Span { from, counts })
        });
        Counted {
            limit,
            step: stream.since_step(step).map(|(from, total)| Span {
                from,
                counts: counts(&total.candidate),
            }),
            spans: whole.into_iter().chain(restarts).collect(),
            fault: stream.fault().map(Fault::to_string),
            fresh: stream.last().is_some_and(|last| self.is_fresh(last)),
        }
    }

    pub(super) fn is_fresh(&self, last: Timestamp) -> bool {
        let age = (self.now - last).to_std().unwrap_or_default();
        age <= self.target.analysis.every * FRESH_TICKS + Duration::from_secs(5)
    }

    fn success_rate(&self, metric: &Metric, min: f64) -> Finding {
        let limit = (1.0 - min / 100.0).clamp(0.0, 1.0);
        let least = metric
            .min_requests
            .unwrap_or_else(|| threshold::requests_needed(limit, BETA));
        let counted = self.counted(&self.evidence.requests, limit, |counts| *counts);
        let ruling = counted.ruling(least, self.needed);
        let wanted = text::percent(min);
        let seen = self.evidence.requests.has_seen(Side::Candidate);
        let sentence = match ruling {
            Ruling::Fail(Span { from, counts }) => format!(
                "{} of {} requests failed in {}, which leaves {} where at least {wanted} is wanted",
                counts.failures,
                counts.requests,
                text::length(self.since(from)),
                text::success(counts),
            ),
            Ruling::Pass(Span { counts, .. }) => format!(
                "{} of {} requests on this step succeeded, at least {wanted} is wanted",
                text::success(counts),
                counts.requests
            ),
            Ruling::Beyond(Span { counts, .. }) => format!(
                "{} of {} requests on this step succeeded, at least {wanted} is wanted, but that may still be chance",
                text::success(counts),
                counts.requests
            ),
            Ruling::Few(span) => self.few(span, least, &format!("{wanted} needs"), seen, "failed"),
            Ruling::NoReading => self.no_reading(&counted),
            Ruling::Error => counted.fault.clone().unwrap_or_default(),
        };
        let span = shown(ruling, &counted);
        let from = span.map_or(self.target.window.step, |span| span.from);
        self.assemble(
            metric,
            ruling,
            span,
            Words {
                value: span
                    .filter(|s| s.counts.requests > 0)
                    .map(|s| text::success(s.counts)),
                threshold: format!(">= {wanted}"),
                query: requests_for_people(self.target, from, self.now),
                sentence,
            },
        )
    }

    fn latency(&self, metric: &Metric, quantile: f64, max: Duration) -> Finding {
        let limit = (1.0 - quantile).clamp(0.0, 1.0);
        let least = metric
            .min_requests
            .unwrap_or_else(|| threshold::requests_needed(limit, BETA));
        let stream = &self.evidence.latency;
        let bounds = stream.common_classes();
        let wanted = Bound::of(max);
        let bound = bounds.range(..=wanted).next_back().copied();
        let counted = self.counted(stream, limit, |buckets| slower_than(buckets, bound));
        let has_seen = stream.has_seen(Side::Candidate);
        let mut ruling = counted.ruling(least, self.needed);
        let name = text::quantile(quantile);
        let threshold = format!("{name} <= {}", text::latency(wanted.0));
        let slow = match bound {
            Some(at) if at != wanted => format!(
                "slower than {} (the histogram has no bound at {})",
                text::latency(at.0),
                text::latency(wanted.0)
            ),
            _ => format!("slower than {}", text::latency(wanted.0)),
        };
        let unusable = has_seen && (bound.is_none() || !bounds.contains(&Bound::ALL));
        if unusable && ruling != Ruling::Error {
            ruling = Ruling::Error;
        }
        let share = text::percent(limit * 100.0);
        let sentence = match ruling {
            Ruling::Error => counted.fault.clone().unwrap_or_else(|| no_bound(wanted)),
            Ruling::Fail(Span { from, counts }) => format!(
                "{} of {} answers in {} were {slow}, at most {share} may be",
                counts.failures,
                counts.requests,
                text::length(self.since(from)),
            ),
            Ruling::Pass(Span { counts, .. }) => format!(
                "{} of {} answers on this step were {slow}, at most {share} may be",
                counts.failures, counts.requests
            ),
            Ruling::Beyond(Span { counts, .. }) => format!(
                "{} of {} answers on this step were {slow}, at most {share} may be, but that may still be chance",
                counts.failures, counts.requests
            ),
            Ruling::Few(span) => {
                let needs = format!("{name} needs");
                self.few(span, least, &needs, has_seen, &slow)
            }
            Ruling::NoReading => self.no_reading(&counted),
        };
        let span = shown(ruling, &counted);
        let from = span.map_or(self.target.window.step, |span| span.from);
        let value = span.and_then(|span| self.estimate(span, quantile));
        self.assemble(
            metric,
            ruling,
            span,
            Words {
                value,
                threshold,
                query: latency_for_people(self.target, quantile, from, self.now),
                sentence,
            },
        )
    }

    /// The quantile as a person would see it in a dashboard, over the requests that a span covers.
    fn estimate(&self, span: Span, quantile: f64) -> Option<String> {
        let stream = &self.evidence.latency;
        let of_step = stream
            .since_step(whole_second(self.target.window.step))
            .filter(|(from, _)| *from == span.from)
            .map(|(_, sides)| sides.candidate);
        let of_restart = || {
            let mut restarts = stream.since_restarts();
            restarts
                .find(|(_, from, _)| *from == span.from)
                .map(|(_, _, buckets)| buckets)
        };
        let of_rollout = || {
            stream
                .since_rollout()
                .map(|(_, sides)| sides.candidate.clone())
        };
        let buckets = of_step.or_else(of_restart).or_else(of_rollout)?;
        text::quantile_of(&buckets, &stream.common_classes(), quantile)
    }

    fn custom(&self, metric: &Metric, query: &str, limits: (Option<f64>, Option<f64>)) -> Finding {
        let (min, max) = limits;
        let looks = self.evidence.custom.get(&metric.name);
        let last = looks.and_then(custom::Looks::last);
        let bad = looks.map_or(0, custom::Looks::bad);
        let threshold = text::limits(min, max);
        let step = whole_second(self.target.window.step);
        let requests = self.evidence.requests.since_step(step);
        let requests = requests
            .map(|(_, sides)| sides.candidate.requests)
            .unwrap_or_default();
        let least = metric.min_requests.unwrap_or_default();
        let value = last.and_then(|(_, look)| match look {
            Look::Value(value) => Some(*value),
            Look::Nothing(_) | Look::NotOneNumber(_) | Look::Failed(_) => None,
        });
        let (verdict, sentence) = match last {
            _ if bad >= BAD_LOOKS => (
                Verdict::Fail,
                format!(
                    "{} on {bad} looks in a row, the limit is {threshold}",
                    value.map_or_else(|| "beyond the limit".to_owned(), text::number)
                ),
            ),
            None => (Verdict::Inconclusive, "not asked yet".to_owned()),
            Some((_, Look::Failed(error))) => (Verdict::Error, error.to_string()),
            Some((_, Look::NotOneNumber(many))) => (
                Verdict::Error,
                format!(
                    "the query gave {many} series where one number is wanted; aggregate them, for example with `sum`"
                ),
            ),
            Some((_, Look::Nothing(what))) => (
                Verdict::Inconclusive,
                format!("the query gave {what}, a number is wanted"),
            ),
            Some((at, Look::Value(_))) if at < step || !self.is_fresh(at) => (
                Verdict::Inconclusive,
                "not asked since this step began".to_owned(),
            ),
            Some((_, Look::Value(value))) if !custom::is_within(*value, min, max) => (
                Verdict::Inconclusive,
                format!(
                    "{} is beyond {threshold}, seen {bad} of {BAD_LOOKS} times in a row that make a failure",
                    text::number(*value)
                ),
            ),
            Some((_, Look::Value(_))) if requests < least => (
                Verdict::Inconclusive,
                format!("{requests} of {least} requests that it needs"),
            ),
            Some((_, Look::Value(value))) => (
                Verdict::Pass,
                format!("{} is within {threshold}", text::number(*value)),
            ),
        };
        Finding {
            metric: metric.name.clone(),
            verdict,
            value: value.map(text::number),
            threshold,
            samples: if least > 0 { requests } else { 0 },
            failures: 0,
            window: self.since(self.target.window.step),
            query: custom::filled(query, self.target, self.now),
            sentence,
        }
    }

    fn few(&self, span: Span, least: u64, needs: &str, seen: bool, bad: &str) -> String {
        let Counts {
            requests, failures, ..
        } = span.counts;
        if requests > 0 {
            let seconds = self.since(span.from).as_secs_f64();
            let more = least.saturating_sub(requests) as f64;
            // A float cast saturates.
            let minutes = (more * seconds / requests as f64 / 60.0).ceil() as u64;
            let rest = text::length(Duration::from_secs(minutes * 60));
            return format!(
                "{requests} of {least} requests that {needs}, {failures} {bad}; the rest takes about {rest} at this rate"
            );
        }
        let workloads = self.target.candidate.join(", ");
        let reporter = self.target.analysis.reporter.as_str();
        if seen {
            format!(
                "no request has reached the candidate on this step: 0 of {least} requests that {needs}"
            )
        } else {
            format!(
                "Prometheus knows no request to workload {workloads} in namespace {} from reporter {reporter}: 0 of {least} requests that {needs}",
                self.target.id.namespace
            )
        }
    }

    fn no_reading(&self, counted: &Counted) -> String {
        if counted.step.is_some() {
            "the last reading from Prometheus is too old".to_owned()
        } else {
            "Prometheus was not read since this step began".to_owned()
        }
    }

    pub(super) fn since(&self, from: Timestamp) -> Duration {
        (self.now - from).to_std().unwrap_or_default()
    }

    fn assemble(
        &self,
        metric: &Metric,
        ruling: Ruling,
        span: Option<Span>,
        words: Words,
    ) -> Finding {
        let from = span.map_or(self.target.window.step, |span| span.from);
        let counts = span.map(|span| span.counts).unwrap_or_default();
        Finding {
            metric: metric.name.clone(),
            verdict: match ruling {
                Ruling::Fail(_) => Verdict::Fail,
                Ruling::Error => Verdict::Error,
                Ruling::NoReading | Ruling::Few(_) | Ruling::Beyond(_) => Verdict::Inconclusive,
                Ruling::Pass(_) => Verdict::Pass,
            },
            value: words.value,
            threshold: words.threshold,
            samples: counts.requests,
            failures: counts.failures,
            window: self.since(from),
            query: words.query,
            sentence: words.sentence,
        }
    }
}

struct Words {
    value: Option<String>,
    threshold: String,
    query: String,
    sentence: String,
}

/// The counts to show: those that the ruling rests on, else what is known of the step.
fn shown(ruling: Ruling, counted: &Counted) -> Option<Span> {
    match ruling {
        Ruling::Fail(span) | Ruling::Few(span) | Ruling::Beyond(span) | Ruling::Pass(span) => {
            Some(span)
        }
        Ruling::Error | Ruling::NoReading => counted.step,
    }
}

fn slower_than(buckets: &Buckets, bound: Option<Bound>) -> Counts {
    let count = |bound: Bound| buckets.0.get(&bound).copied().unwrap_or_default();
    let requests = count(Bound::ALL);
    Counts {
        requests,
        failures: bound.map_or(0, |bound| requests.saturating_sub(count(bound))),
        rejections: 0,
    }
}

pub(super) fn no_bound(wanted: Bound) -> String {
    format!(
        "the latency histogram has no bucket bound at or shortly below {}; give the pods one with the annotation `sidecar.istio.io/statsHistogramBuckets`",
        text::latency(wanted.0)
    )
}
