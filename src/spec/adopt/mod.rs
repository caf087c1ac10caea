//! A first Canary for a Deployment that is in the repository already: what to write, and what to know before.
//!
//! Nothing is written here, and nothing that exists is replaced: the answer is a new file, and at most one label more.

mod objects;
mod overlaps;
mod remarks;
mod text;

pub use overlaps::overlaps;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use self::objects::{Object, Objects, text_at};
use super::file::Facts;
use super::mistake::{listed, nearest};
use super::parse_cache::ParseCache;
use super::promotion::Files;
use super::summary::labels_of;
use super::tree::{DEFAULT_NAMESPACE, Tree};
use super::{Catalog, Labels, Rejected, ValidatedCanary, Workload};
use crate::domain::{BlobId, CANARY_TRACK, CanaryId, RepoPath, TRACK_LABEL};
use crate::yaml::edit;

/// Value of the label that stable's pods get.
const STABLE_TRACK: &str = "stable";
/// Most names in a message.
const MOST_NAMED: usize = 5;

/// Which Deployment is to be adopted.
#[derive(Debug, Clone, Default)]
pub struct Asked<'a> {
    /// Its namespace, if given.
    pub namespace: Option<&'a str>,
    /// Its name.
    pub name: &'a str,
    /// Where to look; `None` for the whole tree.
    pub below: Option<&'a RepoPath>,
    /// The Service to use, if given.
    pub service: Option<&'a str>,
}

/// What to write.
#[derive(Debug, Clone, PartialEq)]
pub struct Adoption {
    /// The canary.
    pub id: CanaryId,
    /// The new file; `None` when there is a Canary already, and only the label is missing.
    pub canary: Option<(RepoPath, String)>,
    /// The label that tells stable from candidate, when the pod template lacks it.
    pub label: Option<LabelEdit>,
    /// What else is worth knowing, in sentences.
    pub remarks: Vec<String>,
}

/// One label more in a pod template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelEdit {
    /// The Deployment's manifest.
    pub file: RepoPath,
    /// The whole file with the label, or why it has to be added by hand.
    pub edited: Result<Vec<u8>, String>,
}

/// Why there is nothing to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CannotAdopt {
    /// It is not clear which Deployment or Service is meant.
    #[error("{0}")]
    Unclear(String),
    /// The manifests are not fit for it, or it is done already.
    #[error("{0}")]
    Unfit(String),
}

use CannotAdopt::{Unclear, Unfit};

/// Says what to write.
pub fn adopt(files: &Files, asked: &Asked<'_>) -> Result<Adoption, CannotAdopt> {
    let mut cache = ParseCache::default();
    let read = Arc::new(files.clone());
    cache.read(&read);
    let facts = cache.facts().into_owned();
    let ours = super::catalog::generated_folders(&facts);
    let tree = Tree::new(&facts, &ours);
    let objects = Objects::read(files, &facts, &tree);
    let job = Job {
        asked,
        files,
        tree: &tree,
        objects: &objects,
    };
    let target = job.target()?;
    let catalog = Catalog::read_remembering(&read, &[], &mut cache);
    let present = present(&catalog, &target)?;
    let labels = job.labels(&target)?;
    let label = job.label(&target, &labels)?;
    let Some(present) = present else {
        return job.propose(target, &labels, label);
    };
    match label {
        Some(label) => Ok(Adoption {
            id: target.id,
            canary: None,
            label: Some(label),
            remarks: Vec::new(),
        }),
        None => Err(Unfit(format!(
            "{} is adopted already: its canary is in {present}",
            target.id
        ))),
    }
}

/// The Deployment, and where its canary goes.
struct Target<'t, 'f> {
    object: &'t Object<'f>,
    id: CanaryId,
    /// The namespace to write, when the Deployment's own manifest or the person names one.
    written: Option<String>,
    /// The folder for the canary, as a file in it.
    home: RepoPath,
    /// The Deployment as the cluster will see it.
    manifest: Value,
}

struct Job<'t, 'f, 'a> {
    asked: &'t Asked<'a>,
    files: &'f Files,
    tree: &'t Tree,
    objects: &'t Objects<'f>,
}

impl<'t, 'f> Job<'t, 'f, '_> {
    fn target(&self) -> Result<Target<'t, 'f>, CannotAdopt> {
        let asked = self.asked;
        let named: Vec<&Object<'f>> = self
            .objects
            .of_kind("Deployment")
            .filter(|object| object.name == asked.name)
            .filter(|object| asked.below.is_none_or(|below| object.file.is_within(below)))
            .filter(|object| asked.namespace.is_none_or(|ns| object.may_be_in(ns)))
            .collect();
        let object = match named.as_slice() {
            [] => return Err(self.unknown()),
            [one] => *one,
            several => {
                let places: Vec<String> = several.iter().map(|object| object.placed()).collect();
                return Err(Unclear(format!(
                    "there are several Deployments `{}`: {}; give <namespace>/<name>, or --path to say where to look",
                    asked.name,
                    places.join(", ")
                )));
            }
        };
        let (namespace, written, home) = self.place(object)?;
        let manifest = self
            .tree
            .deployment(&namespace, asked.name, &home)
            .map_err(Unfit)?
            .read()
            .manifest;
        Ok(Target {
            object,
            id: CanaryId::new(namespace, asked.name),
            written,
            home,
            manifest,
        })
    }

    /// Namespace, whether to write it, and a file beside which the canary goes.
    fn place(
        &self,
        object: &Object<'f>,
    ) -> Result<(String, Option<String>, RepoPath), CannotAdopt> {
        let beside = object.file.clone();
        if let Some(own) = &object.own_namespace {
            return Ok((own.clone(), Some(own.clone()), beside));
        }
        let sources = self.tree.namespaces(object.file);
        let asked = self.asked.namespace.map(str::to_owned);
        match (sources.len(), asked) {
            (0, asked) => {
                let namespace = asked.clone();
                Ok((
                    namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
                    asked,
                    beside,
                ))
            }
            (1, _) => {
                let namespace = sources.keys().next().cloned().unwrap_or_default();
                // The canary is no resource of the kustomization, so it says so itself.
                Ok((namespace.clone(), Some(namespace), beside))
            }
            (_, Some(asked)) => {
                let source = sources.get(&asked).cloned();
                Ok((asked.clone(), Some(asked), source.unwrap_or(beside)))
            }
            (_, None) => Err(Unclear(format!(
                "kustomizations bring the Deployment `{}` into several namespaces: say which, as in \
                 `serin adopt {}/{}`; there are {}",
                object.name,
                sources.keys().next().map_or("", String::as_str),
                object.name,
                listed(sources.keys().map(String::as_str))
            ))),
        }
    }

    fn unknown(&self) -> CannotAdopt {
        let Asked {
            namespace,
            name,
            below,
            ..
        } = self.asked;
        let place = below.map_or_else(|| "here".to_owned(), |below| format!("below {below}"));
        let all: Vec<&Object<'f>> = self.objects.of_kind("Deployment").collect();
        let same_name = || all.iter().filter(|object| object.name == *name);
        let wanted = namespace.map_or_else(
            || format!("`{name}`"),
            |namespace| format!("`{name}` in namespace `{namespace}`"),
        );
        if same_name().next().is_some() {
            let places: Vec<String> = same_name().map(|object| object.placed()).collect();
            return Unclear(format!(
                "there is no Deployment {wanted} {place}; there is {}",
                places.join(", ")
            ));
        }
        let other = ["StatefulSet", "DaemonSet", "Rollout"]
            .into_iter()
            .find(|kind| {
                self.objects
                    .of_kind(kind)
                    .any(|object| object.name == *name)
            });
        if let Some(kind) = other {
            return Unclear(format!(
                "`{name}` is a {kind}, not a Deployment: Serin rolls out Deployments"
            ));
        }
        let names: std::collections::BTreeSet<&str> =
            all.iter().map(|object| object.name.as_str()).collect();
        let hint = match nearest(name, names.iter().copied()) {
            Some(meant) => format!(" (did you mean `{meant}`?)"),
            None if names.is_empty() => ", and no other".to_owned(),
            None if names.len() <= MOST_NAMED => format!("; there are {}", listed(names)),
            None => format!(
                "; there are {} and {} more",
                listed(names.iter().take(MOST_NAMED).copied()),
                names.len() - MOST_NAMED
            ),
        };
        Unclear(format!("there is no Deployment {wanted} {place}{hint}"))
    }

    /// The labels of stable's pods.
    fn labels(&self, target: &Target<'_, '_>) -> Result<Labels, CannotAdopt> {
        let labels = labels_of(&target.manifest["spec"]["template"]);
        let file = target.object.file;
        if labels.is_empty() {
            return Err(Unfit(format!(
                "the pod template of the Deployment `{}` in {file} has no labels, so no Service can select its pods: \
                 give it some, and a Service that selects them",
                target.object.name
            )));
        }
        let selector = objects::labels(&target.manifest["spec"]["selector"]["matchLabels"]);
        let missed = missed(&selector, &labels);
        if !missed.is_empty() {
            return Err(Unfit(format!(
                "the selector of the Deployment `{}` in {file} wants {}, which its own pod template is not labelled \
                 with: Kubernetes refuses such a Deployment",
                target.object.name,
                listed(missed.iter().map(String::as_str))
            )));
        }
        Ok(labels)
    }

    /// The label that is missing, if it is.
    fn label(
        &self,
        target: &Target<'_, '_>,
        labels: &Labels,
    ) -> Result<Option<LabelEdit>, CannotAdopt> {
        let object = target.object;
        match labels.get(TRACK_LABEL).map(String::as_str) {
            Some(CANARY_TRACK) => {
                return Err(Unfit(format!(
                    "the pods of the Deployment `{}` in {} are labelled `{TRACK_LABEL}: {CANARY_TRACK}`, which is the \
                     candidate's label: give them another value, such as `{STABLE_TRACK}`",
                    object.name, object.file
                )));
            }
            Some(_) => return Ok(None),
            None => {}
        }
        let path = ["spec", "template", "metadata", "labels"];
        let mut wanted = object
            .value
            .pointer("/spec/template/metadata/labels")
            .cloned();
        if let Some(labels) = wanted.as_mut().and_then(Value::as_object_mut) {
            labels.insert(TRACK_LABEL.to_owned(), json!(STABLE_TRACK));
        }
        let edited = match (self.files.get(object.file), wanted) {
            (Some((_, bytes)), Some(wanted)) => edit::rewrite(bytes, object.index, &path, &wanted)
                .map_err(|error| error.to_string()),
            _ => Err("the labels are not written in the manifest itself".to_owned()),
        };
        Ok(Some(LabelEdit {
            file: object.file.clone(),
            edited,
        }))
    }

    fn propose(
        &self,
        target: Target<'_, 'f>,
        labels: &Labels,
        label: Option<LabelEdit>,
    ) -> Result<Adoption, CannotAdopt> {
        let service = self.service(&target, labels)?;
        let port = service.http_port()?;
        let file = self.free_file(&target)?;
        let text = text::canary(&text::Content {
            file: &file,
            name: &target.id.name,
            namespace: target.written.as_deref(),
            containers: &containers(&target.manifest),
            service: &service.name,
            port,
            more_ports: service.ports().len() > 1,
        });
        let near = self.objects.near(target.object, &target.id.namespace);
        let subject = remarks::Subject {
            deployment: target.object,
            id: &target.id,
            stable: labels,
            key: TRACK_LABEL,
            service: &service.name,
        };
        let found = remarks::of(&near, &subject);
        let mut remarks: Vec<String> = found.into_iter().map(|remark| remark.words).collect();
        remarks.extend(remarks::of_kustomization(self.tree, &target.id.name, &file));
        let valid = self.check(&file, &text, label.as_ref(), &target.id)?;
        remarks.extend(valid);
        Ok(Adoption {
            id: target.id,
            canary: Some((file, text)),
            label,
            remarks,
        })
    }

    /// The Service in front of the pods.
    fn service(
        &self,
        target: &Target<'_, 'f>,
        labels: &Labels,
    ) -> Result<&'t Object<'f>, CannotAdopt> {
        let near: Vec<&Object<'f>> = self
            .objects
            .of_kind("Service")
            .filter(|service| service.is_near(target.object, &target.id.namespace))
            .collect();
        let selects = |service: &&&Object<'f>| service.selects(labels);
        let selecting: Vec<&Object<'f>> = near.iter().filter(selects).copied().collect();
        let name = &target.id.name;
        if let Some(wanted) = self.asked.service {
            let found = near.iter().find(|service| service.name == wanted).copied();
            return match found {
                Some(service) if service.selects(labels) => Ok(service),
                Some(service) => Err(Unfit(format!(
                    "the Service `{wanted}` ({}) does not select the pods of `{name}`: it wants {}",
                    service.file,
                    listed(
                        missed(&service.selector(), labels)
                            .iter()
                            .map(String::as_str)
                    )
                ))),
                None => Err(Unclear(format!(
                    "there is no Service `{wanted}` near the Deployment `{name}`{}",
                    super::mistake::suggestion(wanted, near.iter().map(|s| s.name.as_str()))
                ))),
            };
        }
        match selecting.as_slice() {
            [one] => Ok(one),
            [] => Err(no_service(name, labels, &near)),
            several => several
                .iter()
                .find(|service| service.name == *name)
                .copied()
                .ok_or_else(|| {
                    Unclear(format!(
                        "several Services select the pods of `{name}`: {}; say which one with --service",
                        listed(several.iter().map(|service| service.name.as_str()))
                    ))
                }),
        }
    }

    /// A file that is not there yet.
    fn free_file(&self, target: &Target<'_, '_>) -> Result<RepoPath, CannotAdopt> {
        let own = format!("{}-canary.yaml", target.id.name);
        ["canary.yaml", &own]
            .into_iter()
            .filter_map(|name| target.home.sibling(name))
            .find(|path| !self.files.contains_key(path))
            .ok_or_else(|| {
                Unfit(format!(
                    "`canary.yaml` and `{own}` are both there already, beside {}: nothing is overwritten",
                    target.home
                ))
            })
    }

    /// The tree as it would be, read as `serin validate` reads it. Answers with warnings.
    fn check(
        &self,
        file: &RepoPath,
        text: &str,
        label: Option<&LabelEdit>,
        id: &CanaryId,
    ) -> Result<Vec<String>, CannotAdopt> {
        let mut files = self.files.clone();
        let mut write = |path: &RepoPath, bytes: &[u8]| {
            let blob = BlobId(format!("{path} as it would be").into());
            files.insert(path.clone(), (blob, Arc::from(bytes)));
        };
        write(file, text.as_bytes());
        if let Some(LabelEdit {
            file,
            edited: Ok(bytes),
        }) = label
        {
            write(file, bytes);
        }
        let catalog = Catalog::read(&files, &mut ParseCache::default());
        let told: Vec<String> = catalog
            .diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.file == *file)
            .map(ToString::to_string)
            .collect();
        match catalog.canaries.get(id) {
            Some(Ok(_)) => Ok(told),
            _ => Err(Unfit(format!(
                "a canary for `{}` would not be valid: {}",
                id.name,
                told.first().map_or("it was not found", String::as_str)
            ))),
        }
    }
}

/// The file of the canary that has this Deployment, or a mistake that hides it.
fn present(catalog: &Catalog, target: &Target<'_, '_>) -> Result<Option<RepoPath>, CannotAdopt> {
    let has = |canary: &ValidatedCanary| match &canary.workload {
        Workload::Managed(managed) => managed.deployment == target.id.name,
        Workload::BringYourOwn(two) => {
            let mut all = two
                .stable_deployments
                .iter()
                .chain(&two.candidate_deployments);
            all.any(|name| *name == target.id.name)
        }
    };
    for (id, result) in &catalog.canaries {
        match result {
            Ok(canary) if id.namespace == target.id.namespace && has(canary) => {
                return Ok(Some(canary.home.file.clone()));
            }
            Err(Rejected {
                file, diagnostics, ..
            }) if *id == target.id => {
                let first = diagnostics.first().map(ToString::to_string);
                return Err(Unfit(format!(
                    "there is a Canary {id} in {file} already, and it has mistakes: {}",
                    first.unwrap_or_default()
                )));
            }
            Ok(canary) if *id == target.id => {
                return Err(Unfit(format!(
                    "there is a Canary {id} already, for another workload: {}",
                    canary.home.file
                )));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// What of a selector pods are not labelled with.
fn missed(selector: &Labels, labels: &Labels) -> Vec<String> {
    selector
        .iter()
        .filter(|(key, value)| labels.get(*key) != Some(value))
        .map(|(key, value)| format!("{key}={value}"))
        .collect()
}

fn no_service(name: &str, labels: &Labels, near: &[&Object<'_>]) -> CannotAdopt {
    let own: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    // The one that asks for the same kind of label, or is called the same, was probably meant.
    let almost = near.iter().find(|service| {
        service.name == name
            || service
                .selector()
                .keys()
                .any(|key| labels.contains_key(key))
    });
    let hint = match almost {
        Some(service) => format!(
            "; the Service `{}` ({}) selects {}",
            service.name,
            service.file,
            listed(
                service
                    .selector()
                    .iter()
                    .map(|(k, v)| format!("{k}={v}"))
                    .collect::<Vec<_>>()
                    .iter()
                    .map(String::as_str)
            )
        ),
        None => String::new(),
    };
    Unfit(format!(
        "no Service selects the pods of `{name}`, which are labelled {}{hint}: Istio routes to Services, so write one that \
         selects them",
        listed(own.iter().map(String::as_str))
    ))
}

/// Names and images, as they take effect.
fn containers(manifest: &Value) -> Vec<(String, String)> {
    let containers = manifest["spec"]["template"]["spec"]["containers"].as_array();
    containers
        .into_iter()
        .flatten()
        .map(|container| (text_at(container, "/name"), text_at(container, "/image")))
        .filter(|(name, image)| !name.is_empty() && !image.is_empty())
        .collect()
}

/// Facts by file.
type AllFacts = BTreeMap<RepoPath, Arc<Facts>>;

#[cfg(test)]
mod tests;
