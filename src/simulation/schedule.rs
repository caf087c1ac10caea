//! Random scenarios from a seed: people and faults of every kind, at any time.

use std::fmt::Write as _;

use super::scenario::{Scenario, ScenarioError};

/// A small generator with a full period (SplitMix64), so that a seed gives the same scenario for ever.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % sides.max(1)
    }
}

const SPEC: &str = "apps/podinfo/canary.yaml";
const APP: &str = "apps/podinfo/app.yaml";
const STATE: &str = "apps/podinfo/podinfo.serin/rollout.yaml";
const ROUTES: &str = "apps/podinfo/podinfo.serin/virtualservice.yaml";

/// The scenario of this seed.
pub fn random(seed: u64) -> Result<Scenario, ScenarioError> {
    Scenario::read(&text(seed))
}

/// The same as a file, for a person to look at.
fn text(seed: u64) -> String {
    let mut dice = Dice(seed);
    let mut out = format!(
        "# Seed {seed}.\nlasts: 20m\npushIntervalSeconds: {}\n",
        dice.roll(3) * 5
    );
    let bad = [100, 100, 99, 90, 0][index(dice.roll(5), 5)];
    let _ = write!(
        out,
        "versions:\n- {{contains: \"podinfo:6.9.0\", success: {bad}}}\nevents:\n"
    );
    let _ = writeln!(out, "{}", edit(30, SPEC, "6.8.0", "6.9.0"));
    let mut at = 30;
    for _ in 0..dice.roll(9) {
        at += 5 + dice.roll(120);
        let event = event(&mut dice, at);
        let _ = writeln!(out, "{event}");
    }
    out
}

fn event(dice: &mut Dice, at: u64) -> String {
    let weight = dice.roll(11) * 10;
    match dice.roll(24) {
        0 => edit(at, SPEC, "6.9.0", "6.9.1"),
        1 => edit(at, SPEC, "podinfo:6.9.0", "podinfo:6.8.0"),
        2 => edit(
            at,
            SPEC,
            "users: []",
            "users: [{header: x-user, exact: [alexis]}]",
        ),
        3 => edit(at, SPEC, "  workload:", "  paused: true\n  workload:"),
        4 => edit(at, SPEC, "  paused: true\n", ""),
        5 => edit(at, SPEC, "  workload:", "  abort: true\n  workload:"),
        6 => edit(
            at,
            SPEC,
            "  workload:",
            &format!("  retry: {}\n  workload:", 1 + dice.roll(3)),
        ),
        7 => edit(
            at,
            SPEC,
            "  workload:",
            &format!("  resume: {}\n  workload:", 1 + dice.roll(3)),
        ),
        8 => edit(at, SPEC, "{weight: 60, hold: 1m}", "{weight: 40, hold: 1m}"),
        9 => edit(at, SPEC, "timeout: 5s", "timeout: 6s"),
        10 => edit(at, APP, "replicas: 4", "replicas: 6"),
        11 => edit(at, APP, "podinfo:6.8.0", "podinfo:6.8.1"),
        12 => edit(at, APP, "podinfo:6.8.0", "podinfo:6.9.0"),
        13 => edit(
            at,
            STATE,
            "\nweight: 10\n",
            &format!("\nweight: {weight}\n"),
        ),
        14 => edit(
            at,
            ROUTES,
            "weight: 10\n",
            &format!("weight: {}\n", dice.roll(120)),
        ),
        15 => edit(at, ROUTES, "timeout: 5s", "timeout: 9s"),
        16 => format!(
            "- {{at: {at}s, who: alexis, says: Delete, delete: [apps/podinfo/podinfo.serin]}}"
        ),
        17 => format!("- {{at: {at}s, revert: \"canary(\"}}"),
        18 => format!(
            "- {{at: {at}s, prometheus: {}}}",
            ["up", "down", "empty", "nan", "partial"][index(dice.roll(5), 5)]
        ),
        19 => format!(
            "- {{at: {at}s, remote: down}}\n- {{at: {}s, remote: up}}",
            at + 1 + dice.roll(200)
        ),
        20 => format!(
            "- {{at: {at}s, refuse: no}}\n- {{at: {}s, refuse: \"\"}}",
            at + 1 + dice.roll(200)
        ),
        21 => {
            let points = ["before-fetch", "after-fetch", "before-push", "after-push"];
            format!("- {{at: {at}s, crash: {}}}", points[index(dice.roll(4), 4)])
        }
        22 => format!(
            "- {{at: {at}s, clock: {}}}",
            ["0s", "90s", "-90s", "1h", "-1h"][index(dice.roll(5), 5)]
        ),
        _ => format!(
            "- {{at: {at}s, who: dana, says: Elsewhere, race: true, write: {{README.md: \"{at}\"}}}}"
        ),
    }
}

/// A roll of a die of `sides` sides as an index.
fn index(roll: u64, sides: usize) -> usize {
    usize::try_from(roll).unwrap_or_default() % sides
}

fn edit(at: u64, file: &str, from: &str, to: &str) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    format!(
        "- {{at: {at}s, who: alexis, says: Edit, replace: [{{file: {file}, from: {}, to: {}}}]}}",
        quoted(from),
        quoted(to)
    )
}
