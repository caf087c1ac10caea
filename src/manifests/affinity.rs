//! Session affinity: a cookie that keeps each client on the version that first answered it.
//!
//! While the candidate has weight, the weighted route gives every client a cookie that names the version it got, and
//! two routes before it keep the holders of either cookie where they are. A step of the ladder therefore decides about
//! new sessions only; at 100 % the hold on stable ends and everybody moves. The value of the cookie holds the candidate's
//! revision, so that a cookie of an earlier rollout decides nothing. Whenever the candidate has no weight, a request that
//! still carries the cookie is answered by stable and told to drop it.

use serde_json::{Value, json};

use super::users::{any_cookie_condition, cookie_condition, is_cookie_name};
use crate::domain::Weight;
use crate::progression::Rollout;
use crate::spec::SessionAffinity;

/// The cookie of one rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cookie<'a> {
    affinity: &'a SessionAffinity,
    rollout: String,
}

impl<'a> Cookie<'a> {
    /// The cookie of this rollout while its candidate has weight.
    pub(super) fn of(affinity: &'a SessionAffinity, rollout: &Rollout) -> Option<Self> {
        if rollout.weight == Weight::ZERO || !is_token(&affinity.cookie) {
            return None;
        }
        // A revision that a person wrote may hold anything; a cookie may not.
        let rollout = rollout
            .candidate
            .revision
            .as_str()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        Some(Self { affinity, rollout })
    }

    /// The match of clients that were given this subset.
    pub(super) fn condition(&self, subset: &str) -> Option<Value> {
        cookie_condition(&self.affinity.cookie, &self.value(subset))
    }

    /// The `headers` of a destination: remember that the client got this subset.
    pub(super) fn remember(&self, subset: &str) -> Value {
        let seconds = self.affinity.max_age.as_secs();
        set_cookie(&format!(
            "{}={}; Path=/; Max-Age={seconds}; HttpOnly",
            self.affinity.cookie,
            self.value(subset)
        ))
    }

    fn value(&self, subset: &str) -> String {
        format!("{subset}-{}", self.rollout)
    }
}

/// The match of clients that carry the cookie of any rollout, and the `headers` that make them drop it.
pub(super) fn forget(affinity: &SessionAffinity) -> Option<(Value, Value)> {
    if !is_token(&affinity.cookie) {
        return None;
    }
    let condition = any_cookie_condition(&affinity.cookie)?;
    let headers = set_cookie(&format!(
        "{}=; Path=/; Max-Age=0; HttpOnly",
        affinity.cookie
    ));
    Some((condition, headers))
}

/// Added, not set: the application's own cookies stay.
fn set_cookie(text: &str) -> Value {
    // Envoy reads `%` as the start of a variable.
    json!({"response": {"add": {"Set-Cookie": text.replace('%', "%%")}}})
}

/// Whether a server may set a cookie of this name.
fn is_token(name: &str) -> bool {
    is_cookie_name(name)
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
}
