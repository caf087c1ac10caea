//! Random scenarios from a seed: people and faults of every kind, at any time, and then calm.
//!
//! A schedule starts with a proposal, lets people and faults loose, and ends with everything mended and a new version
//! proposed: a healthy one has to be promoted then, a bad one rejected, whatever happened before.

use std::fmt::Write as _;

use super::scenario::{BASE, Scenario, ScenarioError};

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

    /// One of several; the lists below are never empty.
    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        let sides = u64::try_from(of.len()).unwrap_or(1);
        let index = usize::try_from(self.roll(sides)).unwrap_or_default();
        of.get(index).copied().unwrap_or_default()
    }
}

const SPEC: &str = "apps/podinfo/canary.yaml";
const APP: &str = "apps/podinfo/app.yaml";
const FOLDER: &str = "apps/podinfo/podinfo.serin";
const STATE: &str = "apps/podinfo/podinfo.serin/rollout.yaml";
const ROUTES: &str = "apps/podinfo/podinfo.serin/virtualservice.yaml";
const RULE: &str = "apps/podinfo/podinfo.serin/destinationrule.yaml";
const CANDIDATE: &str = "apps/podinfo/podinfo.serin/deployment.yaml";
const SHOP: &str = "apps/shop/canary.yaml";
const SHOP_STATE: &str = "apps/shop/shop.serin/rollout.yaml";
const SHOP_ROUTES: &str = "apps/shop/shop.serin/virtualservice.yaml";
const SHOP_CANDIDATE: &str = "apps/shop/v2.yaml";

/// One schedule of this many begins with a gate at its first step.
const GATED: u64 = 5;

/// A second application, whose team keeps both versions itself.
const SHOP_FILES: [(&str, &str); 4] = [
    (SHOP, include_str!("base/shop/canary.yaml")),
    ("apps/shop/app.yaml", include_str!("base/shop/app.yaml")),
    ("apps/shop/v1.yaml", include_str!("base/shop/v1.yaml")),
    (SHOP_CANDIDATE, include_str!("base/shop/v2.yaml")),
];

/// The scenario of this seed.
pub fn random(seed: u64) -> Result<Scenario, ScenarioError> {
    Scenario::read(&text(seed))
}

/// A schedule in the making.
struct Schedule {
    dice: Dice,
    out: String,
    /// Seconds since the start.
    at: u64,
    engines: u64,
    has_shop: bool,
}

/// The scenario of this seed as a file, for a person to look at and to cut down.
pub fn text(seed: u64) -> String {
    let mut dice = Dice(seed);
    let engines = 1 + u64::from(dice.roll(3) == 0);
    let has_shop = dice.roll(4) == 0;
    let gated = seed.is_multiple_of(GATED);
    let mut schedule = Schedule {
        out: String::new(),
        at: 30,
        engines,
        has_shop,
        dice,
    };
    schedule.head(seed, gated);
    schedule.edit(SPEC, "podinfo:6.8.0", "podinfo:6.9.0");
    if gated {
        schedule.approval(seed);
    }
    for _ in 0..schedule.dice.roll(13) {
        schedule.at += 1 + schedule.dice.roll(100);
        schedule.something();
    }
    schedule.calm();
    schedule.out
}

impl Schedule {
    fn head(&mut self, seed: u64, gated: bool) {
        let interval = self.dice.roll(3) * 5;
        let cluster = self.dice.roll(3) == 0;
        let success = self.dice.pick(&["100", "100", "99", "90", "0"]);
        let engines = self.engines;
        let _ = write!(
            self.out,
            "# Seed {seed}.\npushIntervalSeconds: {interval}\nengines: {engines}\ncluster: {cluster}\n\
             versions:\n\
             - {{contains: \"podinfo:6.9.0\", success: {success}}}\n\
             - {{contains: \"podinfo:7.0.1\", success: 0}}\n\
             - {{contains: \"shop:2.0\", success: {success}}}\n"
        );
        if gated {
            let (from, to) = (
                "{weight: 0, hold: 1m}",
                "{weight: 0, hold: 1m, approval: {}}",
            );
            let (from, to) = (quoted(from), quoted(to));
            let _ = writeln!(
                self.out,
                "replace:\n- {{file: {SPEC}, from: {from}, to: {to}}}"
            );
        }
        if self.has_shop {
            self.out.push_str("files:\n");
            for (path, text) in SHOP_FILES {
                let _ = writeln!(self.out, "  {path}: {}", quoted(text));
            }
            self.out.push_str(
                "services:\n\
                 - {canary: test/shop, folder: apps/shop/shop.serin, requests: 100, \
                 deployments: {shop-v1: apps/shop/v1.yaml, shop-v2: apps/shop/v2.yaml}}\n",
            );
        }
        self.out.push_str("events:\n");
    }

    /// Somebody opens the gate of the first step, early or late.
    fn approval(&mut self, seed: u64) {
        let at = self.at + 40 + seed % 300;
        let (from, to) = ("approval: pending", "approval: granted");
        let (from, to) = (quoted(from), quoted(to));
        let _ = writeln!(
            self.out,
            "- {{at: {at}s, who: maria, says: Approve, replace: [{{file: {STATE}, from: {from}, to: {to}}}]}}"
        );
    }

    fn something(&mut self) {
        match self.dice.roll(10) {
            0..=2 => self.proposal(),
            3 | 4 => self.control(),
            5 | 6 => self.generated(),
            7 if self.has_shop => self.shop(),
            _ => self.fault(),
        }
    }

    /// What people propose and how they change the spec.
    fn proposal(&mut self) {
        match self.dice.roll(14) {
            0 | 1 => self.edit(SPEC, "6.9.0", "6.9.1"),
            2 => self.edit(SPEC, "podinfo:6.9.0", "podinfo:6.8.0"),
            3 => self.edit(
                SPEC,
                "users: []",
                "users: [{header: x-user, exact: [alexis]}]",
            ),
            4 => self.edit(SPEC, "{weight: 60, hold: 1m}", "{weight: 40, hold: 1m}"),
            5 => self.edit(SPEC, "  - {weight: 10, hold: 1m}\n", ""),
            6 => self.edit(
                SPEC,
                "{weight: 60, hold: 1m}",
                "{weight: 60, hold: 1m, approval: {}}",
            ),
            7 => self.edit(SPEC, "timeout: 5s", "timeout: 6s"),
            8 => self.edit(APP, "replicas: 4", "replicas: 6"),
            9 => self.edit(APP, "podinfo:6.8.0", "podinfo:6.8.1"),
            10 => self.edit(APP, "podinfo:6.8.0", "podinfo:6.9.0"),
            11 => self.by_person(&format!("delete: [{SPEC}]")),
            12 => {
                self.edit(SPEC, "  workload:", "  wrkload:");
                if self.dice.roll(2) == 0 {
                    self.at += self.dice.roll(60);
                    self.edit(SPEC, "  wrkload:", "  workload:");
                }
            }
            _ => {
                let text = BASE[1].1.replace("podinfo:6.8.0", "podinfo:6.9.0");
                self.by_person(&format!("write: {{{SPEC}: {}}}", quoted(&text)));
            }
        }
    }

    /// How people steer.
    fn control(&mut self) {
        let count = 1 + self.dice.roll(3);
        let before = |line: String| format!("  {line}\n  workload:");
        match self.dice.roll(8) {
            0 => self.edit(SPEC, "  workload:", &before("paused: true".to_owned())),
            1 => self.edit(SPEC, "  paused: true\n", ""),
            2 => self.edit(SPEC, "  workload:", &before("abort: true".to_owned())),
            3 => self.edit(SPEC, "  abort: true\n", ""),
            4 => self.edit(SPEC, "  workload:", &before(format!("retry: {count}"))),
            5 | 6 => self.edit(SPEC, "  workload:", &before(format!("resume: {count}"))),
            _ => self.edit(STATE, "approval: pending", "approval: granted"),
        }
    }

    /// What people do to files of ours.
    fn generated(&mut self) {
        let weight = self.dice.roll(11) * 10;
        let present = self.dice.pick(&["0", "10", "60", "100"]);
        match self.dice.roll(13) {
            0 | 1 => self.edit(
                STATE,
                &format!("\nweight: {present}\n"),
                &format!("\nweight: {weight}\n"),
            ),
            2 => self.edit(STATE, "\nstep: 2", "\nstep: 3"),
            3 => self.edit(STATE, "\nstep: 3", "\nstep: 1"),
            4 => {
                let weight = self.dice.roll(120);
                self.edit(ROUTES, "weight: 10\n", &format!("weight: {weight}\n"));
            }
            5 => self.edit(ROUTES, "timeout: 5s", "timeout: 9s"),
            6 => self.by_person(&format!("delete: [{FOLDER}]")),
            7 => {
                let file = self.dice.pick(&[RULE, ROUTES, CANDIDATE, STATE]);
                self.by_person(&format!("delete: [{file}]"));
            }
            8 => self.revert("canary("),
            9 => self.revert("promote"),
            10 => self.revert("->"),
            11 => {
                self.edit(STATE, "phase: ", "phase: Sideways ");
                if self.dice.roll(2) == 0 {
                    self.at += self.dice.roll(60);
                    self.edit(STATE, "phase: Sideways ", "phase: ");
                }
            }
            _ => {
                let copy = "apiVersion: serin.dev/v1alpha1\nkind: Rollout\ncanary: test/podinfo\nsequence: 90\n";
                let copy = quoted(copy);
                self.by_person(&format!(
                    "write: {{apps/copy/podinfo.serin/rollout.yaml: {copy}}}"
                ));
            }
        }
    }

    /// The second application's people.
    fn shop(&mut self) {
        match self.dice.roll(6) {
            0 => self.edit(SHOP_CANDIDATE, "shop:2.0", "shop:2.1"),
            1 => self.edit(SHOP, "stable: {version: v2}", "stable: {version: v1}"),
            2 => self.edit(SHOP, "spec:\n", "spec:\n  abort: true\n"),
            3 => self.revert("test/shop"),
            4 => {
                let weight = self.dice.roll(101);
                self.edit(SHOP_ROUTES, "weight: 20\n", &format!("weight: {weight}\n"));
            }
            _ => self.by_person(&format!("delete: [{SHOP_STATE}]")),
        }
    }

    /// What machines do.
    fn fault(&mut self) {
        let (at, later) = (self.at, self.at + 1 + self.dice.roll(200));
        let engine = 1 + self.dice.roll(self.engines);
        let event = match self.dice.roll(14) {
            0..=2 => {
                let moods = [
                    "up", "down", "empty", "nan", "partial", "hang", "refused", "stale", "absurd",
                ];
                let mood = self.dice.pick(&moods);
                format!("prometheus: {mood}}}\n- {{at: {later}s, prometheus: up")
            }
            3 => format!("remote: down}}\n- {{at: {later}s, remote: up"),
            4 => format!("refuse: \"no\"}}\n- {{at: {later}s, refuse: \"\""),
            5 | 6 => {
                let points = [
                    "before-fetch",
                    "after-fetch",
                    "before-observe",
                    "before-ask",
                    "after-ask",
                    "before-push",
                    "after-push",
                    "before-apply",
                    "after-apply",
                ];
                let point = self.dice.pick(&points);
                format!("engine: {engine}, crash: {point}")
            }
            7 => {
                let skews = ["0s", "20s", "-20s", "90s", "-90s", "1h", "-1h", "5h", "-5h"];
                let skew = self.dice.pick(&skews);
                format!("engine: {engine}, clock: {skew}")
            }
            8 => format!("lose: {}", self.dice.pick(&["accepted", "dropped"])),
            9 => format!("engine: {engine}, overtake: true"),
            10 => {
                let mood = self.dice.pick(&["up", "down", "lagging", "unready"]);
                format!("kubernetes: {mood}}}\n- {{at: {later}s, kubernetes: up")
            }
            11 => "resetCounters: true".to_owned(),
            12 => "deleteNamespace: true".to_owned(),
            _ => {
                format!("editCluster: {{file: {ROUTES}, from: \"weight: 10\", to: \"weight: 90\"}}")
            }
        };
        let _ = writeln!(self.out, "- {{at: {at}s, {event}}}");
    }

    /// Every fault ends and people mend what they did; then a version is proposed whose fate is certain.
    fn calm(&mut self) {
        self.at += 240;
        let at = self.at;
        let is_healthy = self.dice.roll(3) > 0;
        for event in [
            "prometheus: up",
            "remote: up",
            "refuse: \"\"",
            "kubernetes: up",
        ] {
            let _ = writeln!(self.out, "- {{at: {at}s, {event}}}");
        }
        for engine in 1..=self.engines {
            let _ = writeln!(self.out, "- {{at: {at}s, engine: {engine}, clock: 0s}}");
        }
        self.at += 1;
        let at = self.at;
        let _ = writeln!(
            self.out,
            "- {{at: {at}s, who: dana, says: Mend, delete: [apps/copy]}}"
        );
        for folder in [FOLDER, "apps/shop/shop.serin"] {
            let _ = writeln!(self.out, "- {{at: {at}s, who: dana, restore: {folder}}}");
        }
        let controls = "  retry: 90\n  resume: 90\n  workload:";
        let spec = BASE[1].1.replace("  workload:", controls);
        let mut files = vec![(SPEC, spec.clone()), (APP, BASE[0].1.to_owned())];
        if self.has_shop {
            let mut shop =
                SHOP_FILES.map(|(path, text)| (path, text.replace("shop:2.0", "shop:3.0")));
            shop[0].1 = shop[0]
                .1
                .replace("spec:\n", "spec:\n  retry: 90\n  resume: 90\n");
            files.extend(shop);
        }
        self.write("Mend", &files);
        self.at += 900;
        let version = if is_healthy { "7.0.0" } else { "7.0.1" };
        let proposed = spec.replace("podinfo:6.8.0", &format!("podinfo:{version}"));
        let proposed = proposed.replace("retry: 90", "retry: 91");
        self.write("Propose", &[(SPEC, proposed)]);
        let _ = write!(self.out, "lasts: {}s\nexpect:\n", self.at + 3_600);
        let mut expect = |file: &str, text: &str| {
            let _ = writeln!(self.out, "- {{file: {file}, contains: {}}}", quoted(text));
        };
        if is_healthy {
            expect(APP, "podinfo:7.0.0");
            expect(STATE, "phase: Idle");
        } else {
            expect(APP, "podinfo:6.8.0");
            expect(STATE, "phase: Failed");
            expect(STATE, "7.0.1");
        }
        if self.has_shop {
            expect(SHOP, "stable: {version: v2}");
            expect(SHOP_STATE, "phase: Idle");
        }
    }

    fn write(&mut self, says: &str, files: &[(&str, String)]) {
        let files: Vec<String> = files
            .iter()
            .map(|(path, text)| format!("{path}: {}", quoted(text)))
            .collect();
        let (at, files) = (self.at, files.join(", "));
        let _ = writeln!(
            self.out,
            "- {{at: {at}s, who: dana, says: {says}, write: {{{files}}}}}"
        );
    }

    fn edit(&mut self, file: &str, from: &str, to: &str) {
        let (from, to) = (quoted(from), quoted(to));
        self.by_person(&format!(
            "replace: [{{file: {file}, from: {from}, to: {to}}}]"
        ));
    }

    /// Somebody's commit, now or in the middle of the engine's next push.
    fn by_person(&mut self, change: &str) {
        let race = if self.dice.roll(4) == 0 {
            ", race: true"
        } else {
            ""
        };
        let at = self.at;
        let _ = writeln!(
            self.out,
            "- {{at: {at}s, who: alexis, says: Edit{race}, {change}}}"
        );
    }

    fn revert(&mut self, subject: &str) {
        let (at, subject) = (self.at, quoted(subject));
        let _ = writeln!(self.out, "- {{at: {at}s, revert: {subject}}}");
    }
}

/// A text as YAML reads it back.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
