//! Commit messages: how ours are cleaned, and what trailers a message has. Pure.

use gix::objs::commit::MessageRef;

use crate::domain::CanaryId;

/// The trailer that names the canary of a commit of ours.
pub(super) const CANARY_TRAILER: &str = "Serin-Canary";

/// The message as `git commit` would store it: no trailing space, no leading or doubled empty lines, one newline at the end.
pub(super) fn clean(message: &str) -> String {
    let mut cleaned = String::with_capacity(message.len() + 1);
    let mut empty_lines = 0;
    for line in message.replace('\0', "").lines() {
        let line = line.trim_end();
        if line.is_empty() {
            empty_lines += 1;
            continue;
        }
        if empty_lines > 0 && !cleaned.is_empty() {
            cleaned.push('\n');
        }
        empty_lines = 0;
        cleaned.push_str(line);
        cleaned.push('\n');
    }
    cleaned
}

/// The first line.
pub(super) fn subject(message: &str) -> String {
    MessageRef::from_bytes(message.trim_start().as_bytes())
        .summary()
        .to_string()
}

/// Text between subject and trailers, and the trailers, as `git interpret-trailers` divides them.
pub(super) fn body_and_trailers(message: &str) -> (String, Vec<(String, String)>) {
    let message = MessageRef::from_bytes(message.trim_start().as_bytes());
    let Some(body) = message.body() else {
        return (String::new(), Vec::new());
    };
    let trailers = body
        .trailers()
        .map(|trailer| (trailer.token.to_string(), trailer.value.to_string()))
        .collect();
    (
        body.without_trailer().to_string().trim().to_owned(),
        trailers,
    )
}

/// The canaries that the trailers of a message name.
pub(super) fn canaries(message: &str) -> Vec<CanaryId> {
    if !message.contains(CANARY_TRAILER) {
        return Vec::new();
    }
    body_and_trailers(message)
        .1
        .into_iter()
        .filter(|(token, _)| token.eq_ignore_ascii_case(CANARY_TRAILER))
        .filter_map(|(_, value)| value.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cleaned() {
        assert_eq!(
            clean("\n\n  subject \r\n\n\n\nbody\t\nmore\n\nA: b\n\n"),
            "  subject\n\nbody\nmore\n\nA: b\n"
        );
        assert_eq!(clean(""), "");
        assert_eq!(clean("one\0"), "one\n");
        let cleaned = clean("s\n\nb\n");
        assert_eq!(clean(&cleaned), cleaned);
    }

    #[test]
    fn only_the_last_paragraph_names_canaries() {
        let named = |text: &str| {
            canaries(text)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            named(
                "canary(test/podinfo): 10% -> 60%\n\nIt passed.\n\nSerin-Canary: test/podinfo\nSerin-Step: 2/4\n"
            ),
            vec!["test/podinfo"]
        );
        assert_eq!(
            named("s\n\nSerin-Canary: a/b\nserin-canary: c/d\n"),
            vec!["a/b", "c/d"]
        );
        for other in [
            "Serin-Canary: test/podinfo\n",
            "s\n\nSerin-Canary: test/podinfo\n\nbut this is the last paragraph\n",
            "s\n\nSerin-Canary: podinfo\n",
            "Revert \"s\"\n\nThis reverts commit 8ab686e.\n\n> Serin-Canary: test/podinfo\n",
        ] {
            assert_eq!(named(other), Vec::<String>::new(), "{other}");
        }
    }

    #[test]
    fn body_and_trailers_are_told_apart() {
        assert_eq!(
            body_and_trailers("s\n\none\n\ntwo\n\nA: b\nC: d\n"),
            (
                "one\n\ntwo".to_owned(),
                vec![
                    ("A".to_owned(), "b".to_owned()),
                    ("C".to_owned(), "d".to_owned())
                ]
            )
        );
        assert_eq!(body_and_trailers("s\n"), (String::new(), vec![]));
        assert_eq!(subject("\nline one\nline two\n\nbody"), "line one line two");
    }
}
