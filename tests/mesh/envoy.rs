//! A vanilla Envoy that gets its whole configuration from istiod.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::rig::{ControlPlane, free_port, installed};

/// Longest time until an Envoy has its first configuration.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where an Envoy can be asked about itself.
#[derive(Debug, Clone)]
pub(crate) struct Envoy {
    pub(crate) name: String,
    admin: u16,
}

/// What an Envoy is to istiod.
pub(crate) enum Role {
    /// The proxy of a client whose requests it takes on loopback ports: one for each port of a Service.
    Sidecar,
    /// A gateway whose pods have this label `istio`.
    Gateway(&'static str),
}

impl Envoy {
    /// Starts one that asks istiod on this port.
    pub(crate) fn start(plane: &ControlPlane, name: &str, role: &Role, istiod: u16) -> Self {
        let admin = free_port();
        let (kind, metadata) = match role {
            Role::Sidecar => (
                "sidecar",
                json!({"INTERCEPTION_MODE": "NONE", "NAMESPACE": "load", "LABELS": {"app": name}}),
            ),
            Role::Gateway(label) => (
                "router",
                json!({"NAMESPACE": "load", "LABELS": {"istio": label}}),
            ),
        };
        let source =
            json!({"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"});
        let bootstrap = json!({
            "node": {
                "id": format!("{kind}~127.0.0.1~{name}.load~load.svc.cluster.local"),
                "cluster": name,
                "metadata": metadata,
            },
            "admin": {"address": address(admin)},
            "dynamic_resources": {
                "lds_config": source,
                "cds_config": source,
                "ads_config": {
                    "api_type": "GRPC",
                    "transport_api_version": "V3",
                    "set_node_on_first_message_only": true,
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
                },
            },
            "static_resources": {"clusters": [{
                "name": "xds-grpc",
                "type": "STATIC",
                "connect_timeout": "1s",
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": {"http2_protocol_options": {}},
                    },
                },
                "load_assignment": {
                    "cluster_name": "xds-grpc",
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(istiod)}}]}],
                },
            }]},
        });
        let file = plane.folder().join(format!("{name}.json"));
        std::fs::write(&file, bootstrap.to_string()).unwrap();
        let program = installed("rig/envoy/install", &[]).join("envoy");
        let arguments = [
            "--config-path".to_owned(),
            file.display().to_string(),
            // Hot restart leaves files behind, and ends Envoy with the shell that started it.
            "--disable-hot-restart".to_owned(),
            "--concurrency".to_owned(),
            "1".to_owned(),
            "--log-level".to_owned(),
            "warning".to_owned(),
        ];
        plane.add(name, &program, &arguments, &[]);
        Self {
            name: name.to_owned(),
            admin,
        }
    }

    /// Waits until it takes requests.
    pub(crate) async fn ready(&self, plane: &ControlPlane) {
        let began = Instant::now();
        loop {
            let answer = reqwest::get(format!("http://127.0.0.1:{}/ready", self.admin)).await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "Envoy is not ready:\n{}",
                plane.log(&self.name)
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What istiod has told it, without endpoints.
    pub(crate) async fn configuration(&self) -> Value {
        self.json("/config_dump").await
    }

    /// Something that its administration port says.
    async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path).await).unwrap()
    }

    /// The same as it is.
    pub(crate) async fn text(&self, path: &str) -> String {
        let answer = reqwest::get(format!("http://127.0.0.1:{}{path}", self.admin)).await;
        answer.unwrap().text().await.unwrap()
    }

    /// Configurations of istiod that it did not take.
    pub(crate) async fn rejections(&self) -> u64 {
        let path = "/stats?format=json&filter=(update_rejected|rds.*rejected)";
        let stats = self.json(path).await;
        let stats = stats["stats"].as_array().cloned().unwrap_or_default();
        stats.iter().filter_map(|stat| stat["value"].as_u64()).sum()
    }
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}
