//! Replicas that take, renew, lose and share Leases.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + second, 0).unwrap()
}

fn record(holder: &str, version: &str) -> Record {
    Record {
        holder: Some(holder.to_owned()),
        duration: DURATION,
        transitions: 3,
        version: version.to_owned(),
    }
}

#[test]
fn a_lease_is_taken_when_nobody_has_it() {
    assert_eq!(claim(None, "a", at(0)), Claim::Take);
    let given_back = Sighted {
        record: Record::default(),
        since: at(0),
    };
    assert_eq!(claim(Some(&given_back), "a", at(0)), Claim::Take);
    assert_eq!(held_by("a", None).transitions, 0);
    assert_eq!(held_by("a", Some(&record("b", "1"))).transitions, 4);
    assert_eq!(held_by("a", Some(&record("a", "1"))).transitions, 3);
}

#[test]
fn a_silent_holder_loses_it_by_our_own_watch() {
    let first = Sighted::again(None, record("b", "1"), at(0));
    let until = at(15);
    assert_eq!(claim(Some(&first), "a", at(14)), Claim::StandBy { until });
    assert_eq!(claim(Some(&first), "a", at(15)), Claim::Take);
    // It spoke in between: the time starts anew.
    let second = Sighted::again(Some(&first), record("b", "2"), at(10));
    let until = at(25);
    assert_eq!(claim(Some(&second), "a", at(15)), Claim::StandBy { until });
    // The same record, seen again, is as old as it was.
    assert_eq!(
        Sighted::again(Some(&second), record("b", "2"), at(20)),
        second
    );
    assert_eq!(claim(Some(&second), "b", at(99)), Claim::Renew);
}

#[test]
fn a_holder_stops_before_others_may_take_over() {
    assert!(may_act(Some(at(0)), at(9)));
    assert!(!may_act(Some(at(0)), at(10)));
    assert!(!may_act(None, at(0)));
    // The watch was set back by an hour.
    assert!(!may_act(Some(at(3600)), at(0)));
    assert!(RENEWAL * 2 < GRACE && GRACE < DURATION);
}

proptest! {
    /// Replicas that follow the balance end with every Lease held and nobody above the share.
    #[test]
    fn leases_spread_evenly(leases in 0_usize..60, start in prop::collection::vec(0_usize..60, 1..8)) {
        let members = start.len();
        let mut held = start;
        // Nobody can hold more leases than there are.
        let mut left = leases;
        for count in &mut held {
            *count = (*count).min(left);
            left -= *count;
        }
        for _ in 0..members + 2 {
            for holds in &mut held {
                match balance(*holds, leases, members) {
                    Balance::GiveBack(count) => {
                        *holds -= count;
                        left += count;
                    }
                    Balance::MayTake(count) => {
                        let taken = count.min(left);
                        *holds += taken;
                        left -= taken;
                    }
                    Balance::Enough => {}
                }
            }
        }
        prop_assert_eq!(left, 0);
        prop_assert!(held.iter().all(|count| *count <= leases.div_ceil(members)));
    }
}

#[test]
fn shares_are_stable_and_about_equal() {
    let mut sizes: BTreeMap<String, usize> = BTreeMap::new();
    for index in 0..3_000 {
        let namespace = format!("team-{index}");
        let owners: Vec<Share> = Share::all(3)
            .filter(|share| share.has(&namespace))
            .collect();
        assert_eq!(owners.len(), 1);
        *sizes.entry(owners[0].called("apps")).or_default() += 1;
        assert!(Share::WHOLE.has(&namespace));
    }
    let names: Vec<&str> = sizes.keys().map(String::as_str).collect();
    assert_eq!(names, ["apps", "apps.2", "apps.3"]);
    assert!(
        sizes.values().all(|size| (900..1_100).contains(size)),
        "{sizes:?}"
    );
    assert_eq!(Share::all(0).collect::<Vec<_>>(), [Share::WHOLE]);
    let of_test = Share::all(16).position(|share| share.has("test"));
    assert_eq!(of_test, Some(1));
}

#[test]
fn every_work_has_a_name_that_kubernetes_takes() {
    for plain in ["platform", "platform.2", "a-b", "member-serin-0"] {
        assert_eq!(object_name(plain), plain);
    }
    let odd = [
        "my_repo", "my-repo_", "My-Repo", "a..b", "-a", "a-", "a.-b", "", "_", "é",
    ];
    let named: std::collections::BTreeSet<String> =
        odd.iter().map(|work| object_name(work)).collect();
    assert_eq!(named.len(), odd.len(), "{named:?}");
    for name in &named {
        assert!(is_object_name(name), "{name}");
        // Whoever has the name already is not renamed.
        assert_eq!(object_name(name), *name);
    }
    assert!(object_name("My_Repo").starts_with("my-repo-"));
    assert!(is_object_name(&object_name(&"x_".repeat(200))));
}
