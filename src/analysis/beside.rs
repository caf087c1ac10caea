//! Findings of metrics that are judged beside stable: the words and counts of what `compared` says.

use std::time::Duration;

use super::compared::{self, Kind, Ruling, Stream, Streams};
use super::comparison::Pod;
use super::comparison::safety::Safe;
use super::counting::{self, Fault, Side, Sides, Tally};
use super::evidence::{Bound, Buckets, Counts, whole_second};
use super::judge::{Context, no_bound};
use super::plan::{latency_for_people, requests_for_people};
use super::text;
use super::types::{Allows, Finding, Verdict};
use crate::spec::Metric;

/// What a metric has besides its counts.
struct Frame<'a> {
    metric: &'a Metric,
    limit: f64,
    /// `>= 99%`, `p99 <= 500ms`.
    threshold: String,
    /// What counts against the candidate: `failed`, `slower than 500ms`.
    bad: String,
    /// PromQL for people.
    query: String,
    /// Why the last look cannot be used.
    fault: Option<String>,
    /// Why nothing was read, if so.
    unread: Option<String>,
    recently: (Pod, Pod),
}

impl Context<'_> {
    pub(super) fn success_beside_stable(
        &self,
        metric: &Metric,
        min: f64,
        streams: &Streams<'_>,
    ) -> (Finding, Allows) {
        let stream = &self.evidence.requests;
        let pods = |sides: Sides<Counts>| (pod_of(sides.candidate), pod_of(sides.stable));
        let frame = Frame {
            metric,
            limit: compared::limit_of(metric).unwrap_or_default(),
            threshold: format!(">= {}", text::percent(min)),
            bad: "failed".to_owned(),
            query: requests_for_people(self.target, self.target.window.step, self.now),
            fault: stream.fault().map(Fault::to_string),
            unread: self.unread(stream),
            recently: stream
                .recently()
                .map_or(((0, 0), (0, 0)), |(_, sides)| pods(sides)),
        };
        let own = streams.all.iter().find(|s| s.kind == Kind::Failures);
        self.beside(frame, own, streams)
    }

    pub(super) fn latency_beside_stable(
        &self,
        metric: &Metric,
        (quantile, max): (f64, Duration),
        streams: &Streams<'_>,
    ) -> (Finding, Allows) {
        let stream = &self.evidence.latency;
        let wanted = Bound::of(max);
        let bound = self.evidence.slow.get(&metric.name).map(|slow| slow.bound);
        let name = text::quantile(quantile);
        let bad = match bound {
            Some(at) if at != wanted => format!(
                "slower than {} (the histogram has no bound at {})",
                text::latency(at.0),
                text::latency(wanted.0)
            ),
            _ => format!("slower than {}", text::latency(wanted.0)),
        };
        let pods = |buckets: &Buckets| bound.and_then(|bound| buckets.slower_than(bound));
        let pods = |buckets: &Buckets| pods(buckets).unwrap_or_default();
        let lacks_bound = bound.is_none() && stream.has_seen(Side::Candidate);
        let frame = Frame {
            metric,
            limit: compared::limit_of(metric).unwrap_or_default(),
            threshold: format!("{name} <= {}", text::latency(wanted.0)),
            bad,
            query: latency_for_people(self.target, quantile, self.target.window.step, self.now),
            fault: stream
                .fault()
                .map(Fault::to_string)
                .or_else(|| lacks_bound.then(|| no_bound(wanted))),
            unread: self.unread(stream),
            recently: stream.recently().map_or(((0, 0), (0, 0)), |(_, sides)| {
                (pods(&sides.candidate), pods(&sides.stable))
            }),
        };
        let own = streams.all.iter().find(|s| s.name == metric.name);
        self.beside(frame, own, streams)
    }

    /// Why the stream says nothing about this step at this moment, if so.
    fn unread<T: Tally>(&self, stream: &counting::Stream<T>) -> Option<String> {
        let step = whole_second(self.target.window.step);
        if !stream.last().is_some_and(|last| self.is_fresh(last)) {
            return Some(if stream.last().is_some_and(|last| last >= step) {
                "the last reading from Prometheus is too old".to_owned()
            } else {
                "Prometheus was not read since this step began".to_owned()
            });
        }
        let silent = stream.candidate_seen().filter(|at| !self.is_fresh(*at));
        silent.map(|at| {
            format!(
                "no pod of the candidate has reported since {}: the counts are stale",
                at.format("%H:%M:%S UTC")
            )
        })
    }

    fn beside(
        &self,
        frame: Frame<'_>,
        stream: Option<&Stream<'_>>,
        streams: &Streams<'_>,
    ) -> (Finding, Allows) {
        let step = whole_second(self.target.window.step);
        let since = stream.and_then(|stream| stream.watch.since_step(step));
        let is_read = frame.fault.is_none() && frame.unread.is_none() && since.is_some();
        let ruling = stream.map_or(Ruling::NoReading, |stream| {
            streams.ruling(stream, frame.limit, is_read, frame.recently)
        });
        let of_step = since.map_or((0, 0), |(candidate, _)| candidate);
        let least = frame
            .metric
            .min_requests
            .unwrap_or(self.target.analysis.counting.step_requests);
        let allows = streams.allows(ruling, of_step.0, least);
        let whole = stream.map_or((0, 0), |stream| stream.watch.test().candidate());
        let verdict = match ruling {
            Ruling::Harmful => Verdict::Fail,
            _ if frame.fault.is_some() => Verdict::Error,
            Ruling::Safe(_) => Verdict::Pass,
            Ruling::NoReading
            | Ruling::Misrouted(_)
            | Ruling::StableBeyond(_)
            | Ruling::Beyond(_)
            | Ruling::Leaning
            | Ruling::Open => Verdict::Inconclusive,
        };
        let sentence = match (stream, &frame.fault) {
            (Some(stream), None) => {
                let words = self.said(&frame, stream, ruling, streams);
                match ruling {
                    Ruling::Safe(_) | Ruling::Open if !allows.step => {
                        let seen = self.few_on_step(of_step.0, least);
                        if whole.0 == 0 {
                            seen
                        } else {
                            format!("{words}; {seen}")
                        }
                    }
                    _ => words,
                }
            }
            (Some(stream), Some(_)) if ruling == Ruling::Harmful => {
                streams.harm(stream, frame.recently)
            }
            (_, Some(fault)) => fault.clone(),
            (None, None) => frame
                .unread
                .clone()
                .unwrap_or_else(|| self.few_on_step(0, least)),
        };
        let share = |pod: Pod| {
            text::success(Counts {
                requests: pod.0,
                failures: pod.1,
                rejections: 0,
            })
        };
        let shown = if ruling == Ruling::Harmful || of_step.0 == 0 {
            whole
        } else {
            of_step
        };
        let from = if shown == whole && whole != of_step {
            self.target.window.rollout
        } else {
            self.target.window.step
        };
        let finding = Finding {
            metric: frame.metric.name.clone(),
            verdict,
            value: (shown.0 > 0).then(|| share(shown)),
            threshold: frame.threshold,
            samples: shown.0,
            failures: shown.1,
            window: self.since(from),
            query: frame.query,
            sentence,
        };
        (finding, allows)
    }

    fn said(
        &self,
        frame: &Frame<'_>,
        stream: &Stream<'_>,
        ruling: Ruling,
        streams: &Streams<'_>,
    ) -> String {
        let test = stream.watch.test();
        let (candidate, stable) = (test.candidate(), test.stable());
        let counts = format!(
            "{} of {} {} against {} of {}",
            text::thousands(candidate.1),
            text::thousands(candidate.0),
            frame.bad,
            text::thousands(stable.1),
            text::thousands(stable.0),
        );
        let refused = streams
            .strongest()
            .filter(|strongest| strongest.kind == Kind::Rejections && stream.evidence < 1.0);
        match ruling {
            Ruling::Harmful => streams.harm(stream, frame.recently),
            Ruling::NoReading => frame
                .unread
                .clone()
                .unwrap_or_else(|| "Prometheus was not read since this step began".to_owned()),
            Ruling::Misrouted(share) => format!(
                "the candidate gets {} of the requests where this step says {}%: see whether the VirtualService is applied",
                text::percent((share * 10_000.0).round() / 100.0),
                self.target.window.weight.unwrap_or_default(),
            ),
            Ruling::StableBeyond((n, x)) => format!(
                "stable itself does not keep {}, {} of its last {} {}: the candidate is not blamed, and waits",
                frame.threshold,
                text::thousands(x),
                text::thousands(n),
                frame.bad,
            ),
            Ruling::Beyond((n, x)) => format!(
                "candidate does not keep {}, {} of its last {} {}, and gets no more traffic; the odds against chance are {} \
                 to 1, a rollback needs {} to 1",
                frame.threshold,
                text::thousands(x),
                text::thousands(n),
                frame.bad,
                odds(streams.doubt.max(stream.doubt)),
                odds(streams.needed),
            ),
            Ruling::Leaning if refused.is_some() => format!(
                "candidate blames clients (4xx) more often than stable: the odds against chance are {} to 1, a rollback needs {} to 1",
                odds(streams.doubt),
                odds(streams.needed),
            ),
            Ruling::Leaning => format!(
                "candidate looks worse than stable, {counts}: the odds against chance are {} to 1, a rollback needs {} to 1",
                odds(streams.doubt.max(stream.doubt)),
                odds(streams.needed),
            ),
            Ruling::Open => format!(
                "no sign of harm, {counts}; {}",
                streams.missing(stream, frame.limit)
            ),
            Ruling::Safe(Safe::Absolute) => format!(
                "{counts}, {} or more excluded ({} sure)",
                text::percent(frame.limit * 100.0),
                compared::sureness()
            ),
            Ruling::Safe(Safe::Relative) => format!(
                "{counts}, twice stable's share excluded ({} sure)",
                compared::sureness()
            ),
        }
    }

    fn few_on_step(&self, requests: u64, least: u64) -> String {
        if requests > 0 {
            return format!("{requests} of {least} requests that a step needs");
        }
        if self.evidence.requests.has_seen(Side::Candidate) {
            return format!(
                "no request has reached the candidate on this step: 0 of {least} that it needs"
            );
        }
        format!(
            "Prometheus knows no request to workload {} in namespace {} from reporter {}: 0 of {least} that a step needs",
            self.target.candidate.join(", "),
            self.target.id.namespace,
            self.target.analysis.reporter.as_str(),
        )
    }

    /// A finding for harm by a stream that no metric of the spec stands for.
    pub(super) fn unnamed_harm(&self, findings: &[Finding]) -> Option<Finding> {
        let streams = self
            .streams
            .as_ref()
            .filter(|streams| streams.is_harmful())?;
        if findings
            .iter()
            .any(|finding| finding.verdict == Verdict::Fail)
        {
            return None;
        }
        let stream = streams.strongest()?;
        let (requests, failures) = stream.watch.test().candidate();
        Some(Finding {
            metric: stream.name.replace(' ', "-"),
            verdict: Verdict::Fail,
            value: None,
            threshold: "as stable".to_owned(),
            samples: requests,
            failures,
            window: self.since(self.target.window.rollout),
            query: requests_for_people(self.target, self.target.window.rollout, self.now),
            sentence: streams.harm(stream, ((0, 0), (0, 0))),
        })
    }
}

fn pod_of(counts: Counts) -> Pod {
    (counts.requests, counts.failures)
}

/// Evidence as odds, whole.
fn odds(ln: f64) -> text::Thousands {
    // A float cast saturates.
    text::thousands(ln.exp().round() as u64)
}
