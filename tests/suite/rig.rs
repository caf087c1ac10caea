//! A real control plane on loopback ports: etcd, API server, controllers, scheduler, and KWOK in place of kubelets.
//!
//! One for the whole test binary, started by the first test that asks. Each program runs under a shell that waits for a
//! pipe to close, so that none outlives the tests, however they end. `tests/rig/build` provides the programs. The tests of
//! the mesh (`tests/mesh`) use the same one, and add to it.

// Two test binaries have this file, each with another folder around it.
#[path = "rig/client.rs"]
mod client;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

pub(crate) use client::{Client, Key, deployment, routes, sends, weight};

/// Longest time that the control plane may take to start, beside a compiler.
const PATIENCE: Duration = Duration::from_secs(120);
/// Who may do everything.
const ADMIN: &str = "admin-of-the-tests";
/// Users who may do everything as well, and whose requests are counted in `audit.log`.
const COUNTED: [&str; 2] = ["serin", "flagger"];

/// A running control plane.
pub(crate) struct ControlPlane {
    folder: PathBuf,
    server: String,
    programs: Mutex<BTreeMap<String, Program>>,
    _remover: Child,
}

/// A program that ends with this process, and that can be killed and started again.
pub(crate) struct Program {
    path: PathBuf,
    log: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

/// The control plane of this test binary.
pub(crate) fn control_plane() -> &'static ControlPlane {
    static SHARED: OnceLock<ControlPlane> = OnceLock::new();
    SHARED.get_or_init(|| {
        // Away from any runtime that the first test may have.
        let starter = std::thread::spawn(ControlPlane::start);
        starter
            .join()
            .unwrap_or_else(|_| panic!("the control plane does not start"))
    })
}

/// The repository's folder `tests`.
pub(crate) fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// Where the programs are; builds them when there are none.
pub(crate) fn programs(groups: &[&str]) -> PathBuf {
    installed("rig/build", groups)
}

/// Runs one of the scripts that print a folder.
pub(crate) fn installed(script: &str, arguments: &[&str]) -> PathBuf {
    let output = Command::new(tests().join(script))
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "tests/{script} failed");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// Where `kubectl` is, which builds kustomizations.
pub(crate) fn kubectl_folder() -> String {
    let folder = installed("rig/helm/install", &[]);
    folder.to_str().unwrap().to_owned()
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Program {
    /// Starts it. The log is written anew each time.
    pub(crate) fn start(
        path: &Path,
        log: &Path,
        arguments: &[String],
        environment: &[(&str, &str)],
    ) -> Self {
        let mut program = Self {
            path: path.to_owned(),
            log: log.to_owned(),
            arguments: arguments.to_owned(),
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            child: None,
        };
        program.again();
        program
    }

    /// Starts it again as it was started, after its end.
    pub(crate) fn again(&mut self) {
        use std::os::unix::process::CommandExt as _;
        self.kill();
        let log = std::fs::File::create(&self.log).unwrap();
        // The shell ends it, and all that it started, when this process ends.
        let child = Command::new("sh")
            .args(["-c", r#""$@" <&- & read -r _; kill -KILL 0"#, "sh"])
            .arg(&self.path)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be started: {error}", self.path.display()));
        self.child = Some(child);
    }

    /// Kills it at once.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.stdin.take());
            // It was killed with its group, by itself.
            let _ = child.wait();
        }
    }

    /// What it said since its last start.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Removes a folder when this process ends.
fn remove_afterwards(folder: &Path) -> Child {
    use std::os::unix::process::CommandExt as _;
    Command::new("sh")
        .args(["-c", r#"read -r _; sleep 1; rm -rf "$1""#, "sh"])
        .arg(folder)
        .stdin(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap()
}

impl ControlPlane {
    /// Starts one and waits until it can be used.
    pub(crate) fn start() -> Self {
        let bin = programs(&["plane"]);
        let of_envtest = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
        let given = |name: &str| match &of_envtest {
            Some(assets) => assets.join(name),
            None => bin.join(name),
        };
        let folder = tempfile::tempdir().unwrap().keep();
        let remover = remove_afterwards(&folder);
        let mut programs = BTreeMap::new();
        let log = |name: &str| folder.join(format!("{name}.log"));
        let in_folder = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let (etcd, peer, port) = (free_port(), free_port(), free_port());
        let (etcd, peer) = (
            format!("http://127.0.0.1:{etcd}"),
            format!("http://127.0.0.1:{peer}"),
        );
        let arguments = [
            format!("--data-dir={}", in_folder("etcd")),
            "--unsafe-no-fsync".to_owned(),
            format!("--listen-client-urls={etcd}"),
            format!("--advertise-client-urls={etcd}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            "--log-level=error".to_owned(),
        ];
        let mut run = |path: &Path, name: &str, arguments: &[String]| {
            let program = Program::start(path, &log(name), arguments, &[]);
            programs.insert(name.to_owned(), program);
        };
        run(&given("etcd"), "etcd", &arguments);
        let counted = COUNTED.map(|name| format!("{name},{name},{name},system:masters\n"));
        let tokens = format!("{ADMIN},admin,admin,system:masters\n{}", counted.concat());
        std::fs::write(folder.join("tokens"), tokens).unwrap();
        let policy = json!({
            "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
            "rules": [
                {"level": "Metadata", "users": COUNTED},
                {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
                {"level": "None"},
            ],
        });
        std::fs::write(folder.join("audit-policy"), policy.to_string()).unwrap();
        let tls = |name: &str| {
            tests()
                .join("data/tls")
                .join(name)
                .to_str()
                .unwrap()
                .to_owned()
        };
        let arguments = [
            format!("--etcd-servers={etcd}"),
            format!("--secure-port={port}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=10.0.0.1".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            format!("--tls-cert-file={}", tls("server.pem")),
            format!("--tls-private-key-file={}", tls("server.key")),
            format!("--token-auth-file={}", in_folder("tokens")),
            format!("--audit-policy-file={}", in_folder("audit-policy")),
            format!("--audit-log-path={}", in_folder("audit.log")),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", tls("server.pem")),
            format!("--service-account-signing-key-file={}", tls("server.key")),
            "--disable-admission-plugins=TaintNodesByCondition".to_owned(),
            format!("--cert-dir={}", in_folder("certs")),
        ];
        run(&given("kube-apiserver"), "kube-apiserver", &arguments);
        let plane = Self {
            server: format!("https://127.0.0.1:{port}"),
            folder,
            programs: Mutex::new(programs),
            _remover: remover,
        };
        let kubeconfig = plane.kubeconfig(ADMIN);
        plane.run(plane.ready());
        for (name, arguments) in [
            ("kube-controller-manager", controllers(&kubeconfig)),
            (
                "kube-scheduler",
                vec![
                    format!("--kubeconfig={}", kubeconfig.display()),
                    "--leader-elect=false".to_owned(),
                    "--secure-port=0".to_owned(),
                ],
            ),
            (
                "kwok",
                vec![
                    format!("--kubeconfig={}", kubeconfig.display()),
                    "--manage-all-nodes=true".to_owned(),
                    format!("--config={}", tests().join("rig/stages.yaml").display()),
                ],
            ),
        ] {
            plane.add(name, &bin.join(name), &arguments, &[]);
        }
        plane.run(plane.furnish());
        plane
    }

    /// Starts another program beside the control plane.
    pub(crate) fn add(
        &self,
        name: &str,
        path: &Path,
        arguments: &[String],
        environment: &[(&str, &str)],
    ) {
        let log = self.folder.join(format!("{name}.log"));
        let program = Program::start(path, &log, arguments, environment);
        self.with(|programs| programs.insert(name.to_owned(), program));
    }

    /// Kills one of the programs.
    pub(crate) fn kill(&self, name: &str) {
        self.with(|programs| programs.get_mut(name).unwrap().kill());
    }

    /// Starts a killed program again.
    pub(crate) fn again(&self, name: &str) {
        self.with(|programs| programs.get_mut(name).unwrap().again());
    }

    fn with<T>(&self, change: impl FnOnce(&mut BTreeMap<String, Program>) -> T) -> T {
        change(&mut self.programs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where everything that it writes is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs a future on a runtime of its own.
    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(future)
    }

    /// A kubeconfig file for whoever has this token.
    pub(crate) fn kubeconfig(&self, token: &str) -> PathBuf {
        self.kubeconfig_of(token, token)
    }

    /// A kubeconfig file of this name for whoever has this token.
    pub(crate) fn kubeconfig_of(&self, name: &str, token: &str) -> PathBuf {
        self.kubeconfig_for(name, token, &self.server)
    }

    /// The same for a server in front of this one.
    pub(crate) fn kubeconfig_for(&self, name: &str, token: &str, server: &str) -> PathBuf {
        let path = self.folder.join(format!("kubeconfig-{name}"));
        let ca = tests().join("data/tls/ca.pem");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "rig",
            "clusters": [{"name": "rig", "cluster": {"server": server, "certificate-authority": ca}}],
            "users": [{"name": "rig", "user": {"token": token}}],
            "contexts": [{"name": "rig", "context": {"cluster": "rig", "user": "rig"}}],
        });
        // Tests that run beside this one read the same file: it is never seen half written.
        let mut written = tempfile::NamedTempFile::new_in(&self.folder).unwrap();
        std::io::Write::write_all(&mut written, config.to_string().as_bytes()).unwrap();
        written.persist(&path).unwrap();
        path
    }

    /// The kubeconfig file of somebody who may do everything.
    pub(crate) fn admin(&self) -> PathBuf {
        self.kubeconfig(ADMIN)
    }

    /// The calls of a service account so far, as the API server wrote them down.
    pub(crate) fn audited(&self, namespace: &str, account: &str) -> Vec<Value> {
        let user = format!("system:serviceaccount:{namespace}:{account}");
        let log = std::fs::read_to_string(self.folder.join("audit.log")).unwrap();
        let lines = log.lines().filter(|line| line.contains(&user));
        let calls = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        calls
            .filter(|call| call["user"]["username"] == user)
            .collect()
    }

    /// What a program said.
    pub(crate) fn log(&self, name: &str) -> String {
        self.with(|programs| programs.get(name).map(Program::log))
            .unwrap_or_default()
    }

    /// The requests that one of the counted users has made so far, by verb and resource. A watch is one when it ends.
    pub(crate) fn requests_of(&self, user: &str) -> BTreeMap<String, usize> {
        let log = std::fs::read_to_string(self.folder.join("audit.log")).unwrap_or_default();
        let name = format!("\"username\":\"{user}\"");
        let lines = log.lines().filter(|line| line.contains(&name));
        let calls = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut counted = BTreeMap::new();
        for call in calls.filter(|call| call["stage"] == "ResponseComplete") {
            let text = |pointer| call.pointer(pointer).and_then(Value::as_str);
            let verb = text("/verb").unwrap_or_default();
            let resource = text("/objectRef/resource").or(text("/requestURI"));
            let what = match text("/objectRef/subresource") {
                Some(part) => format!("{verb} {}/{part}", resource.unwrap_or_default()),
                None => format!("{verb} {}", resource.unwrap_or_default()),
            };
            *counted.entry(what).or_default() += 1;
        }
        counted
    }

    /// A client that may do everything; one for each runtime.
    pub(crate) async fn client(&self) -> Client {
        let file = Kubeconfig::read_from(self.admin()).unwrap();
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(file, &options).await;
        Client(kube::Client::try_from(config.unwrap()).unwrap())
    }

    async fn ready(&self) {
        let client = self.client().await.0;
        let begun = Instant::now();
        loop {
            let request = axum::http::Request::get("/readyz")
                .body(Vec::new())
                .unwrap();
            match client.request_text(request).await {
                Ok(_) => return,
                Err(error) if begun.elapsed() > PATIENCE => {
                    panic!(
                        "the API server is not ready: {error}\n{}",
                        self.log("kube-apiserver")
                    );
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Definitions and a node.
    async fn furnish(&self) {
        let client = self.client().await;
        let data = tests().join("data/istio");
        let mut definitions: Vec<Value> = ["destinationrules", "virtualservices"]
            .iter()
            .map(|name| data.join(format!("{name}.networking.istio.io.yaml")))
            .map(|path| std::fs::read_to_string(path).unwrap())
            .map(|text| serde_yaml::from_str(&text).unwrap())
            .collect();
        let canary = tests().join("../crds/canary.yaml");
        let canary = std::fs::read_to_string(canary).unwrap();
        let mut canary: Value = serde_yaml::from_str(&canary).unwrap();
        // The definition is there before the chart is: whoever installs the chart tells Helm that it may have it.
        canary["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "Helm"});
        canary["metadata"]["annotations"] = json!({
            "meta.helm.sh/release-name": "serin", "meta.helm.sh/release-namespace": "serin-system",
        });
        definitions.push(canary);
        for definition in &definitions {
            client.put(definition).await;
        }
        client
            .put(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-0"}}))
            .await;
        for definition in &definitions {
            let name = definition["metadata"]["name"].as_str().unwrap();
            let is_established = |found: &Value| {
                let conditions = found["status"]["conditions"].as_array();
                conditions.into_iter().flatten().any(|condition| {
                    condition["type"] == "Established" && condition["status"] == "True"
                })
            };
            let key = (
                "apiextensions.k8s.io/v1",
                "CustomResourceDefinition",
                "",
                name,
            );
            client
                .until(key, "established", |found| {
                    found.is_some_and(is_established)
                })
                .await;
        }
    }
}

fn controllers(kubeconfig: &Path) -> Vec<String> {
    let controllers = [
        "deployment-controller",
        "endpoints-controller",
        "endpointslice-controller",
        "garbage-collector-controller",
        "namespace-controller",
        "replicaset-controller",
        "resourcequota-controller",
        "serviceaccount-controller",
    ];
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--controllers={}", controllers.join(",")),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
        "--use-service-account-credentials=false".to_owned(),
        "--kube-api-qps=500".to_owned(),
        "--kube-api-burst=1000".to_owned(),
    ]
}
