//! A draft against the rest of the repository: the Service and the Deployments that it names.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::draft::{Draft, Parts, ProposalPart, WorkloadPart};
use super::file::ServiceFact;
use super::image::containers;
use super::marker;
use super::mistake::{Mistakes, Place, listed, suggestion};
use super::summary::{candidate_summary, images_summary, is_older, labels_of, labels_summary};
use super::tree::{Effective, FoundDeployment, Rewriter, Tree};
use super::{
    Candidate, CandidateContent, Diagnostic, Home, ImageSources, Labels, ManagedWorkload, Severity,
    TwoVersions, ValidatedCanary, Version, Workload, patch,
};
use crate::domain::{CANARY_TRACK, CanaryId, Manifest, RepoPath, Revision, canary_deployment};

/// The outcome: the canary if nothing is wrong, what is wrong in its own file, what to remark on in others.
pub(super) struct Resolved {
    pub(super) canary: Option<ValidatedCanary>,
    pub(super) mistakes: Mistakes,
    pub(super) remarks: Vec<Diagnostic>,
}

/// Stable's Deployment.
struct Stable<'a> {
    found: FoundDeployment<'a>,
    /// With all that other files say of its images.
    manifest: Manifest,
    written_replicas: Option<u64>,
    rewritten_in: Vec<Rewriter<'a>>,
    /// Its pod template.
    template: Value,
}

/// Looks up what `draft` needs from other files.
pub(super) fn resolve(
    draft: &Draft,
    parts: &Parts,
    id: &CanaryId,
    home: &Home,
    tree: &Tree,
) -> Resolved {
    let mut job = Job {
        id,
        home,
        tree,
        mistakes: Mistakes::default(),
        remarks: Vec::new(),
    };
    let service = job.service(parts);
    let workload = match &parts.workload {
        WorkloadPart::Managed { .. } => job.managed(&parts.workload, service),
        WorkloadPart::Versions { .. } => job.two_versions(&parts.workload, service),
    };
    let is_sound =
        draft.mistakes.iter().all(|m| m.severity != Severity::Error) && !job.mistakes.has_errors();
    let canary = workload
        .filter(|_| is_sound)
        .map(|(workload, stable, proposal)| ValidatedCanary {
            id: id.clone(),
            home: home.clone(),
            workload,
            stable,
            proposal,
            route: parts.route.clone(),
            users: parts.users.clone(),
            ladder: parts.ladder.clone(),
            ladder_revision: parts.ladder_revision.clone(),
            analysis: parts.analysis.clone(),
            controls: parts.controls.clone(),
        });
    Resolved {
        canary,
        mistakes: job.mistakes,
        remarks: job.remarks,
    }
}

type Outcome = Option<(Workload, Version, Option<Candidate>)>;

struct Job<'a> {
    id: &'a CanaryId,
    home: &'a Home,
    tree: &'a Tree,
    mistakes: Mistakes,
    remarks: Vec<Diagnostic>,
}

impl<'a> Job<'a> {
    fn service(&mut self, parts: &Parts) -> Option<&'a ServiceFact> {
        let place = parts.route_places.service;
        let name = &parts.route.service;
        let service = match self.tree.service(&self.id.namespace, name, &self.home.file) {
            Ok(placed) => &*placed.fact,
            Err(problem) => {
                self.mistakes.error(place, problem);
                return None;
            }
        };
        if service.selector.is_empty() {
            self.mistakes.error(
                place,
                format!("the Service `{name}` has no selector: it has to select the pods of both versions"),
            );
        }
        let ports: Vec<String> = service
            .ports
            .iter()
            .map(|(number, name)| match name {
                Some(name) => format!("{number} ({name})"),
                None => number.to_string(),
            })
            .collect();
        let ports = ports.join(", ");
        match parts.route.port {
            Some(port)
                if service
                    .ports
                    .iter()
                    .all(|(number, _)| *number != u64::from(port)) =>
            {
                let known = if ports.is_empty() {
                    "none".to_owned()
                } else {
                    ports
                };
                self.mistakes.error(
                    parts.route_places.port.unwrap_or(place),
                    format!("the Service `{name}` has no port {port}; its ports are: {known}"),
                );
            }
            None if service.ports.len() > 1 => self.mistakes.error(
                place,
                format!("the Service `{name}` has several ports ({ports}): say which with `port`"),
            ),
            _ => {}
        }
        Some(service)
    }

    fn managed(&mut self, part: &WorkloadPart, service: Option<&ServiceFact>) -> Outcome {
        let WorkloadPart::Managed {
            deployment,
            place,
            label_key,
            replicas,
            proposal,
        } = part
        else {
            return None;
        };
        let stable = self.stable(deployment, *place)?;
        let Stable {
            found,
            manifest,
            written_replicas,
            rewritten_in,
            template,
        } = stable;
        let labels = labels_of(&template);
        if let Some(service) = service {
            self.check_selector(service, deployment, &labels, *place);
            if service.selector.contains_key(label_key) {
                self.mistakes.error(
                    *place,
                    format!(
                        "the selector of the Service `{}` contains `{label_key}`, the label that tells stable from \
                         candidate: it would leave one of them out",
                        service.name
                    ),
                );
            }
        }
        let stable_value = labels.get(label_key).cloned();
        if stable_value.as_deref() == Some(CANARY_TRACK) {
            self.mistakes.error(
                *place,
                format!(
                    "stable's pods ({}) are labelled `{label_key}: {CANARY_TRACK}`, which is the candidate's: give \
                     them another value, such as `stable`",
                    found.file
                ),
            );
        }
        self.warn_of_rewrites(&rewritten_in);
        let stable = Version {
            revision: Revision::of(&template),
            summary: images_summary(&template),
        };
        let candidate = proposal
            .as_ref()
            .and_then(|proposal| self.candidate(proposal, &template, &stable));
        let images = self.image_sources(&found, &rewritten_in);
        let workload = Workload::Managed(ManagedWorkload {
            deployment: deployment.clone(),
            file: found.file.clone(),
            images,
            manifest,
            written_replicas,
            label_key: label_key.clone(),
            stable_value,
            replicas: *replicas,
        });
        Some((workload, stable, candidate))
    }

    /// Looks up stable's Deployment.
    fn stable(&mut self, name: &str, place: Place) -> Option<Stable<'a>> {
        let (namespace, home) = (&self.id.namespace, &self.home.file);
        let found = match self.tree.deployment(namespace, name, home) {
            Ok(found) => found,
            Err(problem) => {
                self.mistakes.error(place, problem);
                return None;
            }
        };
        let canary_name = canary_deployment(name);
        if let Some(other) = self.tree.deployment_file(namespace, &canary_name, home) {
            self.mistakes.error(
                place,
                format!(
                    "Serin would write a Deployment `{canary_name}`, but {other} holds one already"
                ),
            );
        }
        let markers = self.tree.markers(self.id).iter();
        let markers = markers.map(|(file, marker)| (file, marker));
        let Effective {
            mut manifest,
            rewritten_in,
        } = found.read();
        let marked = marker::by_container(markers).and_then(|marked| match marked.is_empty() {
            true => Ok(false),
            false => marker::apply(&mut manifest, &marked).map(|()| true),
        });
        let is_marked = marked.unwrap_or_else(|problem| {
            self.mistakes.error(place, problem);
            true
        });
        let template = manifest
            .pointer("/spec/template")
            .cloned()
            .unwrap_or_default();
        if !template.is_object() {
            self.mistakes.error(
                place,
                format!(
                    "the Deployment `{name}` in {} has no `spec.template`",
                    found.file
                ),
            );
            return None;
        }
        let written_replicas = manifest.pointer("/spec/replicas").and_then(Value::as_u64);
        let is_as_written = rewritten_in.is_empty() && !is_marked;
        let manifest = match is_as_written {
            true => found.fact.manifest.clone(),
            false => Manifest::of(&manifest),
        };
        Some(Stable {
            found,
            manifest,
            written_replicas,
            rewritten_in,
            template,
        })
    }

    /// Where the images of stable's Deployment are written, beside its manifest.
    fn image_sources(
        &mut self,
        found: &FoundDeployment<'_>,
        rewritten_in: &[Rewriter<'_>],
    ) -> ImageSources {
        let mut shared = BTreeMap::new();
        for name in &found.fact.images {
            for (file, place) in rewritten_in {
                let Some(other) = self.tree.shares(file, name, found.fact) else {
                    continue;
                };
                let (line, column) = place.map_or((1, 1), |place| (place.line, place.column));
                self.remarks.push(Diagnostic {
                    file: (*file).clone(),
                    line,
                    column,
                    severity: Severity::Warning,
                    message: format!(
                        "`images` sets `{name}` for the Deployment `{other}` as well, which would follow a promotion \
                         of the canary `{}` without a ladder of its own, so it will be left to you: set the image in \
                         the manifests, or mark where it is written (`# serin: {}/<container>`)",
                        self.id, self.id
                    ),
                });
                shared.insert(((*file).clone(), name.to_owned()), other.to_owned());
            }
        }
        let mut marked: Vec<_> = self
            .tree
            .markers(self.id)
            .iter()
            .map(|(file, _)| (*file).clone())
            .collect();
        marked.dedup();
        let kustomizations = found.kustomizations.iter();
        ImageSources {
            kustomizations: kustomizations.map(|(file, ..)| (*file).clone()).collect(),
            marked,
            shared,
        }
    }

    /// A kustomization that sets stable's image sets that of every Deployment it takes in.
    fn warn_of_rewrites(&mut self, rewritten_in: &[Rewriter<'_>]) {
        for (file, place) in rewritten_in {
            if !self.tree.takes_in(file, &self.home.folder) {
                continue;
            }
            let (line, column) = place.map_or((1, 1), |place| (place.line, place.column));
            self.remarks.push(Diagnostic {
                file: (*file).clone(),
                line,
                column,
                severity: Severity::Warning,
                message: format!(
                    "`images` also sets the image of the canary's Deployment in {}, so `kustomize build` gives the \
                     candidate stable's image: take that folder in from a kustomization without `images`",
                    self.home.folder
                ),
            });
        }
    }

    fn check_selector(
        &mut self,
        service: &ServiceFact,
        deployment: &str,
        labels: &Labels,
        place: Place,
    ) {
        let missed: Vec<String> = service
            .selector
            .iter()
            .filter(|(key, value)| labels.get(*key) != Some(value))
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        if !missed.is_empty() {
            self.mistakes.error(
                place,
                format!(
                    "the Service `{}` selects {}, which the pods of the Deployment `{deployment}` are not labelled \
                     with: it has to select both versions",
                    service.name,
                    listed(missed.iter().map(String::as_str))
                ),
            );
        }
    }

    fn candidate(
        &mut self,
        proposal: &ProposalPart,
        template: &Value,
        stable: &Version,
    ) -> Option<Candidate> {
        let content = CandidateContent::Template {
            images: proposal.images.clone(),
            patch: proposal.patch.clone(),
        };
        let yielded = patch::apply_candidate(template, &content);
        let known: Vec<&str> = containers(&yielded)
            .filter_map(|container| container["name"].as_str())
            .collect();
        for (container, place) in &proposal.image_places {
            if !known.contains(&container.as_str()) {
                self.mistakes.error(
                    *place,
                    format!(
                        "the Deployment has no container `{container}`{}; its containers are {}",
                        suggestion(container, known.iter().copied()),
                        listed(known.iter().copied())
                    ),
                );
            }
        }
        let yields = Revision::of(&yielded);
        if yields == stable.revision {
            return None;
        }
        Some(Candidate {
            revision: proposal.revision.clone(),
            yields,
            summary: candidate_summary(&proposal.images, proposal.patch.is_some()),
            content,
            older_than_stable: !proposal.allow_older && is_older(&proposal.images, template),
        })
    }

    fn two_versions(&mut self, part: &WorkloadPart, service: Option<&ServiceFact>) -> Outcome {
        let WorkloadPart::Versions {
            stable,
            stable_place,
            candidate,
            candidate_place,
        } = part
        else {
            return None;
        };
        let service = service?;
        for key in stable
            .keys()
            .filter(|key| stable.get(*key) != candidate.get(*key))
        {
            if service.selector.contains_key(key) {
                self.mistakes.error(
                    *stable_place,
                    format!(
                        "the selector of the Service `{}` contains `{key}`, by which the two versions differ: it would \
                         leave one of them out",
                        service.name
                    ),
                );
                return None;
            }
        }
        let all = self.tree.deployments(&self.id.namespace, &self.home.file);
        let mut side = |labels: &Labels, place| {
            let matching = matching(&all, &service.selector, labels);
            if matching.is_empty() {
                self.mistakes
                    .error(place, no_deployment(self.id, service, labels, &all));
            }
            matching
        };
        let stable_templates = side(stable, *stable_place);
        let is_same = stable == candidate;
        let candidate_templates = if is_same {
            stable_templates.clone()
        } else {
            side(candidate, *candidate_place)
        };
        let revision = |labels: &Labels, templates: &BTreeMap<String, Value>| {
            Revision::of(&json!({"labels": labels, "deployments": templates}))
        };
        let version = Version {
            revision: revision(stable, &stable_templates),
            summary: labels_summary(stable, candidate),
        };
        let candidate_revision = revision(candidate, &candidate_templates);
        let proposal = (!is_same).then(|| Candidate {
            revision: candidate_revision.clone(),
            yields: candidate_revision,
            summary: labels_summary(candidate, stable),
            content: CandidateContent::Labels(candidate.clone()),
            older_than_stable: false,
        });
        let both = stable_templates.keys().chain(candidate_templates.keys());
        let files: BTreeSet<RepoPath> = both
            .filter_map(|name| Some(all.get(name.as_str())?.file.clone()))
            .collect();
        let workload = Workload::BringYourOwn(TwoVersions {
            stable: stable.clone(),
            files: files.into_iter().collect(),
            stable_deployments: stable_templates.into_keys().collect(),
            candidate_deployments: candidate_templates.into_keys().collect(),
        });
        Some((workload, version, proposal))
    }
}

/// Pod templates, by name, of the Deployments that the Service selects and that carry `labels`.
fn matching(
    all: &BTreeMap<&str, FoundDeployment<'_>>,
    selector: &Labels,
    labels: &Labels,
) -> BTreeMap<String, Value> {
    all.iter()
        .filter_map(|(name, found)| {
            let mut wanted = selector.iter().chain(labels);
            if !wanted.all(|(key, value)| found.fact.label(key) == Some(value)) {
                return None;
            }
            let manifest = found.read().manifest;
            let template = manifest.pointer("/spec/template")?;
            Some(((*name).to_owned(), template.clone()))
        })
        .collect()
}

fn no_deployment(
    id: &CanaryId,
    service: &ServiceFact,
    labels: &Labels,
    all: &BTreeMap<&str, FoundDeployment<'_>>,
) -> String {
    let behind: Vec<String> = all
        .iter()
        .filter_map(|(name, found)| {
            let mut wanted = service.selector.iter();
            let selected = wanted.all(|(key, value)| found.fact.label(key) == Some(value));
            let shown: Vec<_> = labels
                .keys()
                .filter_map(|key| Some(format!("{key}={}", found.fact.label(key)?)))
                .collect();
            selected.then(|| format!("`{name}` ({})", shown.join(",")))
        })
        .collect();
    let behind = if behind.is_empty() {
        "it selects no Deployment at all".to_owned()
    } else {
        format!("it selects {}", behind.join(", "))
    };
    format!(
        "no Deployment in namespace `{}` in this repository has pods labelled {} behind the Service `{}`; {behind}",
        id.namespace,
        written(labels),
        service.name
    )
}

fn written(labels: &Labels) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    listed(pairs.iter().map(String::as_str))
}
