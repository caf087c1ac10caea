//! Where the server is, how to prove who asks, and how long to wait.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Identity, Url};

use crate::analysis::AskError;

/// Most characters of a failure.
const MOST_WORDS: usize = 1000;

/// Largest certificate, key or token file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// A text that is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How the client proves who it is, beside a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Auth {
    /// Not at all.
    #[default]
    None,
    /// `Authorization: Bearer`.
    Bearer(Secret),
    /// The same with the token in a file, which is read again for every tick: mounted tokens are replaced hourly.
    BearerFile(PathBuf),
    /// `Authorization: Basic`.
    Basic {
        /// User name.
        user: String,
        /// Password.
        password: Secret,
    },
}

/// A client certificate for mTLS. Both files are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM file with the certificate chain.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// All that is known of a Prometheus server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Base URL, `http` or `https`, a path in front of `/api/v1` included. A user and password in it become
    /// [`Auth::Basic`].
    pub url: String,
    /// Longest time for all queries of a tick together.
    pub deadline: Duration,
    /// Proof of identity.
    pub auth: Auth,
    /// mTLS.
    pub certificate: Option<ClientCertificate>,
    /// PEM file with further certificate authorities, read again when it changes.
    pub ca: Option<PathBuf>,
    /// Whether the authorities of the machine do not count.
    pub only_own_ca: bool,
    /// Further headers of every request, such as `X-Scope-OrgID`.
    pub headers: Vec<(String, Secret)>,
}

/// Why a server cannot be asked with these settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// The URL is not one that can be asked.
    #[error("the Prometheus URL cannot be used: {0}; write for example `http://prometheus:9090`")]
    Url(String),
    /// A header that HTTP does not allow.
    #[error(
        "the header `{0}` cannot be sent: its name or value has characters that HTTP does not allow"
    )]
    Header(String),
    /// A file that cannot be read.
    #[error("failed to read {what} from `{}`: {words}", .path.display())]
    File {
        /// What it should hold.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// The system's words.
        words: String,
    },
    /// A file that holds something else.
    #[error("`{}` holds no usable {what}; a PEM file is expected", .path.display())]
    Pem {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// TLS cannot be set up.
    #[error("failed to set up TLS: {0}")]
    Tls(String),
}

impl Settings {
    /// Settings for a URL with all else at its default: 10 s, no proof of identity, the machine's authorities.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            deadline: Duration::from_secs(10),
            auth: Auth::None,
            certificate: None,
            ca: None,
            only_own_ca: false,
            headers: Vec::new(),
        }
    }

    /// The same with a normal URL, and a user and password moved out of it.
    pub(super) fn checked(mut self) -> Result<Self, SetupError> {
        // The text itself may hold a password, so no error repeats it.
        let mut url = Url::parse(&self.url).map_err(|error| SetupError::Url(error.to_string()))?;
        let problem = |words: &str| SetupError::Url(words.to_owned());
        if !matches!(url.scheme(), "http" | "https") {
            return Err(problem("its scheme is neither http nor https"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(problem("it has a `?` or `#` part"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            let decoded = |text: &str| percent_decoded(text);
            if self.auth == Auth::None {
                self.auth = Auth::Basic {
                    user: decoded(url.username()),
                    password: Secret::new(decoded(url.password().unwrap_or_default())),
                };
            }
            let stripped = url.set_username("").and_then(|()| url.set_password(None));
            stripped.map_err(|()| problem("its user and password cannot be taken out"))?;
        }
        self.url = url.as_str().trim_end_matches('/').to_owned();
        Ok(self)
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.url.starts_with("https:")
    }

    /// The headers of a request, with the token as its file has it now.
    pub(super) fn headers(&self) -> Result<HeaderMap, SetupError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let bad = || SetupError::Header(name.clone());
            let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
            headers.append(header, sensitive(&value.0).ok_or_else(bad)?);
        }
        let authorization = match &self.auth {
            Auth::None => None,
            Auth::Bearer(token) => Some(format!("Bearer {}", token.0.trim())),
            Auth::BearerFile(path) => {
                let token = text_of("a bearer token", path)?;
                Some(format!("Bearer {}", token.trim()))
            }
            Auth::Basic { user, password } => Some(format!(
                "Basic {}",
                base64(format!("{user}:{}", password.0).as_bytes())
            )),
        };
        if let Some(text) = authorization {
            let bad = || SetupError::Header(AUTHORIZATION.to_string());
            headers.insert(AUTHORIZATION, sensitive(&text).ok_or_else(bad)?);
        }
        Ok(headers)
    }

    /// The certificate files as they are now.
    pub(super) fn material(&self) -> Result<Material, SetupError> {
        let ca = match &self.ca {
            Some(path) => Some((path.clone(), bytes_of("certificate authorities", path)?)),
            None => None,
        };
        let identity = match &self.certificate {
            Some(ClientCertificate { certificate, key }) => {
                let mut pem = bytes_of("a client certificate", certificate)?;
                pem.push(b'\n');
                pem.extend(bytes_of("a private key", key)?);
                Some((certificate.clone(), pem))
            }
            None => None,
        };
        Ok(Material { ca, identity })
    }

    /// An error without our secrets, which a server or proxy may have repeated.
    pub(super) fn scrubbed(&self, error: AskError) -> AskError {
        let mut secrets: Vec<String> = self
            .headers
            .iter()
            .map(|(_, value)| value.0.clone())
            .collect();
        match &self.auth {
            Auth::None => {}
            Auth::Bearer(token) => secrets.push(token.0.trim().to_owned()),
            Auth::BearerFile(path) => {
                secrets
                    .extend(text_of("a bearer token", path).map(|token| token.trim().to_owned()));
            }
            Auth::Basic { user, password } => {
                secrets.push(base64(format!("{user}:{}", password.0).as_bytes()));
                secrets.push(password.0.clone());
            }
        }
        // A very short one is no secret, and would make every message unreadable.
        secrets.retain(|secret| secret.len() >= 4);
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        // Every failure passes here: it may quote the server at any length, line breaks and terminal sequences included.
        let scrub = |text: String| {
            let clean = secrets
                .iter()
                .fold(text, |text, secret| text.replace(secret.as_str(), "***"));
            let line = clean.replace(char::is_control, " ");
            line.chars().take(MOST_WORDS).collect::<String>()
        };
        match error {
            AskError::Unreachable(text) => AskError::Unreachable(scrub(text)),
            AskError::Deadline(limit) => AskError::Deadline(limit),
            AskError::Refused(text) => AskError::Refused(scrub(text)),
            AskError::BadQuery(text) => AskError::BadQuery(scrub(text)),
            AskError::Partial(text) => AskError::Partial(scrub(text)),
            AskError::Clock(seconds) => AskError::Clock(seconds),
            AskError::Unusable(text) => AskError::Unusable(scrub(text)),
        }
    }
}

/// The content of the certificate files.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Material {
    ca: Option<(PathBuf, Vec<u8>)>,
    identity: Option<(PathBuf, Vec<u8>)>,
}

impl Material {
    pub(super) fn authorities(&self) -> Result<Vec<Certificate>, SetupError> {
        let Some((path, pem)) = &self.ca else {
            return Ok(Vec::new());
        };
        let found = Certificate::from_pem_bundle(pem).ok();
        found
            .filter(|list| !list.is_empty())
            .ok_or_else(|| SetupError::Pem {
                what: "certificate authority",
                path: path.clone(),
            })
    }

    pub(super) fn identity(&self) -> Result<Option<Identity>, SetupError> {
        let Some((path, pem)) = &self.identity else {
            return Ok(None);
        };
        let identity = Identity::from_pem(pem).map_err(|_| SetupError::Pem {
            what: "client certificate and key",
            path: path.clone(),
        })?;
        Ok(Some(identity))
    }
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn bytes_of(what: &'static str, path: &Path) -> Result<Vec<u8>, SetupError> {
    let failed = |words: String| SetupError::File {
        what,
        path: path.to_owned(),
        words,
    };
    let size = std::fs::metadata(path)
        .map_err(|error| failed(error.to_string()))?
        .len();
    if size > MAX_FILE {
        return Err(failed(format!(
            "it has {size} bytes, at most {MAX_FILE} are read"
        )));
    }
    std::fs::read(path).map_err(|error| failed(error.to_string()))
}

fn text_of(what: &'static str, path: &Path) -> Result<String, SetupError> {
    let bytes = bytes_of(what, path)?;
    String::from_utf8(bytes).map_err(|_| SetupError::File {
        what,
        path: path.to_owned(),
        words: "it is not UTF-8".to_owned(),
    })
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = (*first == b'%').then(|| after.get(..2)).flatten();
        let byte = hex
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Standard base64 with padding, for one header.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |n: usize| u32::from(chunk.get(n).copied().unwrap_or_default());
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for n in 0..4 {
            let digit = DIGITS.get((group >> (18 - 6 * n)) as usize & 63).copied();
            out.push(if n <= chunk.len() {
                digit.map_or('=', char::from)
            } else {
                '='
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_in_its_rfc() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    #[test]
    fn a_password_in_the_url_is_moved_out_of_it_and_never_shown() {
        let settings = Settings::new("https://anna:s%40cret@prom.example/base/")
            .checked()
            .unwrap();
        assert_eq!(settings.url, "https://prom.example/base");
        assert_eq!(
            settings.auth,
            Auth::Basic {
                user: "anna".to_owned(),
                password: Secret::new("s@cret")
            }
        );
        assert!(!format!("{settings:?}").contains("s@cret"));
        let echoed = AskError::Refused("denied: s@cret, YW5uYTpzQGNyZXQ=".to_owned());
        assert_eq!(
            settings.scrubbed(echoed),
            AskError::Refused("denied: ***, ***".to_owned())
        );
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        for bad in [
            "prometheus:9090",
            "ftp://x",
            "http://",
            "http://x?token=hunter2",
            "http://u:hunter2@",
        ] {
            let error = Settings::new(bad).checked().unwrap_err().to_string();
            assert!(
                error.starts_with("the Prometheus URL cannot be used"),
                "{error}"
            );
            assert!(!error.contains("hunter2"), "{error}");
        }
        let mut settings = Settings::new("http://x");
        settings.headers = vec![("X-Scope-OrgID".to_owned(), Secret::new("a\nb"))];
        assert!(matches!(settings.headers(), Err(SetupError::Header(_))));
        settings.headers = Vec::new();
        settings.auth = Auth::BearerFile(PathBuf::from("does-not-exist"));
        assert!(matches!(settings.headers(), Err(SetupError::File { .. })));
    }
}
