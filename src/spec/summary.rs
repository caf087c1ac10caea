//! Versions in a few words, and which of two is older.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::Value;

use super::Labels;
use super::image::{self, Image, containers};

/// Labels of the pods.
pub(super) fn labels_of(template: &Value) -> Labels {
    template["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// The labels that differ, for people; all of them when none does.
pub(super) fn labels_summary(labels: &Labels, other: &Labels) -> String {
    let differing = labels
        .iter()
        .filter(|(key, value)| other.get(*key) != Some(value));
    let all = labels.iter();
    let pairs = |chosen: &mut dyn Iterator<Item = (&String, &String)>| {
        let texts: Vec<_> = chosen
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        texts.join(",")
    };
    let text = pairs(&mut { differing });
    if text.is_empty() {
        pairs(&mut { all })
    } else {
        text
    }
}

/// `container=tag` of each container.
pub(super) fn images_summary(template: &Value) -> String {
    let images: Vec<String> = template["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|container| {
            let image = Image::parse(container["image"].as_str()?);
            Some(format!(
                "{}={}",
                container["name"].as_str()?,
                image.version()
            ))
        })
        .collect();
    images.join(", ")
}

/// `container=tag` of each proposed image, and whether there is more.
pub(super) fn candidate_summary(images: &BTreeMap<String, String>, has_patch: bool) -> String {
    let mut words: Vec<String> = images
        .iter()
        .map(|(container, image)| format!("{container}={}", Image::parse(image).version()))
        .collect();
    if has_patch {
        words.push("patch".into());
    }
    words.join(", ")
}

/// Whether all images that can be compared are older than stable's or the same, and one is older.
pub(super) fn is_older(images: &BTreeMap<String, String>, template: &Value) -> bool {
    let orders: Vec<Ordering> = containers(template)
        .filter_map(|container| {
            let proposed = images.get(container["name"].as_str()?)?;
            image::compare(proposed, container["image"].as_str()?)
        })
        .collect();
    orders.contains(&Ordering::Less) && !orders.contains(&Ordering::Greater)
}
