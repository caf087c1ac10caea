//! That each try is the rule that it says.

use super::super::random::Random;
use super::*;
use crate::analysis::comparison::{Comparison, Rule};

fn draw(random: &mut Random, pods: usize, mean: f64, share: f64) -> Vec<Pod> {
    (0..pods)
        .map(|_| {
            let n = random.poisson(mean);
            (n, random.binomial(n, share))
        })
        .collect()
}

/// The judge, written twice: the same numbers on hundreds of random rollouts.
#[test]
fn unchanged_it_is_the_judge() {
    for seed in 0..120 {
        let mut random = Random::new(seed, &[]);
        let mut judge = Comparison::new(Rule::default());
        let frame = Frame {
            needed: judge.rule().needed(),
            is_guarded: true,
        };
        let mut again = Variant::new(Try::Same, frame);
        let pods = 1 + random.below(5) as usize;
        let (mean, share) = (5.0 + 400.0 * random.unit(), 0.05 * random.unit());
        for _ in 0..40 {
            let burst = random.exponential();
            let stable = draw(&mut random, pods, mean, share * burst);
            judge.seed(&stable);
            again.seed(&stable);
        }
        for step in 0..30 {
            if step % 7 == 6 {
                judge.restart();
                again.restart();
            }
            let stable = draw(&mut random, pods, mean, share);
            let candidate = draw(&mut random, 2, mean * 0.3, (3.0 * share).min(1.0));
            let tick = Tick {
                stable: &stable,
                candidate: &candidate,
            };
            judge.tick(tick);
            again.tick(tick);
            let (one, two) = (judge.ln_evidence(), again.ln_evidence());
            assert!(
                (one - two).abs() < 1e-9 * one.abs().max(1.0),
                "{seed}: {one} {two}"
            );
        }
    }
}

/// Under equal failing shares no try may convict more often than its level, here 20 % to see it.
#[test]
fn every_try_keeps_its_level() {
    let frame = Frame {
        needed: 5_f64.ln(),
        is_guarded: false,
    };
    for what in Try::ALL {
        let mut convicted = 0;
        for seed in 0..150 {
            let mut random = Random::new(seed, &[7]);
            let mut test = Variant::new(what, frame);
            for _ in 0..60 {
                let stable = draw(&mut random, 1, 180.0, 0.01);
                let candidate = draw(&mut random, 1, 20.0, 0.01);
                test.tick(Tick {
                    stable: &stable,
                    candidate: &candidate,
                });
                if test.ln_evidence() >= frame.needed {
                    convicted += 1;
                    break;
                }
            }
        }
        // 30 are allowed; five standard deviations more are 55.
        assert!(convicted < 55, "{}: {convicted} of 150", what.name());
    }
}

#[test]
fn two_pods_convict_in_one_tick_and_one_does_not() {
    let frame = Frame {
        needed: 100_f64.ln(),
        is_guarded: true,
    };
    let stable = [(70, 0), (70, 0), (70, 0), (70, 0)];
    let evidence = |what, candidate: &[Pod]| {
        let mut test = Variant::new(what, frame);
        test.tick(Tick {
            stable: &stable,
            candidate,
        });
        test.ln_evidence() >= frame.needed
    };
    assert!(!evidence(Try::TickCap, &[(15, 15), (15, 15)]));
    assert!(evidence(Try::Same, &[(15, 15), (15, 15)]));
    assert!(!evidence(Try::Same, &[(15, 0), (15, 15)]));
    assert!(!evidence(Try::Same, &[(30, 30)]));
    assert!(!evidence(Try::Same, &[(40, 15), (40, 15)]));
}
