//! The files of a canary's folder: which exist, what they are called, what every object carries.

use std::borrow::Cow;
use std::sync::Arc;

use super::subsets::Subsets;
use super::{Manifests, Rendered, deployment, destination_rule, virtual_service};
use crate::domain::{CANARY_ANNOTATION, Contents, files};
use crate::progression::State;
use crate::spec::ValidatedCanary;
use crate::yaml::emit;
use crate::yaml::parts::Part;

/// Tells Argo CD's plain directories that this file is none of the cluster's objects.
const SKIP_FILE: &str = "# +argocd:skip-file-rendering\n";
/// Label on every object of ours, and its value.
pub(super) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "serin");

/// Entries of a mapping of ours.
pub(super) type Entries<'a> = Vec<(Cow<'a, str>, Part<'a>)>;

/// The generated files of `canary` in `state`, except `rollout.yaml`.
///
/// Objects are named after the canary and live in its namespace. `deployment.yaml` exists in managed mode while a
/// rollout runs or drains; `None` means that a file must not exist.
pub fn render(canary: &ValidatedCanary, state: &State) -> Manifests<Rendered> {
    render_after(canary, state, None)
}

/// What was rendered before, and what from.
#[derive(Debug, Clone, Copy)]
pub struct Last<'a> {
    /// The spec.
    pub canary: &'a ValidatedCanary,
    /// The state.
    pub state: &'a State,
    /// All that the two rendered to.
    pub files: &'a Contents,
}

impl Last<'_> {
    /// Whether all files are about the same canary in the same place.
    pub fn is_about(&self, canary: &ValidatedCanary) -> bool {
        self.canary.id == canary.id && self.canary.home == canary.home
    }

    fn has_route(&self, canary: &ValidatedCanary) -> bool {
        std::ptr::eq(self.canary, canary) || self.canary.route == canary.route
    }

    fn file(&self, name: &str) -> Option<Arc<[u8]>> {
        let path = self.canary.home.folder.join(name)?;
        self.files.get(&path).cloned().flatten()
    }
}

/// The same, where it is known what was rendered before: a step that moves the weight alone writes one file, and the
/// others are as they were.
pub fn render_after(
    canary: &ValidatedCanary,
    state: &State,
    last: Option<Last<'_>>,
) -> Manifests<Rendered> {
    let subsets = Subsets::of(canary, state);
    let last = last
        .filter(|last| last.is_about(canary) && Subsets::of(last.canary, last.state) == subsets);
    let known = |name: &str, is_same: &dyn Fn(&Last<'_>) -> bool| -> Option<Arc<[u8]>> {
        last.filter(|last| is_same(last))?.file(name)
    };
    let header = header(canary);
    let object = |part: Part<'_>| Arc::from(emit::to_bytes(&header, part));
    let deployment = match last.filter(|last| deployment::is_same(last, canary, state)) {
        Some(last) => last.file(files::DEPLOYMENT),
        None => deployment::render(canary, state, &subsets).map(object),
    };
    let has_deployment = deployment.is_some();
    let rule = known(files::DESTINATION_RULE, &|last| last.has_route(canary));
    let rule = rule.unwrap_or_else(|| object(destination_rule::render(canary, &subsets)));
    let list = known(files::KUSTOMIZATION, &|last| {
        last.file(files::DEPLOYMENT).is_some() == has_deployment
    });
    let list = list.unwrap_or_else(|| {
        let header = format!("{header}{SKIP_FILE}");
        emit::to_bytes(&header, kustomization(has_deployment)).into()
    });
    let service = known(files::VIRTUAL_SERVICE, &|last| {
        last.has_route(canary) && last.canary.users == canary.users && last.state == state
    });
    let service =
        service.unwrap_or_else(|| object(virtual_service::render(canary, state, &subsets)));
    let rendered = [
        (files::DEPLOYMENT, deployment),
        (files::DESTINATION_RULE, Some(rule)),
        (files::KUSTOMIZATION, Some(list)),
        (files::VIRTUAL_SERVICE, Some(service)),
    ];
    let in_folder = |(name, content)| Some((canary.home.folder.join(name)?, content));
    let files: Contents = rendered.into_iter().filter_map(in_folder).collect();
    Manifests::rendered(canary.id.clone(), files)
}

/// Who writes the file, and where to edit instead.
fn header(canary: &ValidatedCanary) -> String {
    // A path may hold a line break, and a comment must not end before its line does.
    let path: String = canary
        .home
        .file
        .as_str()
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    format!(
        "# Written by Serin for the Canary {}: edit {path} instead.\n\
         # Weights edited in the VirtualService are adopted and hold the rollout, any other edit here is undone.\n",
        canary.id
    )
}

/// The metadata of an object of ours; `labels` and `annotations` are added to what every object carries.
pub(super) fn metadata<'a>(
    canary: &'a ValidatedCanary,
    name: impl Into<Part<'a>>,
    labels: Entries<'a>,
    annotations: Entries<'a>,
) -> Part<'a> {
    let managed_by = (MANAGED_BY.0.into(), MANAGED_BY.1.into());
    let of = (CANARY_ANNOTATION.into(), canary.id.to_string().into());
    let labels = labels.into_iter().chain([managed_by]);
    let annotations = annotations.into_iter().chain([of]);
    Part::mapping([
        ("name", name.into()),
        ("namespace", (&canary.id.namespace).into()),
        ("labels", Part::mapping(labels)),
        ("annotations", Part::mapping(annotations)),
    ])
}

/// An object of ours.
pub(super) fn object_of<'a>(
    api_version: impl Into<Part<'a>>,
    kind: impl Into<Part<'a>>,
    metadata: Part<'a>,
    spec: Part<'a>,
) -> Part<'a> {
    Part::mapping([
        ("apiVersion", api_version.into()),
        ("kind", kind.into()),
        ("metadata", metadata),
        ("spec", spec),
    ])
}

fn kustomization(has_deployment: bool) -> Part<'static> {
    let mut resources = vec![files::DESTINATION_RULE, files::VIRTUAL_SERVICE];
    if has_deployment {
        resources.insert(0, files::DEPLOYMENT);
    }
    Part::mapping([
        ("apiVersion", "kustomize.config.k8s.io/v1beta1".into()),
        ("kind", "Kustomization".into()),
        ("resources", resources.into_iter().collect()),
    ])
}
