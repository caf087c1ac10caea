//! What is built into Serin: licences that allow it, sources that last, no second implementation of the same thing.

use std::collections::BTreeSet;
use std::process::Command;

/// Licences whose terms a binary under Apache-2.0 can keep.
const ALLOWED: [&str; 13] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Zlib",
];

/// How Cargo.lock calls the one place that crates come from: the index that the Rust project keeps.
const PUBLIC_REGISTRY: &str = "registry+https://github.com/rust-lang/";

/// Crates that are not to come in, and why.
const BANNED: [(&str, &str); 5] = [
    ("openssl-sys", "TLS is rustls with ring"),
    ("native-tls", "TLS is rustls with ring"),
    (
        "aws-lc-rs",
        "TLS is rustls with ring; a second provider costs minutes to build",
    ),
    ("git2", "objects through gix, the wire through git"),
    (
        "serde_yaml",
        "no longer developed; serde-saphyr stands in for it",
    ),
];

/// Whether an SPDX expression can be satisfied with allowed licences.
///
/// `OR` offers a choice, `AND` binds tighter; `/` is how old crates write `OR`.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let verdict = any_of(&mut words);
    words.next().is_none() && verdict
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any_of(words: &mut Words<'_>) -> bool {
    let mut verdict = all_of(words);
    while words.next_if_eq(&"OR").is_some() {
        // Not `||`: the right side has to be read in any case.
        verdict |= all_of(words);
    }
    verdict
}

fn all_of(words: &mut Words<'_>) -> bool {
    let mut verdict = one(words);
    while words.next_if_eq(&"AND").is_some() {
        verdict &= one(words);
    }
    verdict
}

fn one(words: &mut Words<'_>) -> bool {
    match words.next() {
        Some("(") => {
            let verdict = any_of(words);
            words.next_if_eq(&")").is_some() && verdict
        }
        Some(name) => {
            let name = match words.next_if_eq(&"WITH") {
                Some(_) => format!("{name} WITH {}", words.next().unwrap_or_default()),
                None => name.to_owned(),
            };
            ALLOWED.contains(&name.as_str())
        }
        None => false,
    }
}

/// What is wrong with the packages of a lock file: where they come from, and which they are.
fn lock_problems(lock: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut name = "";
    for line in lock.lines() {
        let value = |key: &str| {
            line.strip_prefix(key)?
                .strip_prefix(" = \"")?
                .strip_suffix('"')
        };
        if let Some(found) = value("name") {
            name = found;
            if let Some((_, why)) = BANNED.iter().find(|(banned, _)| *banned == name) {
                problems.push(format!("{name}: {why}"));
            }
        }
        if let Some(source) = value("source")
            && !source.starts_with(PUBLIC_REGISTRY)
        {
            problems.push(format!(
                "{name}: comes from {source}, not from the public registry"
            ));
        }
    }
    problems
}

/// Packages whose licence does not fit, of the answer of `cargo metadata`.
fn licence_problems(metadata: &serde_json::Value) -> Vec<String> {
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let problem = match package["license"].as_str() {
            Some(licence) if is_allowed(licence) => continue,
            Some(licence) => {
                format!("{name}: the licence `{licence}` is not among the allowed ones")
            }
            None => format!("{name}: names no licence"),
        };
        seen.insert(problem);
    }
    seen.into_iter().collect()
}

/// `host: x86_64-unknown-linux-gnu` of `rustc -vV`.
fn host_of(version: &str) -> Option<&str> {
    version.lines().find_map(|line| line.strip_prefix("host: "))
}

fn output_of(program: &str, args: &[&str]) -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test that asks cargo about this crate"
    )]
    let output = Command::new(program)
        .args(args)
        .current_dir(super::repository())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {words}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn licences_allow_what_we_do() {
    // Restricted to this platform, so that only crates are asked about that a build has fetched anyway.
    let version = output_of("rustc", &["-vV"]);
    let host = host_of(&version).expect("rustc names its host");
    let args = [
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--filter-platform",
        host,
    ];
    let metadata: serde_json::Value =
        serde_json::from_str(&output_of(env!("CARGO"), &args)).unwrap();
    let count = metadata["packages"].as_array().map_or(0, Vec::len);
    assert!(count > 50, "only {count} packages were seen");
    let problems = licence_problems(&metadata);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn crates_come_from_the_public_registry() {
    let lock = std::fs::read_to_string(super::repository().join("Cargo.lock")).unwrap();
    assert!(lock.contains("name = \"tokio\""));
    let problems = lock_problems(&lock);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn licence_expressions() {
    for good in [
        "MIT",
        "MIT/Apache-2.0",
        "Apache-2.0 / MIT",
        "GPL-3.0 OR MIT",
        "(MIT OR GPL-2.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
        "GPL-2.0 AND GPL-3.0 OR ISC",
    ] {
        assert!(is_allowed(good), "{good}");
    }
    for bad in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT OR ISC) AND MPL-2.0",
        "GPL-2.0 WITH LLVM-exception",
        "(MIT",
        "MIT )",
        "MIT ISC",
    ] {
        assert!(!is_allowed(bad), "{bad}");
    }
}

#[test]
fn foreign_sources_and_banned_crates_are_found() {
    let lock = "\
[[package]]
name = \"openssl-sys\"
source = \"registry+https://github.com/rust-lang/index\"

[[package]]
name = \"fork\"
source = \"git+https://example.com/fork#0123\"
";
    assert_eq!(
        lock_problems(lock),
        [
            "openssl-sys: TLS is rustls with ring",
            "fork: comes from git+https://example.com/fork#0123, not from the public registry"
        ]
    );
}

#[test]
fn unfit_licences_are_found() {
    let metadata = serde_json::json!({"packages": [
        {"name": "fine", "license": "MIT"},
        {"name": "copyleft", "license": "AGPL-3.0"},
        {"name": "silent", "license": null},
    ]});
    assert_eq!(
        licence_problems(&metadata),
        [
            "copyleft: the licence `AGPL-3.0` is not among the allowed ones",
            "silent: names no licence"
        ]
    );
}
