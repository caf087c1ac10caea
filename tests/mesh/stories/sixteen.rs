//! Sixteen canaries of one repository roll out at once.

use std::sync::Arc;

use serde_json::Value;

use crate::bed::Bed;
use crate::load::{Load, Target, Visitor, expect_no_failure};
use crate::rig::deployment;
use crate::site::{NEW, SERVICE_PORT, Site, Wish, app_yaml, image, moment};

/// How many.
const COUNT: usize = 16;

fn name(index: usize) -> String {
    format!("shop-{index:02}")
}

fn canary(namespace: &str, index: usize) -> (String, Wish) {
    let name = name(index);
    let mut wish = Wish::idle(namespace).ladder("[{weight: 50, hold: 2s}, {weight: 100, hold: 2s}]");
    wish.route = format!("hosts: [{name}]");
    "every: 1s, metrics: [{name: success-rate, min: 90}]".clone_into(&mut wish.analysis);
    wish.name.clone_from(&name);
    (format!("apps/{name}/canary.yaml"), wish)
}

/// All of them are proposed by one commit, get requests, and are promoted; nobody notices.
pub(crate) async fn at_once(bed: Arc<Bed>) {
    let files = |namespace: &str| {
        let mut files = Vec::new();
        for index in 0..COUNT {
            let (path, wish) = canary(namespace, index);
            files.push((path, wish.yaml()));
            let path = format!("apps/{}/app.yaml", name(index));
            files.push((path, app_yaml(namespace, &name(index))));
        }
        files
    };
    let mut site = Site::with(&bed, "sixteen", Default::default(), &files).await;
    let _serin = site.serin();
    site.serves().await;
    let mut loads = Vec::new();
    for index in 0..COUNT {
        let target = Target::new(SERVICE_PORT, &format!("{}.{}", name(index), site.namespace));
        // Until its routes are in Envoy.
        while target.ask(&Visitor::anybody()).await.failed() {
            moment(50).await;
        }
        loads.push(Load::start(&target, 20, vec![Visitor::anybody()]));
    }
    let someone = site.someone("dana");
    someone.insist("Propose 6.9.0 everywhere", &|| {
        for index in 0..COUNT {
            let (path, wish) = canary(&site.namespace, index);
            someone.write(&path, wish.candidate(NEW).yaml());
        }
    });
    let began = std::time::Instant::now();
    for index in 0..COUNT {
        let name = name(index);
        let promoted = |found: Option<&Value>| found.is_some_and(|found| image(found).ends_with(NEW));
        site.kube.until(deployment(&site.namespace, &name), "promoted", promoted).await;
        let other = format!("{name}-canary");
        site.kube.until(deployment(&site.namespace, &other), "gone", |found| found.is_none()).await;
    }
    println!("sixteen: all promoted after {:.1?}", began.elapsed());
    for load in loads {
        let answers = load.stop().await;
        expect_no_failure(&answers);
    }
    let subjects = site.subjects();
    for index in 0..COUNT {
        let prefix = format!("canary({}/{}): ", site.namespace, name(index));
        let steps: Vec<&str> = subjects.iter().filter_map(|s| s.strip_prefix(&prefix)).collect();
        let expected = [
            "initialize",
            "start podinfod=6.9.0",
            "0% -> 50%",
            "50% -> 100%",
            "promote podinfod=6.9.0",
            "return 100% -> 0%",
            "finish podinfod=6.9.0",
        ];
        assert_eq!(steps, expected, "{prefix}");
    }
}
