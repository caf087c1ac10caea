//! What the generated VirtualService and DestinationRule say beyond weights.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::schema;

/// The route to generate. At most one of `http`, `tcp` and `tls`; HTTP when there is none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "(has(self.http) ? 1 : 0) + (has(self.tcp) ? 1 : 0) + (has(self.tls) ? 1 : 0) <= 1",
     "message": "give at most one of `http`, `tcp` and `tls`"},
    {"rule": "!(has(self.delegate) && self.delegate) || !(has(self.hosts) || has(self.gateways))",
     "message": "a delegate has no `hosts` and no `gateways`: the root VirtualService has them"},
    {"rule": "!(has(self.delegate) && self.delegate) || !(has(self.tcp) || has(self.tls))",
     "message": "Istio delegates HTTP routes only"},
    {"rule": "!has(self.sessionAffinity) || !(has(self.tcp) || has(self.tls))",
     "message": "session affinity needs an HTTP route"}
]))]
pub struct RouteSpec {
    /// The Kubernetes Service in front of both versions. It must select the pods of both.
    #[schemars(length(min = 1, max = 63))]
    pub service: String,
    /// Port of the Service; needed when it has more than one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Hosts of the VirtualService; the Service's name by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    pub hosts: Option<Vec<String>>,
    /// Gateways of the VirtualService, `mesh` for the sidecars; only the sidecars by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    pub gateways: Option<Vec<String>>,
    /// Istio `HTTPRoute` fields (`match`, `timeout`, `retries`, `rewrite`, `corsPolicy`, `headers`, `fault`), inherited
    /// by every generated route. `route`, `redirect`, `directResponse`, `delegate` and the mirror fields are Serin's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::open_object")]
    pub http: Option<Map<String, Value>>,
    /// A TCP route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<L4RouteSpec>,
    /// A TLS passthrough route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<L4RouteSpec>,
    /// Istio `trafficPolicy` for the DestinationRule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::open_object")]
    pub traffic_policy: Option<Map<String, Value>>,
    /// A VirtualService without hosts and gateways, for a root VirtualService to delegate to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delegate: Option<bool>,
    /// Keeps each client on the version that first answered it, while a rollout runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_affinity: Option<SessionAffinitySpec>,
    /// Istio `exportTo` of both objects: `.`, `*`, or namespaces. Istio's default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub export_to: Option<Vec<String>>,
}

/// A TCP or TLS route.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct L4RouteSpec {
    /// Istio match conditions; for TLS at least one, each with `sniHosts`.
    #[serde(rename = "match", default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::open_objects")]
    pub matches: Option<Vec<Value>>,
}

/// Sticky sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionAffinitySpec {
    /// Name of the cookie.
    #[schemars(length(min = 1, max = 128))]
    pub cookie: String,
    /// How long a client stays on its version: `1h`, `1d`. One day by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub max_age: Option<String>,
}

/// Named users: requests with one of these values in a header or a cookie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.header) != has(self.cookie)", "message": "give either `header` or `cookie`"}
]))]
pub struct UserSpec {
    /// Name of a header whose whole value is the user's name. Give either this or `cookie`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub header: Option<String>,
    /// Name of a cookie whose value is the user's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub cookie: Option<String>,
    /// The names. Matched exactly, whatever characters they have.
    #[schemars(length(min = 1, max = 1000))]
    pub exact: Vec<String>,
}
