//! The house rules, as tests: what `CONTRIBUTING.md` asks for and the compiler does not see.
//!
//! Each rule is a function from text to [`Breach`]es, tried below on a small bad input first: a rule that cannot fail
//! is no rule.

mod code;
mod dependencies;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use code::Line;

/// A broken rule, shown as `file:line: rule`.
#[derive(Debug, PartialEq, Eq)]
struct Breach {
    file: String,
    line: usize,
    rule: String,
}

impl std::fmt::Display for Breach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.rule)
    }
}

/// Longest source file, in lines. Longer ones hold more than one subject.
const MAX_LINES: usize = 800;

/// Modules that compute and do nothing else.
const PURE: [&str; 12] = [
    "domain",
    "yaml",
    "crd",
    "spec",
    "analysis",
    "applier",
    "study",
    "progression",
    "manifests",
    "record",
    "lease",
    "status",
];

/// What a pure module never mentions.
const IMPURE: [&str; 10] = [
    "async fn",
    "async move",
    ".await",
    "tokio::",
    "reqwest::",
    "std::fs",
    "std::process",
    "TcpStream",
    "tracing::",
    "kube::Client",
];

/// The outside world behind ports. None of them knows another.
const ADAPTERS: [&str; 3] = ["git", "prometheus", "cluster"];

/// What may stand at the top of the repository; dotfiles aside.
const ROOT: [&str; 12] = [
    "Cargo.lock",
    "Cargo.toml",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "benches",
    "charts",
    "crds",
    "scenarios",
    "src",
    "target",
    "tests",
];

/// Calls that turn rendered manifests into committed ones and those into applied ones, and who may make them: the
/// adapters that have seen it happen, the pipeline that hands on what they saw, and the simulated world.
const STAGE_CALLS: [&str; 2] = [".committed_at(", ".applied()"];
const STAGE_CALLERS: [&str; 4] = ["git", "cluster", "reconcile", "simulation"];

// === the rules ===

/// Every file says first what it is about.
fn module_doc(file: &str, text: &str) -> Vec<Breach> {
    if text.starts_with("//! ") {
        return Vec::new();
    }
    breach(file, 1, "a source file begins with `//!`: what it owns")
}

/// No file is too long to be about one thing.
fn length(file: &str, text: &str) -> Vec<Breach> {
    let lines = text.lines().count();
    if lines <= MAX_LINES {
        return Vec::new();
    }
    breach(
        file,
        MAX_LINES + 1,
        &format!("{lines} lines; split by subject above {MAX_LINES}"),
    )
}

/// A module imports only from those above it in `lib.rs`; adapters do not import one another, and the pipeline knows
/// adapters by their ports only.
fn layering(order: &[String], file: &str, code: &[Line]) -> Vec<Breach> {
    let Some(here) = module_of(file) else {
        return Vec::new();
    };
    let level = |module: &str| order.iter().position(|name| name == module);
    let mut found = Vec::new();
    for (index, line) in code.iter().enumerate().filter(|(_, line)| !line.is_test) {
        for used in code::crate_imports(code, index) {
            let Some(theirs) = level(&used) else { continue };
            if used == here {
                continue;
            }
            let rule = if level(here).is_none_or(|ours| theirs > ours) {
                format!("`{here}` is above `{used}` in lib.rs and cannot import it")
            } else if ADAPTERS.contains(&here) && ADAPTERS.contains(&used.as_str()) {
                format!("the adapters `{here}` and `{used}` do not know each other")
            } else if here == "reconcile" && ADAPTERS.contains(&used.as_str()) {
                format!("`reconcile` knows `{used}` by its port only")
            } else {
                continue;
            };
            found.extend(breach(file, line.number, &rule));
        }
    }
    found
}

/// Pure modules have no I/O, no async, no clock, no logging.
fn purity(file: &str, code: &[Line]) -> Vec<Breach> {
    let Some(here) = module_of(file).filter(|module| PURE.contains(module)) else {
        return Vec::new();
    };
    mentions(code, &IMPURE)
        .map(|(line, word)| Breach {
            file: file.to_owned(),
            line,
            rule: format!("`{here}` is pure and cannot mention `{word}`"),
        })
        .collect()
}

/// Only who has seen it may say that manifests were committed or applied.
fn stages(file: &str, code: &[Line]) -> Vec<Breach> {
    let here = module_of(file).unwrap_or_default();
    if STAGE_CALLERS.contains(&here) || file == "src/manifests/stage.rs" {
        return Vec::new();
    }
    mentions(code, &STAGE_CALLS)
        .map(|(line, call)| Breach {
            file: file.to_owned(),
            line,
            rule: format!(
                "only {} may call `{call}`: they have seen it happen",
                STAGE_CALLERS.join(", ")
            ),
        })
        .collect()
}

/// A test that does not run is not a test.
fn ignored(file: &str, code: &[Line]) -> Vec<Breach> {
    code.iter()
        .filter(|line| line.text.contains("#[ignore"))
        .flat_map(|line| breach(file, line.number, "tests are not ignored: mend or delete"))
        .collect()
}

/// Paths of somebody's machine mean nothing anywhere else.
fn machine_paths(file: &str, text: &str) -> Vec<Breach> {
    // Taken apart, so that this file passes its own rule.
    let roots = [
        ["/ro", "ot/"],
        ["/ho", "me/"],
        ["/wo", "rk/"],
        ["/Us", "ers/"],
        ["/tm", "p/"],
    ]
    .map(|parts| parts.concat());
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for root in &roots {
            // `example.com/work/` and `$HOME/tmp/` are not at the root of a machine.
            let at_root = line.match_indices(root.as_str()).any(|(at, _)| {
                let before = line.get(..at).and_then(|head| head.chars().next_back());
                !before.is_some_and(|c| c.is_alphanumeric() || "._-~}*/".contains(c))
            });
            if at_root {
                found.extend(breach(
                    file,
                    index + 1,
                    &format!("`{root}` is a path of one machine"),
                ));
            }
        }
    }
    found
}

/// Every file beside this one, which is `main.rs` or `mod.rs`, is a module of it.
fn forgotten(file: &str, text: &str, stems: &BTreeSet<String>) -> Vec<Breach> {
    let (folder, own) = file.rsplit_once('/').unwrap();
    stems
        .iter()
        .filter(|stem| !own.starts_with(stem.as_str()))
        .filter(|stem| !text.lines().any(|line| line == format!("mod {stem};")))
        .flat_map(|stem| {
            breach(
                &format!("{folder}/{stem}.rs"),
                1,
                &format!("not declared in {file}, so it never runs"),
            )
        })
        .collect()
}

/// Every scenario has its golden trace, and every trace its scenario.
fn traces(names: &BTreeSet<String>) -> Vec<Breach> {
    names
        .iter()
        .filter_map(|name| {
            let (stem, ending) = name.rsplit_once('.')?;
            let (partner, rule) = match ending {
                "yaml" => ("trace", "a scenario without a golden trace"),
                "trace" => ("yaml", "a golden trace without its scenario"),
                _ => return Some((name, "a scenario is a .yaml, its trace a .trace")),
            };
            (!names.contains(&format!("{stem}.{partner}"))).then_some((name, rule))
        })
        .flat_map(|(name, rule)| breach(&format!("scenarios/{name}"), 1, rule))
        .collect()
}

/// The top of the repository stays small.
fn root(names: &BTreeSet<String>) -> Vec<Breach> {
    names
        .iter()
        .filter(|name| !name.starts_with('.') && !ROOT.contains(&name.as_str()))
        .flat_map(|name| breach(name, 1, "does not belong at the top of the repository"))
        .collect()
}

// === support ===

fn breach(file: &str, line: usize, rule: &str) -> Vec<Breach> {
    vec![Breach {
        file: file.to_owned(),
        line,
        rule: rule.to_owned(),
    }]
}

/// Where code outside of tests holds one of these words.
fn mentions<'a>(code: &'a [Line], words: &'a [&'a str]) -> impl Iterator<Item = (usize, &'a str)> {
    code.iter().filter(|line| !line.is_test).flat_map(|line| {
        words
            .iter()
            .filter(|word| code::has_word(&line.text, word))
            .map(|word| (line.number, *word))
    })
}

/// The module of `lib.rs` that a file belongs to; `None` for `lib.rs`, `main.rs` and files outside of `src`.
fn module_of(file: &str) -> Option<&str> {
    let inside = file.strip_prefix("src/")?;
    let first = inside.split('/').next()?;
    let module = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(module, "lib" | "main")).then_some(module)
}

/// The modules of `lib.rs`, lowest first.
fn module_order(lib: &str) -> Vec<String> {
    lib.lines()
        .filter_map(|line| {
            let line = line.strip_prefix("pub ").unwrap_or(line);
            Some(line.strip_prefix("mod ")?.strip_suffix(';')?.to_owned())
        })
        .collect()
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn names_in(folder: &str) -> BTreeSet<String> {
    std::fs::read_dir(repository().join(folder))
        .unwrap_or_else(|error| panic!("{folder}: {error}"))
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Text files below these folders, by path from the top.
fn texts(folders: &[&str]) -> BTreeMap<String, String> {
    let mut open: Vec<PathBuf> = folders
        .iter()
        .map(|folder| repository().join(folder))
        .collect();
    let mut found = BTreeMap::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            // What is not text, or not there, is no business of the rules.
            let name = path.strip_prefix(repository()).unwrap();
            found.insert(name.to_str().unwrap().to_owned(), text);
        }
    }
    found
}

fn sources() -> BTreeMap<String, String> {
    let mut found = texts(&["src", "tests", "benches"]);
    found.retain(|name, _| name.ends_with(".rs"));
    assert!(
        found.len() > 20,
        "only {} source files were found",
        found.len()
    );
    found
}

fn expect_none(breaches: Vec<Breach>) {
    let list: Vec<String> = breaches.iter().map(ToString::to_string).collect();
    assert!(
        list.is_empty(),
        "house rules (CONTRIBUTING.md):\n{}",
        list.join("\n")
    );
}

// === the tree follows the rules ===

#[test]
fn sources_follow_the_house_rules() {
    let sources = sources();
    let order = module_order(&sources["src/lib.rs"]);
    assert!(order.len() > 10, "{order:?}");
    let mut found = Vec::new();
    for (file, text) in &sources {
        let code = code::lines(text, code::is_test_file(file));
        found.extend(module_doc(file, text));
        found.extend(length(file, text));
        found.extend(layering(&order, file, &code));
        found.extend(purity(file, &code));
        found.extend(stages(file, &code));
        found.extend(ignored(file, &code));
    }
    expect_none(found);
}

#[test]
fn every_module_is_in_the_order() {
    let order = module_order(&sources()["src/lib.rs"]);
    let missing: Vec<_> = names_in("src")
        .into_iter()
        .filter(|name| {
            let module = name.strip_suffix(".rs").unwrap_or(name);
            !matches!(module, "lib" | "main") && !order.iter().any(|known| known == module)
        })
        .collect();
    assert!(missing.is_empty(), "not declared in lib.rs: {missing:?}");
}

#[test]
fn no_text_names_a_path_of_one_machine() {
    let found = texts(&[
        "src",
        "tests",
        "benches",
        "scenarios",
        "crds",
        "charts",
        "README.md",
        "CONTRIBUTING.md",
        "Cargo.toml",
        ".ci",
    ]);
    expect_none(
        found
            .iter()
            .flat_map(|(file, text)| machine_paths(file, text))
            .collect(),
    );
}

#[test]
fn no_test_file_is_forgotten() {
    let sources = sources();
    for file in [
        "tests/suite/main.rs",
        "tests/mesh/main.rs",
        "tests/mesh/stories/mod.rs",
    ] {
        let (folder, _) = file.rsplit_once('/').unwrap();
        let stems = names_in(folder)
            .iter()
            .filter_map(|name| name.strip_suffix(".rs").map(str::to_owned))
            .collect();
        expect_none(forgotten(file, &sources[file], &stems));
    }
}

#[test]
fn every_scenario_has_its_trace() {
    let names = texts(&["scenarios"])
        .keys()
        .filter_map(|path| path.strip_prefix("scenarios/").map(str::to_owned))
        .collect();
    expect_none(traces(&names));
}

#[test]
fn the_top_of_the_repository_stays_small() {
    expect_none(root(&names_in(".")));
}

// === the rules can fail ===

fn shown(breaches: Vec<Breach>) -> String {
    let list: Vec<String> = breaches.iter().map(ToString::to_string).collect();
    list.join("\n")
}

fn code_of(text: &str) -> Vec<Line> {
    code::lines(text, false)
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn missing_docs_and_long_files_are_found() {
    insta::assert_snapshot!(shown(module_doc("src/a.rs", "use b;\n//! Late.\n")), @"src/a.rs:1: a source file begins with `//!`: what it owns");
    insta::assert_snapshot!(shown(length("src/a.rs", &"x\n".repeat(801))), @"src/a.rs:801: 801 lines; split by subject above 800");
    assert_eq!(length("src/a.rs", &"x\n".repeat(800)), []);
}

#[test]
fn imports_against_the_flow_are_found() {
    let order = module_order(
        "//! x\npub mod domain;\npub mod spec;\nmod git;\npub mod cluster;\npub mod reconcile;\n",
    );
    assert_eq!(order, ["domain", "spec", "git", "cluster", "reconcile"]);
    let check = |file: &str, text: &str| shown(layering(&order, file, &code_of(text)));
    let upward = "//! x\n// crate::git in a comment is fine\nuse crate::domain::Weight;\nuse crate::{domain, git::Git};\n";
    insta::assert_snapshot!(check("src/spec/mod.rs", upward), @"src/spec/mod.rs:4: `spec` is above `git` in lib.rs and cannot import it");
    insta::assert_snapshot!(check("src/cluster/apply.rs", "fn f() { crate::git::push(); }"), @"src/cluster/apply.rs:1: the adapters `cluster` and `git` do not know each other");
    insta::assert_snapshot!(check("src/reconcile.rs", "use crate::cluster::Live;"), @"src/reconcile.rs:1: `reconcile` knows `cluster` by its port only");
    insta::assert_snapshot!(check("src/spec/deep/file.rs", "use super::super::super::reconcile;\n"), @"src/spec/deep/file.rs:1: `spec` is above `reconcile` in lib.rs and cannot import it");
    assert_eq!(
        check(
            "src/git/mod.rs",
            "use crate::git::command;\nuse crate::spec;\n"
        ),
        ""
    );
    assert_eq!(
        check(
            "src/spec/x.rs",
            "#[cfg(test)]\nmod tests {\n    use crate::git;\n}\n"
        ),
        ""
    );
}

#[test]
fn side_effects_in_pure_modules_are_found() {
    let check = |file: &str, text: &str| shown(purity(file, &code_of(text)));
    let text = "//! x\nuse std::fs;\nasync fn f() {\n    tracing::info!(\"tokio::spawn\");\n}\n";
    insta::assert_snapshot!(check("src/manifests/route.rs", text), @r"
    src/manifests/route.rs:2: `manifests` is pure and cannot mention `std::fs`
    src/manifests/route.rs:3: `manifests` is pure and cannot mention `async fn`
    src/manifests/route.rs:4: `manifests` is pure and cannot mention `tracing::`
    ");
    assert_eq!(check("src/git/mod.rs", text), "");
    assert_eq!(
        check(
            "src/spec/x.rs",
            "#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n"
        ),
        ""
    );
    // Behind the tests it counts again.
    let behind = "#[cfg(test)]\nmod tests {\n    use std::fs;\n}\nuse std::process;\n";
    insta::assert_snapshot!(check("src/spec/x.rs", behind), @"src/spec/x.rs:5: `spec` is pure and cannot mention `std::process`");
}

#[test]
fn forged_stages_are_found() {
    let text = "fn f() {\n    manifests.committed_at(id).applied()\n}\n";
    insta::assert_snapshot!(shown(stages("src/cli/run.rs", &code_of(text))), @r"
    src/cli/run.rs:2: only git, cluster, reconcile, simulation may call `.committed_at(`: they have seen it happen
    src/cli/run.rs:2: only git, cluster, reconcile, simulation may call `.applied()`: they have seen it happen
    ");
    assert_eq!(stages("src/git/mod.rs", &code_of(text)), []);
}

#[test]
fn ignored_tests_are_found() {
    let text = "#[test]\n#[ignore = \"slow\"]\nfn f() {}\n";
    insta::assert_snapshot!(shown(ignored("tests/suite/a.rs", &code_of(text))), @"tests/suite/a.rs:2: tests are not ignored: mend or delete");
}

#[test]
fn machine_paths_are_found() {
    let text = [
        "see /ro",
        "ot/x\nhttps://host/ro",
        "ot/x\n\"/tm",
        "p/y\"\n$HOME/tm",
        "p/y\n",
    ]
    .concat();
    let lines: Vec<usize> = machine_paths("a", &text)
        .iter()
        .map(|breach| breach.line)
        .collect();
    assert_eq!(lines, [1, 3]);
}

#[test]
fn files_out_of_place_are_found() {
    insta::assert_snapshot!(shown(forgotten("tests/suite/main.rs", "mod a;\nmod bc;\n", &set(&["main", "a", "b", "bc"]))), @"tests/suite/b.rs:1: not declared in tests/suite/main.rs, so it never runs");
    insta::assert_snapshot!(shown(traces(&set(&["a.yaml", "a.trace", "b.yaml", "c.trace", "d.txt"]))), @r"
    scenarios/b.yaml:1: a scenario without a golden trace
    scenarios/c.trace:1: a golden trace without its scenario
    scenarios/d.txt:1: a scenario is a .yaml, its trace a .trace
    ");
    insta::assert_snapshot!(shown(root(&set(&["src", ".ci", "utils"]))), @"utils:1: does not belong at the top of the repository");
}
