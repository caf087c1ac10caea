//! Which live rules and routes are about which host. There is one of each for every canary, so that a change touches its own
//! hosts only, and what is remembered is small.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::applier::key::ObjectKey;
use crate::applier::live::{Live, Nature};
use crate::applier::order::full_host;

/// Names of subsets, sorted.
type Subsets = Box<[String]>;
/// What a few objects say; there is hardly ever more than one.
type Few<T> = Vec<(ObjectKey, T)>;

/// What live rules and routes say of hosts.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    /// Subsets that rules have.
    rules: BTreeMap<Arc<str>, Few<Subsets>>,
    /// Subsets that routes name.
    routes: BTreeMap<Arc<str>, Few<Subsets>>,
    /// Routes of the mesh.
    routing: BTreeMap<Arc<str>, Few<()>>,
    /// The hosts under which an object is in the three maps above.
    of: BTreeMap<ObjectKey, Vec<Arc<str>>>,
    /// Routes that nobody but people look after.
    strange: BTreeSet<ObjectKey>,
}

impl Hosts {
    /// Subsets that rules have for a host, by rule.
    pub(super) fn had(&self, host: &str) -> impl Iterator<Item = &String> {
        let rules = self.rules.get(host).into_iter().flatten();
        rules.flat_map(|(_, subsets)| subsets.iter())
    }

    /// Subsets that routes name of a host, by route.
    pub(super) fn named(&self, host: &str) -> impl Iterator<Item = (&ObjectKey, &[String])> {
        let routes = self.routes.get(host).into_iter().flatten();
        routes.map(|(route, subsets)| (route, &**subsets))
    }

    /// Routes of the mesh for a host.
    pub(super) fn routing(&self, host: &str) -> impl Iterator<Item = &ObjectKey> {
        let routing = self.routing.get(host).into_iter().flatten();
        routing.map(|(route, ())| route)
    }

    /// Whether there are routes that nobody but people look after.
    pub(super) fn has_strange(&self) -> bool {
        !self.strange.is_empty()
    }

    /// Takes note of a live object, or that there is none; answers the hosts of which it no longer names all subsets.
    pub(super) fn note(&mut self, key: &ObjectKey, live: Option<&Live>) -> Vec<Arc<str>> {
        if key.kind.group != "networking.istio.io" {
            return Vec::new();
        }
        let is_strange = key.kind.kind == "VirtualService" && live.is_some_and(Live::is_strange);
        match is_strange {
            true => self.strange.insert(key.clone()),
            false => self.strange.remove(key),
        };
        let mut before = Vec::new();
        for host in self.of.remove(key).unwrap_or_default() {
            take_out(&mut self.rules, &host, key);
            take_out(&mut self.routing, &host, key);
            let named = take_out(&mut self.routes, &host, key);
            before.extend(named.map(|named| (host, named)));
        }
        if let Some(live) = live {
            self.put(key, &live.nature);
        }
        before.retain(|(host, named)| {
            let mut after = self.named(host);
            let after = after.find(|(route, _)| *route == key);
            after.is_none_or(|(_, after)| named.iter().any(|subset| !after.contains(subset)))
        });
        before.into_iter().map(|(host, _)| host).collect()
    }

    fn put(&mut self, key: &ObjectKey, nature: &Nature) {
        let namespace = key.namespace.as_deref().unwrap_or_default();
        let full = |host: &String| -> Arc<str> { full_host(host, namespace).into() };
        let sorted = |subsets: &BTreeSet<String>| subsets.iter().cloned().collect();
        let mut hosts = Vec::new();
        match nature {
            Nature::Rule(rule) => {
                let host = full(&rule.0);
                put_in(&mut self.rules, &host, key, sorted(&rule.1));
                hosts.push(host);
            }
            Nature::Routes(routes) => {
                let (subsets, mesh) = &**routes;
                for (host, subsets) in subsets {
                    let host = full(host);
                    put_in(&mut self.routes, &host, key, sorted(subsets));
                    hosts.push(host);
                }
                for host in mesh {
                    let host = full(host);
                    put_in(&mut self.routing, &host, key, ());
                    if !hosts.contains(&host) {
                        hosts.push(host);
                    }
                }
            }
            Nature::Plain
            | Nature::Deployment(_)
            | Nature::Definition(_)
            | Nature::Namespace(_) => return,
        }
        hosts.shrink_to_fit();
        self.of.insert(key.clone(), hosts);
    }
}

fn put_in<T>(map: &mut BTreeMap<Arc<str>, Few<T>>, host: &Arc<str>, key: &ObjectKey, said: T) {
    let few = map.entry(Arc::clone(host)).or_default();
    few.retain(|(other, _)| other != key);
    few.reserve_exact(1);
    few.push((key.clone(), said));
}

/// Takes out what an object says of a host, and the host when nothing is left there.
fn take_out<T>(map: &mut BTreeMap<Arc<str>, Few<T>>, host: &str, key: &ObjectKey) -> Option<T> {
    let few = map.get_mut(host)?;
    let index = few.iter().position(|(other, _)| other == key)?;
    let (_, said) = few.swap_remove(index);
    if few.is_empty() {
        map.remove(host);
    }
    Some(said)
}
