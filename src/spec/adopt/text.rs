//! The text of a first canary: short, valid, and with a comment wherever a newcomer would ask.

use std::fmt::Write as _;

use serde_json::Value;

use crate::domain::RepoPath;
use crate::yaml::node;

/// What differs from one to the next.
pub(super) struct Content<'a> {
    pub(super) file: &'a RepoPath,
    pub(super) name: &'a str,
    pub(super) namespace: Option<&'a str>,
    /// Names and images, at least one.
    pub(super) containers: &'a [(String, String)],
    pub(super) service: &'a str,
    pub(super) port: u64,
    pub(super) more_ports: bool,
}

/// The whole file.
pub(super) fn canary(content: &Content<'_>) -> String {
    let Content { name, service, .. } = content;
    let namespace = content
        .namespace
        .map(|namespace| format!("  namespace: {}\n", scalar(namespace)))
        .unwrap_or_default();
    let port_note = if content.more_ports {
        " # the Service has others"
    } else {
        ""
    };
    format!(
        "\
# New versions of {name} are proposed here: change the image below and push. Serin commits each step beside this file.
# `serin validate .` checks it; `serin render {file}` shows what it generates.
apiVersion: serin.dev/v1alpha1
kind: Canary
metadata:
  name: {quoted_name}
{namespace}spec:
  workload:
    deployment: {quoted_name}
  candidate: # what serves now is the same: nothing to roll out yet
    images:
{images}  route:
    service: {quoted_service}
    port: {port}{port_note}
    # Names that callers use (the Service's when left out), gateways (calls from inside the mesh when left out), and
    # Istio's own fields for every route that is generated:
    # hosts: [{service}, {service}.example.com]
    # gateways: [mesh, my-gateway]
    # http: {{timeout: 5s}}
  # These people get the candidate before everybody else, and keep it until it is stable or gone.
  # users:
  # - {{header: x-user, exact: [alexis]}}
  ladder: # each step is one commit; the next one needs a passing verdict after `hold`
  - {{weight: 0, hold: 1m}} # only the people above; `approval: {{}}` instead of `hold` waits for somebody's word
  - {{weight: 10, hold: 5m}}
  - {{weight: 30, hold: 5m}}
  - {{weight: 60, hold: 10m}}
  - {{weight: 100, hold: 5m}}
  analysis: # one that fails takes the traffic back to stable at once
    metrics:
    - {{name: success-rate, min: 99}} # per cent, from Istio's standard metrics
    - {{name: latency, quantile: 0.99, max: 500ms}}
",
        file = content.file,
        quoted_name = scalar(name),
        quoted_service = scalar(service),
        images = images(content.containers),
        port = content.port,
    )
}

/// The first container; the others as comments, because sidecars seldom change with a release.
fn images(containers: &[(String, String)]) -> String {
    let mut text = String::new();
    for (index, (name, image)) in containers.iter().enumerate() {
        let mark = if index == 0 { "" } else { "# " };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "      {mark}{}: {}", scalar(name), scalar(image));
    }
    text
}

/// A name that YAML reads back as this text.
fn scalar(text: &str) -> String {
    let parsed = node::parse(format!("k: {text}\n").as_bytes());
    let reads_back = parsed.errors.is_empty()
        && matches!(parsed.documents.as_slice(), [one] if one.root.to_json()["k"] == *text);
    if reads_back {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}
