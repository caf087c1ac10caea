//! Webhooks of forges: who may wake which loop.
//!
//! GitHub, Gitea and Forgejo sign the body (`X-Hub-Signature-256`, HMAC-SHA256 in hex), GitLab sends the secret itself
//! (`X-Gitlab-Token`). Both are compared in constant time. The content of a genuine webhook is not looked at: a lost or
//! forged one costs at most one poll, or one cheap request.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use tokio::sync::Notify;

/// A shared secret. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// A secret from a file's content; line breaks at its end are no part of it. `None` when nothing is left.
    pub fn new(content: &[u8]) -> Option<Self> {
        let end = content
            .iter()
            .rposition(|byte| !matches!(byte, b'\r' | b'\n'))?;
        content.get(..=end).map(|kept| Self(kept.to_vec()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// One loop that can be woken.
#[derive(Debug, Clone)]
pub struct Hook {
    name: String,
    secret: Secret,
    wake: Arc<Notify>,
}

impl Hook {
    /// The hook at `/hook/<name>`; `wake` is notified by each genuine delivery.
    pub fn new(name: impl Into<String>, secret: Secret, wake: Arc<Notify>) -> Self {
        Self {
            name: name.into(),
            secret,
            wake,
        }
    }

    /// The last part of its path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Several deliveries before the loop wakes are one.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Whether the sender knows the secret.
    pub(super) fn is_genuine(&self, header: &dyn Fn(&str) -> Option<Vec<u8>>, body: &[u8]) -> bool {
        if let Some(signature) = header("x-hub-signature-256") {
            return self.has_signed(body, &signature);
        }
        if let Some(token) = header("x-gitlab-token") {
            // Comparing two authentication codes takes the same time wherever the secrets differ.
            let expected = self.code(&self.secret.0);
            return expected.is_some_and(|expected| {
                self.code(&token)
                    .is_some_and(|mac| mac.verify_slice(&expected.finalize().into_bytes()).is_ok())
            });
        }
        false
    }

    fn has_signed(&self, body: &[u8], signature: &[u8]) -> bool {
        let Some(claimed) = signature.strip_prefix(b"sha256=").and_then(unhex) else {
            return false;
        };
        self.code(body)
            .is_some_and(|mac| mac.verify_slice(&claimed).is_ok())
    }

    fn code(&self, message: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret.0).ok()?;
        mac.update(message);
        Some(mac)
    }
}

fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: &u8| {
        char::from(*byte)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let pairs = text.chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect()
}
