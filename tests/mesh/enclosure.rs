//! A network namespace of its own for the whole run: pods have addresses that no network knows, ports are nobody else's, and
//! all of it is gone with the last process.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

/// Set inside.
const MARK: &str = "SERIN_MESH_INSIDE";

/// Goes on inside of a new namespace: this process is replaced by one that begins anew there. Says what is missing where
/// that is not possible.
pub(crate) fn enter() -> Result<(), String> {
    if std::env::var_os(MARK).is_none() {
        return Err(enter_anew());
    }
    // Inside only this process and its children can reach anything, so a proxy would be in the way.
    run("ip", &["link", "set", "lo", "up"])?;
    run("ip", &["route", "add", "local", "10.0.0.0/8", "dev", "lo"])
}

/// Only comes back with an error.
fn enter_anew() -> String {
    let mut options = vec!["--net"];
    if !rustix::process::geteuid().is_root() {
        options.extend(["--user", "--map-root-user"]);
    }
    let tried = Command::new("unshare")
        .args(&options)
        .arg("true")
        .stdin(Stdio::null())
        .output();
    match tried {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            return format!(
                "`unshare {}` failed: {}; run it as root, or on a kernel that lets users make namespaces \
                 (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0)",
                options.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Err(error) => {
            return format!(
                "`unshare` cannot be started ({error}): install util-linux; network namespaces need Linux"
            );
        }
    }
    let own = match std::env::current_exe() {
        Ok(path) => path,
        Err(error) => return format!("cannot find this program: {error}"),
    };
    // What fetches programs has to run outside, where there is a network.
    for (script, arguments) in [
        ("rig/build", vec!["plane", "mesh", "flux"]),
        ("rig/envoy/install", vec![]),
        ("rig/helm/install", vec![]),
    ] {
        crate::rig::installed(script, &arguments);
    }
    let mut command = Command::new("unshare");
    command
        .args(&options)
        .arg("--")
        .arg(own)
        .args(std::env::args_os().skip(1));
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    let error = command.env(MARK, "1").exec();
    format!("`unshare` cannot be started: {error}")
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("`{program}` cannot be started ({error}): install iproute2"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "`{program} {}` failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}
