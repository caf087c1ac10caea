//! Lock files that a killed process left in our copy. Nobody else works there, so whatever lock is found between two
//! pieces of work is held by nobody; left alone it would stop every fetch for good.

use std::path::Path;

/// Below these folders references and lists are changed under locks; objects need none.
const FOLDERS: [&str; 2] = ["refs", "objects/info"];
/// References of ours are two folders deep.
const MAX_DEPTH: usize = 4;

/// Removes them. What cannot be removed is reported by the work that it stops.
pub(super) fn remove_stale(copy: &Path) {
    remove(copy, 0);
    for folder in FOLDERS {
        remove(&copy.join(folder), MAX_DEPTH);
    }
}

fn remove(folder: &Path, depth: usize) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && depth > 0 {
            remove(&path, depth - 1);
        } else if !is_folder
            && path
                .extension()
                .is_some_and(|extension| extension == "lock")
        {
            std::fs::remove_file(&path).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_go_and_all_else_stays() {
        let copy = tempfile::tempdir().unwrap();
        let path = |name: &str| copy.path().join(name);
        let locks = [
            "packed-refs.lock",
            "refs/serin/seen.lock",
            "objects/info/x.lock",
        ];
        let others = [
            "HEAD",
            "refs/serin/seen",
            "refs/heads/a.locked",
            "objects/ab/c.lock",
        ];
        for name in locks.iter().chain(&others) {
            std::fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            std::fs::write(path(name), "").unwrap();
        }
        remove_stale(copy.path());
        assert!(locks.iter().all(|name| !path(name).exists()));
        assert!(others.iter().all(|name| path(name).exists()));
        remove_stale(&path("nowhere"));
    }
}
