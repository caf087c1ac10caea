//! The deliberate breaks in `tests/breaks` still apply. `tests/breaks/run` builds each and shows what notices it.

use std::path::Path;
use std::process::Command;

#[test]
fn every_break_still_applies() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    let mut wrong = Vec::new();
    let folders = ["tests/breaks", "tests/breaks/mesh"];
    let entries = folders.map(|folder| std::fs::read_dir(root.join(folder)).unwrap());
    for entry in entries.into_iter().flatten() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_none_or(|extension| extension != "patch")
        {
            continue;
        }
        count += 1;
        let check = Command::new("git")
            .args(["apply", "--check"])
            .arg(&path)
            .current_dir(root)
            .output()
            .unwrap();
        if !check.status.success() {
            let words = String::from_utf8_lossy(&check.stderr).into_owned();
            wrong.push(format!("{}: {words}", path.display()));
        }
    }
    assert!(count >= 20, "only {count} breaks were found");
    assert!(
        wrong.is_empty(),
        "the code moved: make these patches anew\n{}",
        wrong.join("\n")
    );
}
