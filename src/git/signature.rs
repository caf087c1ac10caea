//! What `git verify-commit --raw` says about a signature, as a value. A pure function of exit status and bytes.
//!
//! A signature is good only when the exit status says so *and* the output is exactly what a good one looks like; all
//! other wording only chooses the sentence for people.

use super::settings::Fingerprint;

const STATUS: &str = "[GNUPG:] ";
const SSH_GOOD: &str = "Good \"git\" signature ";

/// What a signature is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Made by an SSH key that the list of signers names.
    Ssh {
        /// Whose, as the list has it.
        principal: String,
    },
    /// Made by an OpenPGP key of the keyring, which may not be one of those allowed.
    OpenPgp {
        /// Of the primary key.
        key: Fingerprint,
    },
    /// Good for nothing.
    Refused(Refusal),
}

/// Why a signature is good for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is none.
    Unsigned,
    /// It belongs to other content.
    Mismatch,
    /// The key, or the signature, has expired, or is not valid yet.
    Expired,
    /// The key was revoked.
    Revoked,
    /// The key is none of those allowed; its id.
    NotAllowed(String),
    /// Anything else, in the program's words.
    Unreadable(String),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unsigned => f.write_str("is not signed"),
            Self::Mismatch => f.write_str("has a signature of other content"),
            Self::Expired => f.write_str("is signed by a key outside of its time"),
            Self::Revoked => f.write_str("is signed by a revoked key"),
            Self::NotAllowed(key) => {
                write!(f, "is signed by {key}, which is none of the allowed keys")
            }
            Self::Unreadable(words) => {
                write!(f, "has a signature that cannot be verified: {words}")
            }
        }
    }
}

/// Reads what `git verify-commit --raw` left.
pub(super) fn verdict(success: bool, stderr: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let verdict = if lines.iter().any(|line| line.starts_with(STATUS)) {
        open_pgp(&lines)
    } else {
        ssh(&lines)
    };
    match verdict {
        // Whatever it looks like, `git` does not agree.
        Verdict::Ssh { .. } | Verdict::OpenPgp { .. } if !success => {
            Verdict::Refused(words(&lines))
        }
        verdict => verdict,
    }
}

/// GnuPG's status lines: `doc/DETAILS` in its sources.
fn open_pgp(lines: &[&str]) -> Verdict {
    let status: Vec<(&str, Vec<&str>)> = lines
        .iter()
        .filter_map(|line| line.strip_prefix(STATUS))
        .filter_map(|line| {
            let mut parts = line.split(' ');
            Some((parts.next()?, parts.collect()))
        })
        .collect();
    let count = |word: &str| status.iter().filter(|(first, _)| *first == word).count();
    let refused = if count("BADSIG") > 0 {
        Refusal::Mismatch
    } else if count("REVKEYSIG") + count("KEYREVOKED") > 0 {
        Refusal::Revoked
    } else if count("EXPKEYSIG") + count("EXPSIG") > 0 {
        Refusal::Expired
    } else if count("NO_PUBKEY") > 0 {
        let key = status.iter().find(|(first, _)| *first == "NO_PUBKEY");
        let key = key.and_then(|(_, rest)| rest.first().copied());
        Refusal::NotAllowed(format!("OpenPGP key {}", key.unwrap_or("unknown")))
    } else {
        words(lines)
    };
    // Two signatures in one commit are a way to have one verified and the other one shown.
    if [count("GOODSIG"), count("VALIDSIG"), count("NEWSIG")] != [1, 1, 1] || refused.is_certain() {
        return Verdict::Refused(refused);
    }
    let valid = status.iter().find(|(first, _)| *first == "VALIDSIG");
    let primary = valid.and_then(|(_, rest)| rest.get(9)?.parse().ok());
    match primary {
        Some(key) => Verdict::OpenPgp { key },
        None => Verdict::Refused(words(lines)),
    }
}

/// What `ssh-keygen -Y verify` and `find-principals` print.
fn ssh(lines: &[&str]) -> Verdict {
    let good: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.strip_prefix(SSH_GOOD))
        .collect();
    let holds = |words: &str| lines.iter().any(|line| line.contains(words));
    if lines.iter().all(|line| line.is_empty()) {
        return Verdict::Refused(Refusal::Unsigned);
    }
    if holds("incorrect signature") {
        return Verdict::Refused(Refusal::Mismatch);
    }
    if holds("key has expired") || holds("key is not yet valid") {
        return Verdict::Refused(Refusal::Expired);
    }
    // OpenSSH up to 9.2 finds nothing to say about a revoked key.
    let nothing_else = lines
        .iter()
        .all(|line| matches!(*line, "" | "Could not verify signature."));
    if holds("revoked") || nothing_else {
        return Verdict::Refused(Refusal::Revoked);
    }
    match good.as_slice() {
        [one] => {
            if let Some((principal, _)) = one
                .strip_prefix("for ")
                .and_then(|rest| rest.rsplit_once(" with "))
            {
                return Verdict::Ssh {
                    principal: principal.to_owned(),
                };
            }
            let key = one.strip_prefix("with ").unwrap_or(one);
            Verdict::Refused(Refusal::NotAllowed(key.to_owned()))
        }
        _ => Verdict::Refused(words(lines)),
    }
}

impl Refusal {
    fn is_certain(&self) -> bool {
        !matches!(self, Self::Unreadable(_))
    }
}

fn words(lines: &[&str]) -> Refusal {
    let said: Vec<&str> = lines
        .iter()
        .filter(|line| !line.is_empty() && !line.starts_with(STATUS))
        .copied()
        .collect();
    Refusal::Unreadable(if said.is_empty() {
        "git gave no reason".to_owned()
    } else {
        super::porcelain::complaint(said.join("\n").as_bytes())
    })
}

#[cfg(test)]
mod tests {
    //! The bytes are those of git 2.39, OpenSSH 9.2 and GnuPG 2.2.
    use super::*;

    const SHA: &str = "ED25519 key SHA256:X8Drq89MY2clrV5BS2s63hZo7jb9rc7CaVja+fg2DbA";
    const KEY: &str = "9B4B3821D5694FC831A5B3FFA98212B547EACE3E";

    fn refused(stderr: &str) -> String {
        match verdict(false, stderr.as_bytes()) {
            Verdict::Refused(why) => why.to_string(),
            good => panic!("{good:?}"),
        }
    }

    fn valid(word: &str) -> String {
        format!(
            "[GNUPG:] NEWSIG a@example.com\n[GNUPG:] KEY_CONSIDERED {KEY} 0\n[GNUPG:] SIG_ID oKe/z 2026-11-24 1795562097\n\
             [GNUPG:] {word} A98212B547EACE3E A <a@example.com>\n\
             [GNUPG:] VALIDSIG {KEY} 2026-11-24 1795562097 0 4 0 22 8 00 {KEY}\n[GNUPG:] KEY_CONSIDERED {KEY} 0\n"
        )
    }

    #[test]
    fn good_ones() {
        let ssh = format!("Good \"git\" signature for a with b@example.com with {SHA}\n");
        assert_eq!(
            verdict(true, ssh.as_bytes()),
            Verdict::Ssh {
                principal: "a with b@example.com".to_owned()
            }
        );
        let key = KEY.parse().unwrap();
        assert_eq!(
            verdict(true, valid("GOODSIG").as_bytes()),
            Verdict::OpenPgp { key }
        );
    }

    #[test]
    fn what_git_does_not_confirm_is_not_good() {
        let ssh = format!("Good \"git\" signature for a@example.com with {SHA}\n");
        for stderr in [&ssh, &valid("GOODSIG")] {
            assert!(matches!(
                verdict(false, stderr.as_bytes()),
                Verdict::Refused(Refusal::Unreadable(_))
            ));
        }
    }

    #[test]
    fn a_success_without_the_words_is_not_good() {
        let twice = valid("GOODSIG").repeat(2);
        let ssh = format!("Good \"git\" signature for a@example.com with {SHA}\n").repeat(2);
        for stderr in [
            "",
            "fine\n",
            "[GNUPG:] GOODSIG A98212B547EACE3E A\n",
            &twice,
            &ssh,
            "[GNUPG:] VALIDSIG x\n",
        ] {
            assert!(
                matches!(verdict(true, stderr.as_bytes()), Verdict::Refused(_)),
                "{stderr}"
            );
        }
        // A user id cannot bring a line of its own, nor can a principal stand in for a key.
        let mixed = format!(
            "{}Good \"git\" signature for a with {SHA}\n",
            valid("BADSIG")
        );
        assert_eq!(
            verdict(true, mixed.as_bytes()),
            Verdict::Refused(Refusal::Mismatch)
        );
    }

    #[test]
    fn bad_ssh_signatures() {
        let good = format!("Good \"git\" signature with {SHA}\n");
        for (stderr, wanted) in [
            (String::new(), "is not signed".to_owned()),
            (
                format!("{good}No principal matched.\n"),
                format!("is signed by {SHA}, which is none of the allowed keys"),
            ),
            (
                format!("{good}/a:1: key has expired: verify time 2026-11-24T23:14:57 > valid-before 2020-01-01T00:00:00\nNo principal matched.\n"),
                "is signed by a key outside of its time".to_owned(),
            ),
            (
                format!("{good}/a:1: key is not yet valid: verify time 2026-11-24T23:14:57 < valid-after 2030-01-01T00:00:00\nNo principal matched.\n"),
                "is signed by a key outside of its time".to_owned(),
            ),
            ("Could not verify signature.\n".to_owned(), "is signed by a revoked key".to_owned()),
            (
                "Could not verify signature.\nSignature verification failed: incorrect signature\n".to_owned(),
                "has a signature of other content".to_owned(),
            ),
            (
                "Could not verify signature.\n/a:1: key is not permitted for use in signature namespace \"git\"\n".to_owned(),
                "has a signature that cannot be verified: Could not verify signature.; /a:1: key is not permitted for use in signature namespace \"git\"".to_owned(),
            ),
            (
                "fatal: bad/incompatible signature 'hello\n'\n".to_owned(),
                "has a signature that cannot be verified: bad/incompatible signature 'hello".to_owned(),
            ),
        ] {
            assert_eq!(refused(&stderr), wanted, "{stderr}");
        }
    }

    #[test]
    fn bad_openpgp_signatures() {
        for (stderr, wanted) in [
            (valid("EXPKEYSIG"), "is signed by a key outside of its time"),
            (valid("EXPSIG"), "is signed by a key outside of its time"),
            (valid("REVKEYSIG"), "is signed by a revoked key"),
            (
                "[GNUPG:] NEWSIG a@example.com\n[GNUPG:] BADSIG A98212B547EACE3E A <a@example.com>\n".to_owned(),
                "has a signature of other content",
            ),
            (
                "[GNUPG:] NEWSIG\n[GNUPG:] ERRSIG A98212B547EACE3E 22 8 00 1795562097 9 9B4B\n[GNUPG:] NO_PUBKEY A98212B547EACE3E\n".to_owned(),
                "is signed by OpenPGP key A98212B547EACE3E, which is none of the allowed keys",
            ),
            (
                "[GNUPG:] NODATA 4\nerror: gpg failed\n".to_owned(),
                "has a signature that cannot be verified: gpg failed",
            ),
        ] {
            assert_eq!(refused(&stderr), wanted, "{stderr}");
        }
    }
}
