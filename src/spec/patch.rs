//! A candidate applied to a pod template: images, then the strategic-merge patch.

use serde_json::Value;

use super::CandidateContent;

/// The pod template (`spec.template` of a Deployment) that `candidate` asks for.
pub fn apply_candidate(template: &Value, _candidate: &CandidateContent) -> Value {
    template.clone()
}
