//! What meets the candidate's pods or the generated routes of canaries that are written already: the warnings of `adopt`, for
//! objects that came later.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::canary::{ManagedWorkload, ValidatedCanary, Workload};
use super::super::catalog::{self, Catalog};
use super::super::diagnostic::{Diagnostic, Severity};
use super::super::names::canonical_host;
use super::super::parse_cache::ParseCache;
use super::super::promotion::Files;
use super::super::tree::{Tree, folder};
use super::objects::{Object, Objects, labels};
use super::remarks::{self, Remark, Subject};

/// Warnings about the user's own objects that would catch a candidate's pods, or steer the same traffic, at their own places.
pub fn overlaps(files: &Files, catalog: &Catalog) -> Vec<Diagnostic> {
    let mut cache = ParseCache::default();
    cache.read(&Arc::new(files.clone()));
    let facts = cache.facts();
    let ours = catalog::generated_folders(&facts);
    let objects = Objects::read(files, &facts, &Tree::new(&facts, &ours));
    let places = Places::of(&objects);
    let canaries = catalog.canaries.values().flatten();
    let mut found: Vec<Diagnostic> = canaries
        .filter_map(|canary| match &canary.workload {
            Workload::Managed(workload) => Some((canary, workload)),
            Workload::BringYourOwn(_) => None,
        })
        .flat_map(|(canary, workload)| about(canary, workload, &places))
        .collect();
    found.sort();
    found
}

/// Objects by where they end up, so that a large repository is not looked through for every canary.
struct Places<'o, 'f> {
    namespaces: BTreeMap<&'o str, Vec<&'o Object<'f>>>,
    /// Those of which nothing says a namespace, by folder.
    anywhere: BTreeMap<&'o str, Vec<&'o Object<'f>>>,
}

impl<'o, 'f> Places<'o, 'f> {
    fn of(objects: &'o Objects<'f>) -> Self {
        let mut places = Self {
            namespaces: BTreeMap::new(),
            anywhere: BTreeMap::new(),
        };
        for object in objects.iter() {
            for namespace in object.namespaces() {
                places.namespaces.entry(namespace).or_default().push(object);
            }
            if object.is_anywhere() {
                let folder = folder(object.file);
                places.anywhere.entry(folder).or_default().push(object);
            }
        }
        places
    }

    /// What ends up in a namespace, and what may because it lies beside a file.
    fn near(&self, namespace: &str, beside: &str) -> Vec<&'o Object<'f>> {
        let here = self.namespaces.get(namespace).into_iter().flatten();
        let beside = self.anywhere.get(beside).into_iter().flatten();
        here.chain(beside).copied().collect()
    }
}

fn about(
    canary: &ValidatedCanary,
    workload: &ManagedWorkload,
    places: &Places<'_, '_>,
) -> Vec<Diagnostic> {
    let near = places.near(&canary.id.namespace, folder(&workload.file));
    let deployment = near.iter().copied().find(|object| {
        object.kind == "Deployment"
            && object.name == workload.deployment
            && *object.file == workload.file
    });
    let Some(deployment) = deployment else {
        return Vec::new();
    };
    let stable = labels(&workload.manifest.read()["spec"]["template"]["metadata"]["labels"]);
    let subject = Subject {
        deployment,
        id: &canary.id,
        stable: &stable,
        key: &workload.label_key,
        service: &canary.route.service,
    };
    remarks::of(&near, &subject)
        .into_iter()
        .filter(|remark| remark.is_wrong && !is_meant(remark, canary))
        .map(|remark| Diagnostic {
            file: remark.about.file.clone(),
            line: remark.about.line,
            column: 1,
            severity: Severity::Warning,
            message: format!("the canary `{}`: {}", canary.id, remark.words),
        })
        .collect()
}

/// Whether the spec says that it knows of it.
fn is_meant(remark: &Remark<'_, '_>, canary: &ValidatedCanary) -> bool {
    let namespace = &canary.id.namespace;
    match remark.about.kind {
        "Service" => {
            let host = canonical_host(&remark.about.name, namespace);
            let mut hosts = canary.route.hosts.iter();
            hosts.any(|known| canonical_host(known, namespace) == host)
        }
        // A root VirtualService delegates to ours; one for other gateways steers other traffic.
        "VirtualService" => canary.route.delegate || !shares_a_gateway(remark.about, canary),
        _ => false,
    }
}

fn shares_a_gateway(other: &Object<'_>, canary: &ValidatedCanary) -> bool {
    use super::super::names::canonical_gateway;
    let namespace = &canary.id.namespace;
    let canonical = |gateways: Vec<&str>| -> Vec<String> {
        let named = if gateways.is_empty() {
            vec!["mesh"]
        } else {
            gateways
        };
        let named = named.into_iter();
        named
            .map(|gateway| canonical_gateway(gateway, namespace))
            .collect()
    };
    let theirs = other.value["spec"]["gateways"].as_array();
    let theirs = canonical(
        theirs
            .into_iter()
            .flatten()
            .filter_map(|g| g.as_str())
            .collect(),
    );
    let ours = canonical(canary.route.gateways.iter().map(String::as_str).collect());
    theirs.iter().any(|gateway| ours.contains(gateway))
}
