//! Marks: objects of every kind that routing rests on but pods, made only to see when Envoy has heard of them.
//!
//! istiod watches each kind by itself, and after an API server that was away it takes up each watch again in its own time, up to
//! half a minute later. Whoever wants to know that Envoy follows the cluster again has to ask about all of them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bed::Bed;

/// Makes a mark, as soon as the API server lets it, and waits until Envoy knows it.
pub(crate) async fn arrive(bed: &Bed, number: u8, longest: Duration) {
    let began = Instant::now();
    let name = format!("mark-{number}");
    let address = format!("10.199.9.{number}");
    let client = bed.plane().client().await;
    for object in objects(&name, &address) {
        while let Err(error) = client.try_put(&object).await {
            assert!(began.elapsed() < longest, "{object}: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let endpoint = format!("|{name}|{name}.default.svc.cluster.local::{address}:80::");
    let route = format!("\"{name}-route\"");
    loop {
        let endpoints = bed.client.text("/clusters").await;
        let routes = bed
            .client
            .text("/config_dump?resource=dynamic_route_configs")
            .await;
        if endpoints.contains(&endpoint) && routes.contains(&route) {
            return;
        }
        assert!(
            began.elapsed() < longest,
            "Envoy never heard of {name}: its endpoint {}, its route {}",
            endpoints.contains(&endpoint),
            routes.contains(&route),
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn objects(name: &str, address: &str) -> [Value; 4] {
    let metadata = json!({"name": name, "namespace": "default"});
    let host = format!("{name}.default.svc.cluster.local");
    [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": {"ports": [{"name": "http", "port": 80}]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
            "ports": [{"name": "http", "port": 80}],
        }),
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": metadata,
            "spec": {"host": host, "subsets": [{"name": name}]},
        }),
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": metadata,
            "spec": {"hosts": [host], "http": [{
                "name": format!("{name}-route"),
                "route": [{"destination": {"host": host, "subset": name}}],
            }]},
        }),
    ]
}
