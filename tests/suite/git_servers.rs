//! Real Git servers for the tests: `git http-backend` behind basic authentication, and `sshd` on a loopback port.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use tokio::io::AsyncWriteExt;

/// A command with nothing of this machine's configuration in it.
#[expect(
    clippy::disallowed_methods,
    reason = "tests play people and servers, who start processes"
)]
pub(crate) fn program(name: &str, home: &Path) -> Command {
    let mut command = Command::new(name);
    command
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("HOME", home)
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null());
    command
}

/// Runs a command to its end and returns what it printed.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} cannot be started, is it installed? {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Serves every repository of a folder over smart HTTP to `deploy`, whose password is `s3cr/t@p`.
pub(crate) async fn http(root: &Path, home: &Path) -> SocketAddr {
    http_at(root, home, 0).await
}

/// The same on a port of one's choice.
pub(crate) async fn http_at(root: &Path, home: &Path, port: u16) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    let server = Backend {
        root: root.to_owned(),
        home: home.to_owned(),
    };
    let app = Router::new().fallback(backend).with_state(server);
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

#[derive(Clone)]
struct Backend {
    root: PathBuf,
    home: PathBuf,
}

/// One CGI request.
async fn backend(
    State(server): State<Backend>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
    };
    if header("authorization") != "Basic ZGVwbG95OnMzY3IvdEBw" {
        let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"git\"")];
        return (StatusCode::UNAUTHORIZED, challenge, "who are you?").into_response();
    }
    let mut command = program("git", &server.home);
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", &server.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_USER", "deploy")
        .env("REQUEST_METHOD", method.as_str())
        .env("PATH_INFO", uri.path())
        .env("QUERY_STRING", uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = tokio::process::Command::from(command).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writing = tokio::spawn(async move { stdin.write_all(&body).await });
    let output = child.wait_with_output().await.unwrap();
    // It stops reading when it answers an error.
    let _ = writing.await.unwrap();
    answer(&output.stdout)
}

/// What a CGI program printed, as a response.
fn answer(output: &[u8]) -> Response {
    let end = output
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    let mut response = Response::builder();
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let (name, value) = line.split_once(": ").unwrap();
        response = match name {
            "Status" => response.status(value[..3].parse::<u16>().unwrap()),
            _ => response.header(name, value),
        };
    }
    response.body(output[end + 4..].to_vec().into()).unwrap()
}

/// A server that accepts connections and never says a word.
pub(crate) fn silent() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A running `sshd` with a key of its own, ended with this value.
pub(crate) struct Sshd {
    process: Child,
    /// Where it listens.
    pub(crate) port: u16,
    /// Who may log in: the user that runs the tests.
    pub(crate) user: String,
    /// For `GIT_SSH_COMMAND`: an `ssh` that knows key and host.
    pub(crate) client: String,
}

impl Sshd {
    /// Starts it with everything it needs below `folder`.
    pub(crate) fn start(folder: &Path) -> Self {
        let path = |name: &str| folder.join(name).display().to_string();
        for key in ["host", "user"] {
            let mut keygen = program("ssh-keygen", folder);
            run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", &path(key)]));
        }
        std::fs::copy(path("user.pub"), path("authorized_keys")).unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let configuration = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nAcceptEnv GIT_PROTOCOL\n",
            path("host"),
            path("authorized_keys"),
        );
        std::fs::write(path("sshd_config"), configuration).unwrap();
        let host_key = std::fs::read_to_string(path("host.pub")).unwrap();
        std::fs::write(
            path("known_hosts"),
            format!("[127.0.0.1]:{port} {host_key}"),
        )
        .unwrap();
        // As root it wants a folder that Debian's service file makes.
        let _ = std::fs::create_dir_all("/run/sshd");
        let log = std::fs::File::create(path("sshd.log")).unwrap();
        let process = program("/usr/sbin/sshd", folder)
            .args(["-D", "-e", "-f", &path("sshd_config")])
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("sshd is needed (Debian: openssh-server): {error}"));
        let sshd = Self {
            process,
            port,
            user: run(program("id", folder).arg("-un")),
            client: format!(
                "ssh -F /dev/null -i {} -o IdentitiesOnly=yes -o BatchMode=yes -o UserKnownHostsFile={}",
                path("user"),
                path("known_hosts")
            ),
        };
        for _ in 0..200 {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return sshd;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!(
            "sshd does not listen: {}",
            std::fs::read_to_string(path("sshd.log")).unwrap()
        );
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
