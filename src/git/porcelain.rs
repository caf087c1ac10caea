//! What `git` prints, as values. Pure functions of bytes.
//!
//! Output meant for programs (`ls-remote`, `push --porcelain`) decides; words for people only choose the category of a
//! failure and are passed on.

use std::collections::BTreeMap;

/// Words of a server that are passed on: a page, not a book.
const MAX_LINES: usize = 30;
const MAX_LINE: usize = 500;

/// What `git ls-remote --symref` answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Advertised {
    /// Object id by full reference name.
    pub(super) refs: BTreeMap<String, String>,
    /// Target of symbolic references by name.
    pub(super) symbolic: BTreeMap<String, String>,
}

/// One line of `git push --porcelain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pushed {
    /// Whether it was rejected, here or there.
    pub(super) rejected: bool,
    /// The reference on the remote.
    pub(super) to: String,
    /// Such as `[remote rejected] (pre-receive hook declined)`.
    pub(super) summary: String,
}

/// Kinds of failure that differ in who has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Credentials or permissions.
    Denied,
    /// No such repository or reference.
    Missing,
    /// The disk of our copy.
    Local,
    /// All else: network, server faults.
    Unreachable,
}

/// Reads `git ls-remote --symref`; lines of any other form are ignored.
pub(super) fn advertised(stdout: &[u8]) -> Advertised {
    let mut answer = Advertised::default();
    for line in String::from_utf8_lossy(stdout).lines() {
        let Some((value, name)) = line.split_once('\t') else {
            continue;
        };
        if let Some(target) = value.strip_prefix("ref: ") {
            answer.symbolic.insert(name.to_owned(), target.to_owned());
        } else if value.len() >= 40 && value.bytes().all(|b| b.is_ascii_hexdigit()) {
            answer.refs.insert(name.to_owned(), value.to_owned());
        }
    }
    answer
}

/// Reads `git push --porcelain`.
pub(super) fn pushed(stdout: &[u8]) -> Vec<Pushed> {
    String::from_utf8_lossy(stdout)
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, '\t');
            let (flag, refs, summary) = (fields.next()?, fields.next()?, fields.next()?);
            let (_, to) = refs.rsplit_once(':')?;
            Some(Pushed {
                rejected: flag == "!",
                to: to.to_owned(),
                summary: plain(summary),
            })
        })
        .collect()
}

/// The words of the server among the error output, verbatim but for padding and control characters.
pub(super) fn server_words(stderr: &[u8]) -> Vec<String> {
    lines(stderr)
        .filter_map(|line| line.strip_prefix("remote:").map(plain))
        .skip_while(String::is_empty)
        .take(MAX_LINES)
        .collect()
}

/// What `git` itself complained of; all of its output when it marked no line.
pub(super) fn complaint(stderr: &[u8]) -> String {
    let marked = lines(stderr)
        .filter_map(|line| {
            ["fatal: ", "error: ", "ERROR: ", "remote: "]
                .iter()
                .find_map(|mark| line.strip_prefix(mark))
                .map(plain)
        })
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>();
    let all = || {
        lines(stderr)
            .filter(|line| !line.starts_with("hint: "))
            .map(|line| plain(&line))
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
    };
    let mut kept = if marked.is_empty() { all() } else { marked };
    kept.truncate(MAX_LINES);
    kept.dedup();
    if kept.is_empty() {
        "git gave no reason".to_owned()
    } else {
        kept.join("; ")
    }
}

/// Whether a fetch got all although it asked for less: `git` says so, and goes on.
pub(super) fn ignored_filter(stderr: &[u8]) -> bool {
    lines(stderr).any(|line| line.contains("filtering not recognized by server"))
}

/// Who has to act. The messages are those of `git`, `curl`, `ssh` and the large forges in the C locale.
pub(super) fn trouble(stderr: &[u8]) -> Trouble {
    const DENIED: &[&str] = &[
        "authentication failed",
        "could not read username",
        "could not read password",
        "permission denied",
        "permission to ",
        "host key verification failed",
        "returned error: 401",
        "returned error: 403",
        "access denied",
        "not authorized",
        "unauthorized",
        "forbidden",
        "dubious ownership",
    ];
    const MISSING: &[&str] = &[
        "does not appear to be a git repository",
        "repository not found",
        "couldn't find remote ref",
        "returned error: 404",
        "no such file or directory",
        "project you were looking for could not be found",
    ];
    let text = String::from_utf8_lossy(stderr).to_lowercase();
    if text
        .lines()
        .any(|line| !line.starts_with("remote: ") && is_full(line))
    {
        return Trouble::Local;
    }
    let holds = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let not_found = text
        .lines()
        .any(|line| line.contains("repository '") && line.ends_with("' not found"));
    if holds(MISSING) || not_found {
        Trouble::Missing
    } else if holds(DENIED) {
        Trouble::Denied
    } else {
        Trouble::Unreachable
    }
}

/// Whether a message says that a disk takes no more: the system's words in the C locale.
pub(super) fn is_full(text: &str) -> bool {
    const FULL: &[&str] = &[
        "no space left on device",
        "disk quota exceeded",
        "file too large",
        "read-only file system",
    ];
    let text = text.to_lowercase();
    FULL.iter().any(|words| text.contains(words))
}

/// Lines as a terminal would leave them: text before a lone carriage return is overwritten progress.
fn lines(bytes: &[u8]) -> impl Iterator<Item = String> {
    bytes
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .map(|line| line.rsplit(|byte| *byte == b'\r').next().unwrap_or(line))
        .map(|line| String::from_utf8_lossy(line).into_owned())
}

/// Without terminal sequences, other control characters, surrounding space, and what is too long.
fn plain(text: &str) -> String {
    let mut kept = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => {
                if chars.next() == Some('[') {
                    chars.by_ref().find(|c| ('@'..='~').contains(c));
                }
            }
            '\t' => kept.push(' '),
            c if c.is_control() => {}
            c => kept.push(c),
        }
    }
    match kept.trim().char_indices().nth(MAX_LINE) {
        Some((end, _)) => format!("{}…", &kept.trim()[..end]),
        None => kept.trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "8ab686eafeb1f44702738c8b0f24f2567c36da6d";

    #[test]
    fn references_and_the_default_branch() {
        let text =
            format!("ref: refs/heads/main\tHEAD\n{ID}\tHEAD\n{ID}\trefs/heads/main\nwarning: x\n");
        let answer = advertised(text.as_bytes());
        assert_eq!(answer.symbolic["HEAD"], "refs/heads/main");
        assert_eq!(answer.refs["refs/heads/main"], ID);
        assert_eq!(answer.refs.len(), 2);
        assert_eq!(advertised(b""), Advertised::default());
        assert_eq!(advertised(b"\tx\nref\t\n<html>\tz"), Advertised::default());
    }

    fn reasons(stdout: &str) -> Vec<(bool, String)> {
        pushed(stdout.as_bytes())
            .into_iter()
            .map(|line| {
                assert_eq!(line.to, "refs/heads/main");
                (line.rejected, line.summary)
            })
            .collect()
    }

    /// Each wording that is known for a lost race or a refusal, as `git` 2.39 prints it.
    #[test]
    fn every_wording_of_a_rejection() {
        for summary in [
            "[rejected] (fetch first)",
            "[rejected] (non-fast-forward)",
            "[rejected] (stale info)",
            "[remote rejected] (failed to update ref)",
            "[remote rejected] (cannot lock ref 'refs/heads/main': is at a but expected b)",
            "[remote rejected] (incorrect old value provided)",
            "[remote rejected] (pre-receive hook declined)",
            "[remote rejected] (Ablehnung: geschützter Zweig)",
        ] {
            let stdout =
                format!("To https://example.com/x\n!\t{ID}:refs/heads/main\t{summary}\nDone\n");
            assert_eq!(reasons(&stdout), vec![(true, summary.to_owned())]);
        }
        let fine = format!("To /srv/x\n \t{ID}:refs/heads/main\tb4aaebf..8ab686e\nDone\n");
        assert_eq!(reasons(&fine), vec![(false, "b4aaebf..8ab686e".to_owned())]);
        assert_eq!(reasons("fatal: nothing of the kind"), vec![]);
    }

    #[test]
    fn the_server_is_quoted_without_padding_and_colours() {
        let stderr = "remote: \r\nremote: \u{1b}[31mRefusé : branche protégée\u{1b}[0m        \nremote: see\thelp        \n\
                      To x\nerror: failed to push some refs to 'x'\nhint: try again\n";
        assert_eq!(
            server_words(stderr.as_bytes()),
            vec!["Refusé : branche protégée", "see help"]
        );
    }

    #[test]
    fn progress_is_not_a_word() {
        let stderr = b"remote: Counting: 1%\rremote: Counting: 100%\nremote: no\n";
        assert_eq!(server_words(stderr), vec!["Counting: 100%", "no"]);
    }

    #[test]
    fn complaints_prefer_marked_lines() {
        assert_eq!(
            complaint(b"Warning: added\nfatal: unable to access 'x': no\nhint: look\n"),
            "unable to access 'x': no"
        );
        assert_eq!(
            complaint(b"ssh: connect: refused\r\nhint: x\n"),
            "ssh: connect: refused"
        );
        assert_eq!(complaint(b"\n"), "git gave no reason");
    }

    #[test]
    fn a_book_of_words_becomes_a_page() {
        let stderr = format!("remote: {}\n", "x".repeat(10_000)).repeat(100);
        let words = server_words(stderr.as_bytes());
        assert_eq!(words.len(), MAX_LINES);
        assert!(
            words
                .iter()
                .all(|line| line.chars().count() == MAX_LINE + 1)
        );
    }

    #[test]
    fn failures_are_told_apart() {
        use Trouble::{Denied, Missing, Unreachable};
        for (stderr, wanted) in [
            ("fatal: Authentication failed for 'https://h/x/'", Denied),
            (
                "fatal: could not read Username for 'https://h': terminal prompts disabled",
                Denied,
            ),
            (
                "git@h: Permission denied (publickey).\nfatal: Could not read from remote repository.",
                Denied,
            ),
            (
                "Host key verification failed.\nfatal: Could not read from remote repository.",
                Denied,
            ),
            (
                "fatal: unable to access 'https://h/': The requested URL returned error: 403",
                Denied,
            ),
            ("remote: Permission to a/b.git denied to c.", Denied),
            ("fatal: repository 'https://h/x/' not found", Missing),
            (
                "ERROR: Repository not found.\nfatal: Could not read from remote repository.",
                Missing,
            ),
            (
                "fatal: '/x' does not appear to be a git repository",
                Missing,
            ),
            ("fatal: couldn't find remote ref refs/heads/x", Missing),
            (
                "fatal: unable to access 'https://h/': Could not resolve host: h",
                Unreachable,
            ),
            (
                "fatal: unable to access 'https://h/': The requested URL returned error: 502",
                Unreachable,
            ),
            ("fatal: the remote end hung up unexpectedly", Unreachable),
            ("", Unreachable),
        ] {
            assert_eq!(trouble(stderr.as_bytes()), wanted, "{stderr}");
        }
    }
}
