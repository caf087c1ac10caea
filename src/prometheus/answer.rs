//! An HTTP response as series, or as the reason why there are none.

use std::error::Error;
use std::time::Duration;

use chrono::DateTime;
use reqwest::Response;
use reqwest::header::HeaderValue;

use super::body::Envelope;
use crate::analysis::{AskError, Series};
use crate::domain::Timestamp;

/// Largest answer that is read. A tick of 100 canaries is about 2 MB, a rebuild of them 16 MB.
const MAX_BODY: usize = 64 * 1024 * 1024;
/// Most characters of a server's words that are passed on.
const MAX_WORDS: usize = 300;

/// What the server's clock says, by the `Date` header that HTTP asks of every server with a clock.
pub(super) fn clock_of(date: Option<&HeaderValue>) -> Option<Timestamp> {
    let text = date?.to_str().ok()?;
    let parsed = DateTime::parse_from_rfc2822(text).ok()?;
    Some(parsed.to_utc())
}

/// Reads a whole response.
pub(super) async fn read(
    mut response: Response,
    range: bool,
    deadline: Duration,
) -> Result<Vec<Series>, AskError> {
    let status = response.status();
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= MAX_BODY => {
                body.extend_from_slice(&chunk)
            }
            Ok(Some(_)) => {
                let mib = MAX_BODY / (1024 * 1024);
                return Err(AskError::Unusable(format!("it is larger than {mib} MiB")));
            }
            Ok(None) => break,
            Err(error) if error.is_timeout() => return Err(AskError::Deadline(deadline)),
            Err(_) => {
                let bytes = body.len();
                return Err(AskError::Unusable(format!(
                    "it broke off after {bytes} bytes"
                )));
            }
        }
    }
    let parsed = serde_json::from_slice::<Envelope>(&body);
    if let Ok(Envelope {
        status,
        error_type,
        error,
        ..
    }) = &parsed
        && status == "error"
    {
        let kind = words(error_type.as_deref().unwrap_or("unknown"));
        let message = words(error.as_deref().unwrap_or("no message"));
        return Err(match kind.as_str() {
            "bad_data" => AskError::BadQuery(message),
            "timeout" => AskError::Deadline(deadline),
            _ => AskError::Refused(format!("{kind}: {message}")),
        });
    }
    if status.is_redirection() {
        return Err(AskError::Refused(format!(
            "HTTP {status}: redirects are not followed, point the URL at the server itself"
        )));
    }
    if !status.is_success() {
        let text = words(&String::from_utf8_lossy(&body));
        let separator = if text.is_empty() { "" } else { ": " };
        return Err(AskError::Refused(format!("HTTP {status}{separator}{text}")));
    }
    let envelope = parsed.map_err(|error| {
        let text = words(&String::from_utf8_lossy(&body));
        // The server's own text may be quoted in it, line breaks and all.
        let error = words(&error.to_string());
        AskError::Unusable(format!("{error}; it begins with `{}`", start(&text, 60)))
    })?;
    envelope.series(range)
}

/// A server's words on one line of bounded length.
pub(super) fn words(text: &str) -> String {
    let text = text.replace(char::is_control, " ");
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    start(&line, MAX_WORDS).to_owned()
}

fn start(text: &str, characters: usize) -> &str {
    text.char_indices()
        .nth(characters)
        .and_then(|(end, _)| text.get(..end))
        .unwrap_or(text)
}

/// The causes of an error from the second on: the first names the URL.
pub(super) fn causes(error: &dyn Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // Some libraries repeat the source in their own words.
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        next = cause.source();
    }
    if parts.is_empty() {
        return "the connection failed".to_owned();
    }
    words(&parts.join(": "))
}
