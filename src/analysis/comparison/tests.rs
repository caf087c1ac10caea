//! Exact vectors, and what must hold of any counts.

use super::policy::{Move, Place, Policy, Reading};
use super::safety::{Safe, ln_within};
use super::*;
use proptest::prelude::*;
use std::time::Duration;

const T1: (u64, u64, u64, u64) = (500, 9500, 4, 9);
const T2: (u64, u64, u64, u64) = (1000, 9000, 9, 8);
const T3: (u64, u64, u64, u64) = (2000, 8000, 22, 9);

fn after(rule: Rule, ticks: &[(u64, u64, u64, u64)]) -> Comparison {
    let mut test = Comparison::new(rule);
    for (nc, ns, xc, xs) in ticks {
        test.tick(Tick {
            stable: &[(*ns, *xs)],
            candidate: &[(*nc, *xc)],
        });
    }
    test
}

#[track_caller]
fn is(found: f64, expected: f64) {
    assert!((found - expected).abs() < 2e-6, "{found} is not {expected}");
}

/// The constants of the published vectors: even weights, a cap of one half, tempering by the variance itself.
fn published() -> Rule {
    Rule {
        weights: EVEN,
        cap: 0.5,
        temper: 1.0,
        ..Rule::default()
    }
}

fn plain() -> Rule {
    Rule::plain(0.01)
}

#[test]
fn the_plain_mixture() {
    let check = |ticks: &[_], ratios: [f64; 8], evidence: f64| {
        let test = after(plain(), ticks);
        for (found, expected) in test.ln_ratios().iter().zip(ratios) {
            is(*found, expected);
        }
        is(test.ln_mixture(), evidence);
    };
    check(
        &[T1],
        [
            1.300856, 2.138317, 3.155417, 4.067571, 4.380014, 3.301147, -0.450773, -4.763405,
        ],
        3.227161,
    );
    check(
        &[T1, T2],
        [
            4.120610, 6.756368, 9.943461, 12.832485, 14.191764, 12.162655, 4.583244, -3.925841,
        ],
        12.451139,
    );
    check(
        &[T1, T2, T3],
        [
            10.086226, 16.353638, 23.682292, 30.018732, 32.930434, 29.441672, 16.881820, 3.304361,
        ],
        30.932589,
    );
    check(
        &[(500, 9500, 0, 9)],
        [
            -0.222234, -0.439111, -0.857792, -1.640894, -3.344072, -6.010464, -11.145368,
            -16.050521,
        ],
        -1.337027,
    );
    check(&[(0, 9500, 0, 9)], [0.0; 8], 0.0);
    check(&[(500, 9500, 0, 0)], [0.0; 8], 0.0);
    for (ticks, evidence) in [
        ((10, 90, 3, 0), 5.483099),
        ((10, 990, 1, 0), 2.716439),
        ((10, 990, 2, 0), 6.228464),
        ((50, 50, 7, 0), 4.032811),
        ((50, 50, 8, 0), 4.662326),
        ((50, 50, 10, 0), 5.939345),
    ] {
        is(after(plain(), &[ticks]).ln_mixture(), evidence);
    }
}

#[test]
fn a_tolerated_ratio() {
    let tolerant = Rule {
        tolerance: 1.25,
        ..plain()
    };
    let test = after(tolerant, &[T1, T2]);
    let ratios = [
        1.801011, 4.436769, 7.623862, 10.512886, 11.872165, 9.843056, 2.263645, -6.245440,
    ];
    for (found, expected) in test.ln_ratios().iter().zip(ratios) {
        is(*found, expected);
    }
    is(test.ln_mixture(), 10.131540);
    // What is tolerated is never an alternative.
    let very = Rule {
        tolerance: 100.0,
        ..plain()
    };
    assert_eq!(after(very, &[T3]).ln_mixture(), 0.0);
}

#[test]
fn the_lower_bound_of_the_odds_ratio() {
    let bound = |ticks: &[_]| after(plain(), ticks).lower_bound();
    assert_eq!(bound(&[T1]), None);
    let thousandths = |odds: Option<f64>| (odds.unwrap() * 1000.0).floor();
    assert_eq!(thousandths(bound(&[T1, T2])), 2275.0);
    assert_eq!(thousandths(bound(&[T1, T2, T3])), 3597.0);
}

/// Eleven restarts to come, as in the published vectors.
fn with_prior(is_capped: bool) -> Rule {
    Rule {
        prior: Prior::Even(11),
        is_capped,
        is_tempered: false,
        ..published()
    }
}

#[test]
fn restarts_and_the_cap() {
    for (is_capped, one, two, three) in [
        (false, 2.572917, 11.757996, 30.239442),
        (true, 1.335055, 4.840526, 14.060578),
    ] {
        let rule = with_prior(is_capped);
        is(after(rule, &[T1]).ln_evidence(), one);
        is(after(rule, &[T1, T2]).ln_evidence(), two);
        is(after(rule, &[T1, T2, T3]).ln_evidence(), three);
    }
    let disaster = (30, 270, 30, 0);
    is(after(with_prior(true), &[disaster]).ln_evidence(), 1.704748);
    is(
        after(with_prior(true), &[disaster; 2]).ln_evidence(),
        66.110900,
    );
}

#[test]
fn two_pods_may_convict_in_one_tick_of_disaster() {
    let evidence = |candidate: &[Pod]| {
        let mut test = Comparison::new(published());
        test.tick(Tick {
            stable: &[(70, 0); 4],
            candidate,
        });
        test.ln_evidence() >= test.rule().needed()
    };
    assert!(evidence(&[(15, 15), (15, 14)]));
    // One pod is one scrape, whatever it shows; and what is no disaster waits for a second tick.
    assert!(!evidence(&[(30, 30)]));
    assert!(!evidence(&[(15, 0), (15, 15)]));
    assert!(!evidence(&[(40, 15), (40, 15)]));
}

#[test]
fn pods_that_differ_temper_the_evidence() {
    let stable = |errors: [u64; 4]| errors.map(|x| (2375, x));
    let tempered = Rule {
        is_capped: false,
        prior: Prior::Even(11),
        ..published()
    };
    let mut calm = Comparison::new(tempered);
    calm.tick(Tick {
        stable: &stable([2, 1, 5, 1]),
        candidate: &[(250, 2), (250, 2)],
    });
    is(calm.dispersion.chi, 4.782308);
    is(calm.dispersion.weight, 6.75);
    assert_eq!(calm.phi(), 1.0);
    is(calm.ln_mixture(), 3.227161);

    let mut burst = Comparison::new(tempered);
    burst.tick(Tick {
        stable: &stable([0, 1, 88, 1]),
        candidate: &[(250, 25), (250, 25)],
    });
    is(burst.dispersion.chi, 256.698548);
    is(burst.dispersion.weight, 67.5);
    is(burst.phi(), 19.745504);
    is(burst.ln_evidence(), 1.658395);
    is(
        after(plain(), &[(500, 9500, 50, 90)]).ln_mixture(),
        61.032291,
    );
}

#[test]
fn two_pods_of_stable_are_compared_with_their_past() {
    // A single pod that fails in bursts: forty ticks of history say so.
    let mut test = Comparison::new(published());
    for tick in 0..40 {
        test.seed(&[(5000, if tick % 4 == 0 { 120 } else { 2 })]);
    }
    let bursty = Tick {
        stable: &[(5000, 2)],
        candidate: &[(550, 13)],
    };
    test.tick(bursty);
    test.tick(bursty);
    assert!(test.phi() > 5.0, "{}", test.phi());
    let mut calm = Comparison::new(published());
    for _ in 0..40 {
        calm.seed(&[(5000, 2)]);
    }
    calm.tick(bursty);
    calm.tick(bursty);
    assert!(calm.ln_mixture() > 3.0 * test.ln_mixture());
}

#[test]
fn one_burst_of_stable_is_no_habit() {
    // A pod that was bad for one tick, and has been good since.
    let bad = Tick {
        stable: &[(1000, 0)],
        candidate: &[(1000, 100)],
    };
    let after = |bursts: usize| {
        let mut test = Comparison::new(published());
        for tick in 0..40 {
            test.seed(&[(
                1000,
                if tick % 10 == 9 && tick / 10 < bursts {
                    100
                } else {
                    0
                },
            )]);
        }
        test.tick(bad);
        test.tick(bad);
        (test.phi(), test.ln_evidence())
    };
    let ((calm, plain), (once, weighed)) = (after(0), after(1));
    assert_eq!((calm, plain), (once, weighed));
    let (often, _) = after(3);
    assert!(often > 10.0, "{often}");
}

#[test]
fn safety_by_the_limit() {
    for (n, x, expected) in [
        (299, 0, 2.512941),
        (400, 0, 3.404443),
        (1000, 1, 6.164866),
        (2000, 10, 1.777163),
    ] {
        is(ln_within(n, x, 0.01), expected);
    }
    for (x, needed) in [
        (0, 354),
        (1, 626),
        (2, 853),
        (3, 1053),
        (5, 1413),
        (10, 2213),
    ] {
        assert!(ln_within(needed, x, 0.01) >= 20_f64.ln(), "{x}");
        assert!(ln_within(needed - 1, x, 0.01) < 20_f64.ln(), "{x}");
        assert_eq!(safety::requests_missing(0, x, 0.01), needed);
    }
    assert_eq!(safety::requests_missing(400, 0, 0.01), 0);
}

#[test]
fn safety_beside_stable() {
    // 0.9 % against a limit of 1 % takes long; next to a stable that fails as often it does not.
    let test = after(plain(), &[(5000, 5000, 45, 46)]);
    assert_eq!(safety::safe(&test, Some(0.01)), Some(Safe::Relative));
    assert_eq!(safety::safe(&after(plain(), &[T1]), Some(0.01)), None);
}

#[test]
fn the_whole_rule() {
    let policy = Policy::of_limit(0.01);
    let read = |ticks: &[_], step| policy::reading(&after(published(), ticks), step, &policy);
    assert_eq!(read(&[(30, 270, 30, 0); 2], (60, 60)), Reading::Harmful);
    // Below the floor of 0.1 % no difference matters, whatever the ratio.
    let faint: [_; 20] = [(10_000, 90_000, 8, 2); 20];
    assert_eq!(read(&faint, (10_000, 8)), Reading::Safe(Safe::Absolute));
    assert_eq!(
        read(&[(400, 3600, 0, 3)], (400, 0)),
        Reading::Safe(Safe::Absolute)
    );
    assert_eq!(read(&[(40, 360, 0, 0)], (40, 0)), Reading::Open);

    let place = |elapsed, is_last, requests| Place {
        elapsed: Duration::from_secs(elapsed),
        hold: Duration::from_secs(60),
        is_last,
        requests,
    };
    let safe = Reading::Safe(Safe::Absolute);
    for (reading, place, expected) in [
        (Reading::Harmful, place(5, false, 0), Move::RollBack),
        (safe, place(5, true, 900), Move::Soak),
        (safe, place(60, true, 900), Move::Promote),
        (safe, place(60, false, 60), Move::Advance),
        (Reading::Open, place(60, false, 49), Move::WaitRequests),
        (Reading::Open, place(300, false, 0), Move::Advance),
        (Reading::Open, place(300, true, 900), Move::WaitSafe),
        (Reading::Open, place(1200, true, 900), Move::GiveUp),
        (Reading::Leaning, place(300, false, 900), Move::WaitLeaning),
        (Reading::Leaning, place(1200, true, 900), Move::GiveUp),
        (safe, place(1200, true, 900), Move::Promote),
    ] {
        assert_eq!(
            policy::next(reading, &place, &policy),
            expected,
            "{reading:?} {place:?}"
        );
    }
}

#[test]
fn streams_share_one_level() {
    is(combined(&[(0.6, 5.0)]), 5.0);
    is(
        combined(&[(0.6, 5.0), (0.25, 0.0), (0.15, 0.0)]),
        (0.6 * 5_f64.exp() + 0.4).ln(),
    );
    assert_eq!(combined(&[]), 0.0);
}

#[test]
fn an_hour_of_restarts_keeps_its_bounds() {
    let mut test = Comparison::new(published());
    for n in 0..2000 {
        if n % 20 == 19 {
            test.restart();
        }
        test.tick(Tick {
            stable: &[(900, 1), (900, 1), (900, 1)],
            candidate: &[(300, 0)],
        });
    }
    assert!(test.starts.len() <= 24 && test.log.len() <= 256);
    // A late regression is still found within a few ticks.
    let mut ticks = 0;
    while test.ln_evidence() < test.rule().needed() {
        ticks += 1;
        assert!(ticks < 8, "{}", test.ln_evidence());
        test.tick(Tick {
            stable: &[(900, 1), (900, 1), (900, 1)],
            candidate: &[(300, 12)],
        });
    }
}

/// Chance of `k` failures of the candidate: `n` requests of which `draws` fail, `good` of them candidate's.
fn hypergeometric(all: u64, candidate: u64, failures: u64) -> Vec<f64> {
    let choose =
        |n: u64, k: u64| -> f64 { (0..k).map(|i| (n - i) as f64 / (i + 1) as f64).product() };
    (0..=failures)
        .map(|k| {
            if k > candidate || failures - k > all - candidate {
                return 0.0;
            }
            choose(candidate, k) * choose(all - candidate, failures - k) / choose(all, failures)
        })
        .collect()
}

#[test]
fn the_mean_of_the_evidence_is_at_most_one() {
    for (nc, ns) in [(50, 950), (10, 10), (1, 99), (300, 700), (99, 1)] {
        for failures in [1, 2, 3, 5, 10] {
            for is_capped in [false, true] {
                let rule = Rule {
                    is_capped,
                    is_tempered: false,
                    ..published()
                };
                let chances = hypergeometric(nc + ns, nc, failures);
                let mean: f64 = chances
                    .iter()
                    .enumerate()
                    .filter(|(_, chance)| **chance > 0.0)
                    .map(|(k, chance)| {
                        let k = k as u64;
                        let test = after(rule, &[(nc, ns, k, failures - k)]);
                        chance * test.ln_evidence().exp()
                    })
                    .sum();
                assert!(mean <= 1.0 + 1e-9, "{nc} {ns} {failures}: {mean}");
            }
        }
    }
}

proptest! {
    #[test]
    fn any_counts_have_an_answer(ticks in prop::collection::vec(
        (prop::collection::vec((0u64..1_000_000, 0u64..1_000_000), 0..6),
         prop::collection::vec((0u64..1_000_000, 0u64..1_000_000), 0..6)), 0..40),
        tolerance in 1.0f64..3.0)
    {
        let mut test = Comparison::new(Rule { tolerance, ..published() });
        for (index, (stable, candidate)) in ticks.iter().enumerate() {
            if index % 7 == 6 { test.restart(); }
            test.tick(Tick { stable, candidate });
            prop_assert!(test.ln_evidence().is_finite());
            prop_assert!(test.phi() >= 1.0 && test.phi().is_finite());
            prop_assert!((0.0..=1.0).contains(&test.p_value()));
            prop_assert!(test.lower_bound().is_none_or(|bound| bound >= tolerance && bound.is_finite()));
        }
    }

    #[test]
    fn a_candidate_without_failures_is_never_harmful(
        ticks in prop::collection::vec((0u64..10_000, 0u64..100_000, 0u64..500), 0..60))
    {
        let mut test = Comparison::new(published());
        for (nc, ns, xs) in ticks {
            test.tick(Tick { stable: &[(ns, xs.min(ns))], candidate: &[(nc, 0)] });
            prop_assert!(test.ln_evidence() <= 1e-9);
        }
    }
}
