//! What must hold for every input.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use serde_json::Value;
use serin::analysis::{Answer, Purpose, Query};
use serin::domain::{BlobId, CanaryId, RepoPath, Timestamp, Weight};
use serin::manifests;
use serin::ports::Metrics;
use serin::progression::{self, Approval, Observation, Phase, Readiness, Rollout, State};
use serin::prometheus::{Server, Settings};
use serin::record::message;
use serin::record::state_file::{self, Unreadable};
use serin::spec::promotion::promotion_edits;
use serin::spec::{Catalog, ParseCache, ValidatedCanary};
use serin::yaml::{edit, node};

const APP: &[u8] = b"apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: test}\nspec: {selector: {app: web}, ports: [{port: 80, name: http}]}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: test}\nspec:\n  template:\n    metadata: {labels: {app: web, serin.dev/track: stable}}\n    spec:\n      containers:\n      - {name: app, image: 'reg/app:1'}\n      - name: log # other\n        image: log:1\n";

fn path(name: &str) -> RepoPath {
    RepoPath::new(name).unwrap()
}

fn tree(canary: &[u8]) -> BTreeMap<RepoPath, (BlobId, Arc<[u8]>)> {
    let file = |name: &str, content: &[u8]| (path(name), (BlobId(name.into()), Arc::from(content)));
    BTreeMap::from([file("app.yaml", APP), file("canary.yaml", canary)])
}

fn now() -> Timestamp {
    Timestamp::from_timestamp(1_767_225_600, 0).unwrap()
}

/// A rollout of the proposal, on its first step.
fn progressing(canary: &ValidatedCanary) -> Option<State> {
    let mut state = State::initial(canary.stable.clone());
    let rung = canary.ladder.first()?;
    state.phase = Phase::Progressing(Rollout {
        candidate: canary.proposal.clone()?.into(),
        step: 1,
        weight: rung.weight,
        mirror: rung.mirror,
        matches: rung.matches.clone(),
        started: now(),
        since: now(),
        ladder: canary.ladder_revision.clone(),
        approval: Approval::NotNeeded,
        stable_replicas: None,
    });
    Some(state)
}

/// Any spec: mistakes are told on one line each, what is sound can be rendered, decided about and promoted.
pub(super) fn spec(input: &[u8]) {
    let files = tree(input);
    let catalog = Catalog::read(&files, &mut ParseCache::default());
    for diagnostic in &catalog.diagnostics {
        let text = diagnostic.to_string();
        assert!(!text.contains(|c: char| c.is_control()), "{text:?}");
        assert!(text.len() < 20_000, "{}", text.len());
    }
    for result in catalog.canaries.values() {
        match result {
            Err(rejected) => assert!(!rejected.diagnostics.is_empty(), "{}", rejected.id),
            Ok(canary) => sound(&files, canary),
        }
    }
}

fn sound(files: &BTreeMap<RepoPath, (BlobId, Arc<[u8]>)>, canary: &ValidatedCanary) {
    let initial = State::initial(canary.stable.clone());
    for state in [Some(initial), progressing(canary)].into_iter().flatten() {
        let rendered = manifests::render(canary, &state).files;
        let violations = manifests::violations(canary, &state, &rendered);
        assert_eq!(violations, Vec::<String>::new(), "{}", canary.id);
        for content in rendered.values().flatten() {
            assert_eq!(node::parse(content).errors, []);
        }
        decided(canary, state);
    }
    let Some(candidate) = &canary.proposal else {
        return;
    };
    if let Ok(edits) = promotion_edits(files, canary, candidate) {
        let mut after = files.clone();
        for (path, content) in edits {
            let blob = BlobId(format!("new {path}").into());
            after.insert(path, (blob, Arc::from(content)));
        }
        let again = Catalog::read(&after, &mut ParseCache::default());
        let again = again.canaries[&canary.id].as_ref().unwrap();
        assert_eq!(again.stable.revision, candidate.yields);
    }
}

/// A decision about any state is one that the independent checker agrees with.
fn decided(canary: &ValidatedCanary, state: State) {
    let seen = Observation {
        intervention: None,
        authors: BTreeMap::new(),
        observed: Some(now()),
        stable: Readiness::Ready,
        candidate: Readiness::Ready,
        stable_replicas: Some(7),
        judgement: None,
        clock_off: None,
        stale: Vec::new(),
    };
    let later = now() + chrono::Duration::hours(1);
    let (decision, after) = progression::decide(canary, state.clone(), &seen, later);
    if let progression::Decision::Commit(transition) = decision {
        let violations = progression::violations(canary, &state, &after, &transition, &seen, later);
        assert_eq!(violations, Vec::<String>::new());
    }
}

const SPEC: &[u8] = b"apiVersion: serin.dev/v1alpha1\nkind: Canary\nmetadata: {name: web, namespace: test}\nspec:\n  workload: {deployment: web}\n  candidate: {images: {app: 'reg/app:2'}}\n  route: {service: web}\n  ladder: [{weight: 0, approval: {}}, {weight: 10, hold: 1m}, {weight: 100}]\n";

/// Any `rollout.yaml`: a state of this canary that can be written, rendered and decided about, or mistakes.
pub(super) fn rollout(input: &[u8]) {
    let id = CanaryId::new("test", "web");
    let file = path("web.serin/rollout.yaml");
    let nobody = CanaryId::new("zzzz", "zzzz");
    let names_nobody = String::from_utf8_lossy(input).contains("zzzz");
    assert!(names_nobody || state_file::read(&file, input, &nobody).is_err());
    match state_file::read(&file, input, &id) {
        Ok(read) => {
            let state = read.state;
            let bytes = state_file::write(&id, &state, 3, &file);
            let again = state_file::read(&file, &bytes, &id).unwrap();
            assert_eq!(again.state, state, "{}", String::from_utf8_lossy(&bytes));
            let catalog = Catalog::read(&tree(SPEC), &mut ParseCache::default());
            let canary = catalog.canaries[&id].as_ref().unwrap();
            for content in manifests::render(canary, &state).files.values().flatten() {
                assert_eq!(node::parse(content).errors, []);
            }
            if state
                .rollout()
                .is_none_or(|rollout| rollout.weight <= Weight::FULL)
            {
                progression::decide(
                    canary,
                    state,
                    &Observation {
                        intervention: None,
                        authors: BTreeMap::new(),
                        observed: None,
                        stable: Readiness::Unknown,
                        candidate: Readiness::Unknown,
                        stable_replicas: None,
                        judgement: None,
                        clock_off: None,
                        stale: Vec::new(),
                    },
                    now(),
                );
            }
        }
        Err(Unreadable::Invalid(diagnostics)) => {
            assert!(!diagnostics.is_empty());
            for diagnostic in diagnostics {
                let text = diagnostic.to_string();
                assert!(!text.contains(|c: char| c.is_control()), "{text:?}");
            }
        }
        Err(Unreadable::Foreign(other)) => assert_ne!(other, id),
    }
}

/// Any file, any edit: the result means what was intended, and every other document is the same byte by byte.
pub(super) fn edit(input: &[u8]) {
    let before = node::parse(input);
    let Some(document) = before
        .documents
        .get(input.len() % before.documents.len().max(1))
    else {
        return;
    };
    let mut choice = input.iter().fold(7_usize, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(usize::from(*byte))
    });
    let mut root = document.root.to_json();
    change(&mut root, &mut choice, 8);
    let Ok(after) = edit::rewrite(input, document.index, &[], &root) else {
        return;
    };
    let reread = node::parse(&after);
    assert_eq!(reread.documents.len(), before.documents.len());
    for (old, new) in before.documents.iter().zip(&reread.documents) {
        if old.index == document.index {
            assert_eq!(new.root.to_json(), root);
        } else {
            assert_eq!(new.root.to_json(), old.root.to_json());
            let source =
                |bytes: &[u8], node: &node::Node| bytes[node.span.start..node.span.end].to_vec();
            assert_eq!(source(&after, &new.root), source(input, &old.root));
        }
    }
}

fn change(value: &mut Value, choice: &mut usize, depth: usize) {
    let mut pick = |limit: usize| {
        *choice = choice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*choice >> 33) % limit.max(1)
    };
    match value {
        Value::Object(fields) if !fields.is_empty() && depth > 0 => match pick(8) {
            0 => {
                fields.insert(
                    "added".to_owned(),
                    serde_json::json!([{"name": "x", "value": "a: b"}]),
                );
            }
            1 => {
                let at = pick(fields.len());
                let gone = fields.keys().nth(at).cloned().unwrap_or_default();
                fields.remove(&gone);
            }
            _ => {
                let at = pick(fields.len());
                if let Some(inner) = fields.values_mut().nth(at) {
                    change(inner, choice, depth - 1);
                }
            }
        },
        Value::Array(items) if !items.is_empty() && depth > 0 => match pick(8) {
            0 => items.push(serde_json::json!("added")),
            1 => {
                let at = pick(items.len());
                items.remove(at);
            }
            _ => {
                let at = pick(items.len());
                change(&mut items[at], choice, depth - 1);
            }
        },
        other => *other = Value::from(["reg/app:2", "", "1", "a: b", "x\ny"][pick(5)]),
    }
}

/// Whatever `git` prints: words for people stay short and on one line.
pub(super) fn porcelain(input: &[u8]) {
    let words = serin::git::words_of(input);
    assert!(words.len() < 100_000, "{}", words.len());
    assert!(!words.contains('\u{1b}'), "{words:?}");
}

/// Any commit message: read or not, never more trailers than lines.
pub(super) fn message(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let trailers = message::trailers(&text);
    assert!(trailers.len() <= text.lines().count());
    if let Some(recorded) = message::parse(&text) {
        assert!(!recorded.canary.is_empty());
        assert!(!recorded.sentence.contains('\n'));
    }
}

/// A server that answers with the input.
pub(super) struct Prometheus {
    runtime: tokio::runtime::Runtime,
    body: Arc<Mutex<Vec<u8>>>,
    server: Server,
}

impl Prometheus {
    pub(super) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let body = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&body);
        let app = Router::new().fallback(move || {
            let body = shared.lock().unwrap().clone();
            async move { body }
        });
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0)))
            .unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, app).await });
        let mut settings = Settings::new(&url);
        settings.deadline = Duration::from_secs(8);
        let server = Server::new(settings).unwrap();
        Self {
            runtime,
            body,
            server,
        }
    }

    /// Complete series of one kind, or a reason of bounded length.
    pub(super) fn answer(&self, input: &[u8]) {
        *self.body.lock().unwrap() = input.to_vec();
        for range in [None, Some((now(), Duration::from_secs(15)))] {
            let query = Query {
                promql: "up".to_owned(),
                at: now(),
                range,
                lookback: None,
                purpose: Purpose::Requests(Vec::new()),
            };
            let answers = self
                .runtime
                .block_on(self.server.ask(std::slice::from_ref(&query)));
            assert_eq!(answers.len(), 1);
            match &answers[0] {
                Answer::Series(series) => {
                    let is_sorted = series
                        .iter()
                        .all(|one| one.samples.is_sorted_by_key(|(at, _)| *at));
                    assert!(is_sorted);
                }
                Answer::Failed(error) => {
                    let text = error.to_string();
                    assert!(
                        text.len() < 2000 && !text.contains(char::is_control),
                        "{text}"
                    );
                }
            }
        }
    }
}
