//! That the simulated traffic is what it says.

use super::super::scenario;
use super::*;

fn scenario_named(name: &str) -> Scenario {
    [scenario::core(), scenario::stress()]
        .concat()
        .into_iter()
        .find(|cell| cell.scenario.name == name)
        .unwrap()
        .scenario
}

fn world(name: &str, rps: f64) -> World {
    World::new(&scenario_named(name), rps, Random::new(5, &[1]))
}

fn counted(world: &World, side: Side) -> Counters {
    let mut sum = Counters::default();
    for pod in world.pods.iter().filter(|pod| pod.side == side) {
        sum.ok += pod.counted.ok;
        sum.failed += pod.counted.failed;
        sum.slow += pod.counted.slow;
    }
    sum
}

#[test]
fn shares_and_weights_come_out_as_asked() {
    let mut world = world("bad 0.1 -> 5%", 1000.0);
    let before = counted(&world, Side::Stable);
    assert_eq!(counted(&world, Side::Candidate), Counters::default());
    world.route(0.1);
    world.advance(1_000_000);
    let candidate = counted(&world, Side::Candidate);
    let stable = counted(&world, Side::Stable);
    let requests = (candidate.ok + candidate.failed) as f64;
    assert!((requests / 100_000.0 - 1.0).abs() < 0.02, "{requests}");
    assert!((candidate.failed as f64 / requests - 0.05).abs() < 0.004);
    let failed = (stable.failed - before.failed) as f64 / (stable.ok - before.ok) as f64;
    assert!((failed - 0.001).abs() < 0.0002, "{failed}");
    let toll = world.toll();
    assert!((toll.excess() / requests - 0.049).abs() < 0.004);
}

#[test]
fn series_appear_with_their_first_count() {
    let mut world = world("bad 0.1 -> 100%", 20.0);
    world.route(0.1);
    world.advance(120_000);
    for pod in world.pods() {
        let ok = pod.window(120_000, 60_000, |seen| seen.ok);
        let failed = pod.window(120_000, 60_000, |seen| seen.failed);
        match pod.side {
            Side::Candidate => {
                assert!(ok.is_empty());
                assert!(!failed.is_empty());
            }
            Side::Stable => assert_eq!(ok.len(), 4),
        }
        assert!(failed.iter().all(|point| point.value > 0.0));
    }
}

#[test]
fn scrapes_keep_their_phase_and_stay_inside_the_lookback() {
    let mut world = world("healthy 0.1%", 20.0);
    world.advance(300_000);
    let pod = &world.pods()[0];
    let times: Vec<Ms> = pod.scrapes.iter().map(|scrape| scrape.at).collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] == SCRAPE));
    let seen = pod.instant(300_000).unwrap();
    assert!(seen.at <= 300_000 && 300_000 - seen.at < SCRAPE);
    assert_eq!(pod.instant(340_000), None);
}

#[test]
fn pods_come_and_go() {
    let mut world = world("pods come and go, healthy 0.3%", 20.0);
    world.route(0.5);
    let mut sizes = Vec::new();
    for minute in 1..20 {
        world.advance(minute * 60_000);
        let live = world.pods().iter().filter(|pod| pod.is_live(world.now()));
        sizes.push(live.filter(|pod| pod.side == Side::Stable).count());
    }
    assert!(sizes.iter().all(|size| (3..=8).contains(size)), "{sizes:?}");
    assert!(sizes.iter().min() != sizes.iter().max());
    let gone = world.pods().iter().find(|pod| pod.ends < 600_000).unwrap();
    assert_eq!(gone.instant(1_000_000), None);
}

#[test]
fn incidents_harm_both_and_are_no_excess() {
    let mut world = world("incident 10% for 3 min, both", 1000.0);
    world.route(0.5);
    world.advance(400_000);
    let toll = world.toll();
    assert!(toll.failed > 8000, "{toll:?}");
    assert!(toll.excess().abs() < 600.0, "{toll:?}");
}

#[test]
fn retries_add_failures_and_sticky_clients_lean() {
    let mut world = world("retries, healthy 0.3%", 1000.0);
    world.route(0.5);
    world.advance(1_000_000);
    let share = world.toll().failed as f64 / world.toll().requests as f64;
    assert!((share / 0.0073 - 1.0).abs() < 0.1, "{share}");

    let mut leans = Vec::new();
    for seed in 0..20 {
        let scenario = scenario_named("200 sticky clients, healthy 0.3%");
        let mut world = World::new(&scenario, 20.0, Random::new(seed, &[]));
        world.route(0.1);
        leans.push(world.clientele(Side::Candidate).1);
    }
    let mean = leans.iter().sum::<f64>() / 20.0;
    assert!((mean - 1.0).abs() < 0.25, "{mean}");
    assert!(leans.iter().any(|lean| (lean - 1.0).abs() > 0.15));
}

#[test]
fn a_prometheus_that_is_away_scrapes_nothing() {
    let mut world = world("scrapes and Prometheus lost, healthy 0.3%", 20.0);
    world.advance(600_000);
    let (from, to) = world.outage.unwrap();
    assert!(!world.is_reachable(from) && world.is_reachable(to));
    for pod in world.pods() {
        let inside = |scrape: &&Scrape| (from..to).contains(&scrape.at);
        assert_eq!(pod.scrapes.iter().filter(inside).count(), 0);
    }
}
