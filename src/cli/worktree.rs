//! The YAML files around a path on disk, as a commit of them would be read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::failure::Failure;
use crate::domain::{BlobId, RepoPath};
use crate::spec::{Catalog, ParseCache};

/// Files above this are not manifests that people write; the same bound holds for files in Git.
const MAX_FILE: u64 = 5 << 20;

/// A folder with everything below it that could be committed.
pub(super) struct WorkTree {
    /// The top: where `.git` is, or what was asked about when it is in no repository.
    pub(super) root: PathBuf,
    /// YAML files by path from the top.
    pub(super) files: BTreeMap<RepoPath, (BlobId, Arc<[u8]>)>,
    /// What was left out, and why.
    pub(super) skipped: Vec<(String, String)>,
}

/// What somebody asked about: a file or folder, and the top of the repository around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Top of the repository.
    pub(super) root: PathBuf,
    /// The path below it; `None` for the top itself.
    pub(super) below: Option<RepoPath>,
}

impl Place {
    /// Finds the repository around an existing path.
    pub(super) fn find(path: &Path) -> Result<Self, Failure> {
        let shown = path.to_string_lossy();
        if let Some((scheme, _)) = shown.split_once("://") {
            // The rest may hold a password.
            return Err(Failure::usage(format!(
                "a URL ({scheme}://…) is no path: clone it, and name a folder or file of the clone"
            )));
        }
        let real = path
            .canonicalize()
            .map_err(|error| Failure::usage(format!("there is no {shown}: {error}")))?;
        if real.join("objects").is_dir() && real.join("HEAD").is_file() {
            return Err(Failure::usage(format!(
                "{shown} is a bare repository, which has no files to look at: clone it, and name the clone"
            )));
        }
        let folder = if real.is_dir() {
            real.as_path()
        } else {
            real.parent().unwrap_or(&real)
        };
        let root = folder
            .ancestors()
            .find(|folder| folder.join(".git").exists())
            .unwrap_or(folder)
            .to_path_buf();
        let below = match real.strip_prefix(&root).ok().and_then(Path::to_str) {
            Some("") => None,
            Some(below) => Some(RepoPath::new(below).ok_or_else(|| {
                Failure::usage(format!("{} cannot be a path in Git", path.display()))
            })?),
            None => {
                return Err(Failure::usage(format!(
                    "{} is not UTF-8, so Serin cannot read it",
                    path.display()
                )));
            }
        };
        Ok(Self { root, below })
    }

    /// The whole path.
    pub(super) fn shown(&self) -> PathBuf {
        match &self.below {
            Some(below) => self.root.join(below.as_str()),
            None => self.root.clone(),
        }
    }

    /// Whether nothing that was asked about is YAML.
    pub(super) fn is_empty(&self, tree: &WorkTree) -> bool {
        let skipped = tree.skipped.iter();
        let mut skipped = skipped.filter_map(|(path, _)| RepoPath::new(path.as_str()));
        !tree.files.keys().any(|file| self.covers(file)) && !skipped.any(|path| self.covers(&path))
    }

    /// Whether a file of the repository was asked about.
    pub(super) fn covers(&self, file: &RepoPath) -> bool {
        self.below
            .as_ref()
            .is_none_or(|below| file.is_within(below))
    }
}

impl WorkTree {
    /// Reads everything below the top of a repository.
    pub(super) fn read(root: &Path) -> Result<Self, Failure> {
        let mut tree = Self {
            root: root.to_path_buf(),
            files: BTreeMap::new(),
            skipped: Vec::new(),
        };
        let mut open = vec![(root.to_path_buf(), String::new())];
        while let Some((folder, prefix)) = open.pop() {
            let failed = |error: std::io::Error| {
                Failure::failed(format!("failed to read {}: {error}", folder.display()))
            };
            for entry in std::fs::read_dir(&folder).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let kind = entry.file_type().map_err(failed)?;
                let path = entry.path();
                let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                    let shown = path.display().to_string();
                    tree.skipped.push((shown, "the name is not UTF-8".into()));
                    continue;
                };
                let below = format!("{prefix}{name}");
                if kind.is_dir() {
                    // `.git` is not content, and a folder with its own `.git` is another repository.
                    if name != ".git" && !path.join(".git").exists() {
                        open.push((path, format!("{below}/")));
                    }
                } else if name.ends_with(".yaml") || name.ends_with(".yml") {
                    tree.take(&path, below, kind.is_file())?;
                }
            }
        }
        Ok(tree)
    }

    fn take(&mut self, path: &Path, below: String, is_file: bool) -> Result<(), Failure> {
        let failed = |error: std::io::Error| {
            Failure::failed(format!("failed to read {}: {error}", path.display()))
        };
        let why = if !is_file {
            "symbolic link".to_owned()
        } else {
            let size = path.metadata().map_err(failed)?.len();
            match RepoPath::new(below.as_str()) {
                None => "the name cannot be a path".to_owned(),
                Some(_) if size > MAX_FILE => format!("{size} bytes, more than {MAX_FILE}"),
                Some(inside) => {
                    let content = std::fs::read(path).map_err(failed)?;
                    // Each file is read once, so its path identifies its content.
                    let blob = BlobId(below.into());
                    self.files.insert(inside, (blob, content.into()));
                    return Ok(());
                }
            }
        };
        self.skipped.push((below, why));
        Ok(())
    }

    /// The canaries in it.
    pub(super) fn catalog(&self) -> Catalog {
        Catalog::read_partial(&self.files, &self.skipped, &mut ParseCache::default())
    }

    /// A file of this tree as somebody in the current folder would name it.
    pub(super) fn shown(&self, file: &RepoPath) -> String {
        let whole = self.root.join(file.as_str());
        let here = std::path::absolute(".")
            .and_then(|here| here.canonicalize())
            .ok();
        let near = here
            .as_deref()
            .and_then(|here| whole.strip_prefix(here).ok());
        near.unwrap_or(&whole).display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn the_repository_is_found_around_a_path() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        write(&root, ".git/HEAD", "");
        write(&root, "apps/a/canary.yaml", "a: 1\n");
        let place = Place::find(&root.join("apps/a/canary.yaml")).unwrap();
        assert_eq!(place.root, root);
        assert_eq!(place.below.unwrap().as_str(), "apps/a/canary.yaml");
        let top = Place::find(&root).unwrap();
        assert_eq!(top.below, None);
        assert!(top.covers(&RepoPath::new("apps/b.yaml").unwrap()));
        let refused = |path: &Path| Place::find(path).unwrap_err().to_string();
        assert!(refused(&root.join("nothing")).starts_with("there is no "));
        let url = refused(Path::new("https://u:s3cret@git.example.com/x.git"));
        assert!(
            url.contains("is no path") && !url.contains("s3cret"),
            "{url}"
        );
        write(&root, "bare.git/HEAD", "ref: refs/heads/main\n");
        std::fs::create_dir(root.join("bare.git/objects")).unwrap();
        assert!(refused(&root.join("bare.git")).contains("is a bare repository"));
    }

    #[test]
    fn what_git_would_not_hold_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        write(root, ".git/config.yaml", "no");
        write(root, "a.yaml", "yes");
        write(root, "b/c.yml", "yes");
        write(root, "b/readme.md", "no");
        write(root, "sub/.git", "gitdir: elsewhere");
        write(root, "sub/d.yaml", "no");
        std::os::unix::fs::symlink("a.yaml", root.join("link.yaml")).unwrap();
        let tree = WorkTree::read(root).unwrap();
        let names: Vec<&str> = tree.files.keys().map(RepoPath::as_str).collect();
        assert_eq!(names, ["a.yaml", "b/c.yml"]);
        assert_eq!(
            tree.skipped,
            [("link.yaml".to_owned(), "symbolic link".to_owned())]
        );
    }
}
