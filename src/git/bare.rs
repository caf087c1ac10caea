//! A new bare repository with a first commit. Everything later is pushed to it like to any other.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::command::{Git, Output};
use super::objects::local_io;
use super::porcelain;
use super::remote::Remote;
use crate::domain::{Person, RepoPath, Timestamp};
use crate::ports::RepositoryError;

/// For work on this machine's disk.
const DEADLINE: Duration = Duration::from_secs(60);

/// The commit that a new repository begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct First<'a> {
    /// The branch, which `HEAD` names too.
    pub branch: &'a str,
    /// Author and committer.
    pub person: &'a Person,
    /// When.
    pub at: Timestamp,
    /// The whole message.
    pub message: &'a str,
    /// Content by path.
    pub files: &'a BTreeMap<RepoPath, Vec<u8>>,
}

/// Makes a bare repository in an empty folder, which is created when it is missing.
pub async fn create_bare(folder: &Path, first: &First<'_>) -> Result<(), RepositoryError> {
    let name = folder
        .to_str()
        .ok_or_else(|| RepositoryError::Local(format!("{} is no text", folder.display())))?;
    let remote: Remote = name
        .parse()
        .map_err(|error| RepositoryError::Local(format!("{error}")))?;
    std::fs::create_dir_all(folder).map_err(|error| local_io(folder, &error))?;
    let git = Git::new(folder.to_owned(), &remote, &BTreeMap::new());
    let branch = format!("--initial-branch={}", first.branch);
    let init = [
        "init",
        "--quiet",
        "--bare",
        "--template=",
        "--object-format=sha1",
        &branch,
    ];
    done(git.run(&init, DEADLINE).await)?;
    let import = ["fast-import", "--quiet", "--done", "--date-format=raw"];
    done(git.run_with(&import, stream(first), DEADLINE).await)
}

fn done(ran: Result<Output, super::command::NoOutput>) -> Result<(), RepositoryError> {
    match ran {
        Ok(output) if output.success => Ok(()),
        Ok(output) => Err(RepositoryError::Local(porcelain::complaint(&output.stderr))),
        Err(error) => Err(RepositoryError::Local(error.to_string())),
    }
}

/// The commit as `git fast-import` reads it.
fn stream(first: &First<'_>) -> Vec<u8> {
    let Person { name, email } = first.person;
    let who = format!("{name} <{email}> {} +0000", first.at.timestamp());
    let mut out = format!(
        "commit refs/heads/{}\nauthor {who}\ncommitter {who}\ndata {}\n{}\n",
        first.branch,
        first.message.len(),
        first.message
    )
    .into_bytes();
    for (path, content) in first.files {
        let quoted = path.as_str().replace('\n', "\\n").replace('"', "\\\"");
        let entry = format!("M 100644 inline \"{quoted}\"\ndata {}\n", content.len());
        out.extend_from_slice(entry.as_bytes());
        out.extend_from_slice(content);
        out.push(b'\n');
    }
    out.extend_from_slice(b"done\n");
    out
}
