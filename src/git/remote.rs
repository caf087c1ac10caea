//! Where a repository is: its URL without the secrets in it, and the one function that keeps them out of every text.
//!
//! A password in a URL never reaches the arguments of a process, where every user of the machine could read it: `git` gets
//! a URL without it and asks a credential helper that reads the environment.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// Protocols that `git` may speak for us; a remote helper such as `ext::` could run any program.
pub(super) const PROTOCOLS: &str = "file:git:http:https:ssh";
/// The name under which `git` knows the remote.
pub(super) const NAME: &str = "serin";
/// Environment of the credential helper below.
const USERNAME: &str = "SERIN_GIT_USERNAME";
const PASSWORD: &str = "SERIN_GIT_PASSWORD";
const HELPER: &str = concat!(
    "!f() { test \"$1\" = get && ",
    "printf 'username=%s\\npassword=%s\\n' \"$SERIN_GIT_USERNAME\" \"$SERIN_GIT_PASSWORD\"; }; f"
);
/// What stands for a secret.
const MASK: &str = "***";
/// Shorter secrets are not searched for in texts: they would mask ordinary words, and nothing prints them anyway.
const MIN_SEARCHED: usize = 4;

/// The address of a repository. `Debug` and `Display` show it without user, password and query.
#[derive(Clone, PartialEq, Eq)]
pub struct Remote {
    location: String,
    origin: Option<String>,
    user: Option<String>,
    password: Option<String>,
    secrets: Vec<String>,
}

/// A text that is no address of a repository, without the secrets that may be in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a repository: {why}; write a path, `file://…`, `https://…`, `ssh://…` or `host:path`"
)]
pub struct InvalidRemote {
    text: String,
    why: &'static str,
}

// === impl Remote ===

impl FromStr for Remote {
    type Err = InvalidRemote;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |why| InvalidRemote {
            text: mask_user_info(text),
            why,
        };
        if text.is_empty() {
            return Err(invalid("it is empty"));
        }
        if text.chars().any(char::is_control) {
            return Err(invalid("it holds a control character"));
        }
        if text.starts_with('-') {
            return Err(invalid("it starts with `-`"));
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            return Self::from_url(scheme, rest).map_err(invalid);
        }
        let host = text.split(['/', ':']).next().unwrap_or_default();
        let is_scp = host.len() < text.len() && text[host.len()..].starts_with(':');
        if is_scp && text[host.len()..].starts_with("::") {
            return Err(invalid("remote helpers are not allowed"));
        }
        if is_scp && host.rsplit('@').next().is_none_or(is_no_host) {
            return Err(invalid("it names no host"));
        }
        Ok(Self::plain(text))
    }
}

impl Remote {
    fn from_url(scheme: &str, rest: &str) -> Result<Self, &'static str> {
        if !PROTOCOLS.split(':').any(|allowed| allowed == scheme) {
            return Err("its protocol is not one of file, git, http, https and ssh");
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (user_info, host) = match authority.rsplit_once('@') {
            Some((user_info, host)) => (Some(user_info), host),
            None => (None, authority),
        };
        if scheme != "file" && is_no_host(host) {
            return Err("it names no host");
        }
        let (user, password) =
            match user_info.map(|info| info.split_once(':').unwrap_or((info, ""))) {
                Some((user, password)) => (
                    decode(user).ok_or("its user is not a text")?,
                    decode(password).ok_or("its password is not a text")?,
                ),
                None => (String::new(), String::new()),
            };
        if !scheme.starts_with("http") {
            if !password.is_empty() {
                return Err("only http and https take a password; use a key");
            }
            return Ok(Self::plain(&format!("{scheme}://{rest}")));
        }
        let mut remote = Self::plain(&format!("{scheme}://{host}{path}"));
        remote.origin = Some(format!("{scheme}://{host}"));
        if let Some(query) = path.split_once('?').map(|(_, query)| query) {
            remote.secrets.push(query.to_owned());
        }
        if !password.is_empty() {
            // A token is as often the user as it is the password.
            for secret in user_info.unwrap_or_default().split(':') {
                remote.secrets.push(secret.to_owned());
            }
            remote.secrets.extend([password.clone(), user.clone()]);
            remote.password = Some(password);
        }
        remote.user = Some(user).filter(|user| !user.is_empty());
        remote.secrets.retain(|secret| secret.len() >= MIN_SEARCHED);
        remote
            .secrets
            .sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        remote.secrets.dedup();
        Ok(remote)
    }

    fn plain(location: &str) -> Self {
        Self {
            location: location.to_owned(),
            origin: None,
            user: None,
            password: None,
            secrets: Vec::new(),
        }
    }

    /// The same remote, with a relative path seen from `folder`.
    pub(super) fn absolute_from(mut self, folder: &Path) -> Self {
        let is_path = !self.location.contains("://")
            && !self
                .location
                .split('/')
                .next()
                .is_some_and(|first| first.contains(':'));
        if is_path {
            self.location = folder.join(&self.location).to_string_lossy().into_owned();
        }
        self
    }

    /// Configuration with which `git` knows the remote as [`NAME`].
    pub(super) fn configuration(&self) -> Vec<(String, String)> {
        let mut entries = vec![(format!("remote.{NAME}.url"), self.location.clone())];
        if let Some(origin) = &self.origin {
            if self.password.is_some() {
                // Only for this host: a redirect to another one must not get the password. The empty entry
                // switches other helpers off, which could store it.
                let key = format!("credential.{origin}.helper");
                entries.push((key.clone(), String::new()));
                entries.push((key, HELPER.to_owned()));
            } else if let Some(user) = &self.user {
                entries.push((format!("credential.{origin}.username"), user.clone()));
            }
        }
        entries
    }

    /// Environment that the configuration needs.
    pub(super) fn environment(&self) -> Vec<(&'static str, String)> {
        match &self.password {
            Some(password) => vec![
                (USERNAME, self.user.clone().unwrap_or_default()),
                (PASSWORD, password.clone()),
            ],
            None => Vec::new(),
        }
    }

    /// The text without user, password and query of this remote, and without those of any URL in it.
    pub(super) fn scrub(&self, text: &str) -> String {
        let text = self
            .secrets
            .iter()
            .fold(text.to_owned(), |text, secret| text.replace(secret, MASK));
        mask_user_info(&text)
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = match self.origin {
            Some(_) => self.location.split('?').next().unwrap_or_default(),
            None => &self.location,
        };
        f.write_str(&mask_user_info(shown))
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({self})")
    }
}

fn is_no_host(host: &str) -> bool {
    host.is_empty() || host.starts_with('-') || host.starts_with(':')
}

/// Replaces what stands between `://` and `@` in every URL of a text.
fn mask_user_info(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        masked.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '\'' | '"' | '<' | '>' | '`'))
            .unwrap_or(after.len());
        match after[..end].rfind('@') {
            Some(host) => {
                masked.push_str(MASK);
                rest = &after[host..];
            }
            None => rest = after,
        }
    }
    masked.push_str(rest);
    masked
}

/// Undoes percent-encoding; `None` when that gives no text or a line break that a credential cannot hold.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = (*first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match hex {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(text: &str) -> Remote {
        text.parse().unwrap()
    }

    #[test]
    fn what_git_understands_is_understood() {
        for text in [
            "/srv/git/app.git",
            "../app.git",
            "app.git",
            "file:///srv/git/app.git",
            "https://example.com/team/app.git",
            "http://example.com:8080/app",
            "ssh://git@example.com:2222/team/app.git",
            "git@example.com:team/app.git",
            "example.com:app",
            "git://example.com/app",
            "/srv/with:colon/app",
        ] {
            assert_eq!(remote(text).location, text);
        }
    }

    #[test]
    fn what_could_run_a_program_is_refused() {
        for text in [
            "",
            "-uupload-pack=evil",
            "--upload-pack=evil",
            "ext::sh -c evil",
            "fd::17",
            "ext://x",
            "ftp://example.com/x",
            "ssh://-oProxyCommand=evil/x",
            "ssh://git@-oProxyCommand=evil/x",
            "-oProxyCommand=evil:x",
            "git@-oProxyCommand=evil:x",
            "https:///x",
            "https://example.com/x\nurl=evil",
        ] {
            assert!(text.parse::<Remote>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let remote = remote("https://deploy:s3cr%2Ft%40p@example.com/app.git?token=query-secret");
        assert_eq!(remote.to_string(), "https://example.com/app.git");
        assert_eq!(format!("{remote:?}"), "Remote(https://example.com/app.git)");
        assert_eq!(
            remote.scrub(
                "fatal: 's3cr/t@p' s3cr%2Ft%40p https://deploy:s3cr%2Ft%40p@example.com/app.git?token=query-secret: no"
            ),
            "fatal: '***' *** https://***@example.com/app.git?***: no"
        );
        assert!(
            remote
                .configuration()
                .iter()
                .all(|(key, value)| !format!("{key}{value}").contains("s3cr"))
        );
        assert_eq!(
            remote.environment(),
            vec![
                (USERNAME, "deploy".to_owned()),
                (PASSWORD, "s3cr/t@p".to_owned())
            ]
        );
        let error = "ssh://git:hunter2@example.com/x"
            .parse::<Remote>()
            .unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        let error = "ext://git:hunter2@example.com/x"
            .parse::<Remote>()
            .unwrap_err();
        assert!(!format!("{error:?}{error}").contains("hunter2"), "{error}");
    }

    #[test]
    fn passwords_of_other_urls_are_masked_too() {
        let remote = remote("/srv/app.git");
        assert_eq!(
            remote.scrub(
                "unable to access 'https://x:tok@h/': no; see http://a@b@c and mail@example.com"
            ),
            "unable to access 'https://***@h/': no; see http://***@c and mail@example.com"
        );
    }

    #[test]
    fn a_user_alone_is_left_to_the_credential_helpers() {
        let remote = remote("https://deploy@example.com/app.git");
        assert_eq!(
            remote.configuration(),
            vec![
                (
                    "remote.serin.url".to_owned(),
                    "https://example.com/app.git".to_owned()
                ),
                (
                    "credential.https://example.com.username".to_owned(),
                    "deploy".to_owned()
                ),
            ]
        );
        assert_eq!(remote.environment(), vec![]);
    }

    #[test]
    fn relative_paths_are_seen_from_a_folder() {
        let absolute = |text: &str| remote(text).absolute_from(Path::new("/srv/git")).location;
        assert_eq!(absolute("app.git"), "/srv/git/app.git");
        assert_eq!(absolute("/srv/app.git"), "/srv/app.git");
        assert_eq!(absolute("host:app.git"), "host:app.git");
        assert_eq!(absolute("https://h/app.git"), "https://h/app.git");
    }
}
