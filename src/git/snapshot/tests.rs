//! A patched snapshot is the one that a full read gives, whatever happened between the trees.

use gix::objs::tree::{Entry as TreeEntry, EntryKind};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// What is at a name of a folder.
#[derive(Debug, Clone)]
enum Node {
    Folder(BTreeMap<&'static [u8], Self>),
    Leaf(EntryKind, &'static [u8]),
}

/// Names that matter, each in its own way; one is no text.
const NAMES: [&[u8]; 9] = [
    b"a",
    b"a.yaml",
    b"b.yml",
    b"b",
    b"c.txt",
    b"..",
    b"\xff.yaml",
    "\u{fffd}.yaml".as_bytes(),
    b"a-",
];

const LEAVES: [(EntryKind, &[u8]); 7] = [
    (EntryKind::Blob, b"x: 1\n"),
    (EntryKind::Blob, b"x: 2\n"),
    (EntryKind::BlobExecutable, b"x: 1\n"),
    (EntryKind::BlobExecutable, b"x: 3\n"),
    (
        EntryKind::Blob,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    ),
    (EntryKind::Link, b"a.yaml"),
    (EntryKind::Commit, b""),
];

/// A change of a tree, by places of names in [`NAMES`].
#[derive(Debug, Clone)]
enum Change {
    Put(Vec<usize>, usize),
    Remove(Vec<usize>),
    Move(Vec<usize>, Vec<usize>),
}

impl Node {
    /// What was there goes; what is in the way becomes a folder.
    fn put(&mut self, path: &[usize], node: Self) {
        let Some((first, rest)) = path.split_first() else {
            *self = node;
            return;
        };
        if let Self::Leaf(..) = self {
            *self = Self::Folder(BTreeMap::new());
        }
        if let Self::Folder(entries) = self {
            let empty = || Self::Folder(BTreeMap::new());
            let below = entries.entry(NAMES[*first]).or_insert_with(empty);
            below.put(rest, node);
        }
    }

    fn take(&mut self, path: &[usize]) -> Option<Self> {
        let Self::Folder(entries) = self else {
            return None;
        };
        match path {
            [] => None,
            [last] => entries.remove(NAMES[*last]),
            [first, rest @ ..] => entries.get_mut(NAMES[*first])?.take(rest),
        }
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::Put(path, leaf) => {
                let (kind, content) = LEAVES[*leaf];
                self.put(path, Self::Leaf(kind, content));
            }
            Change::Remove(path) => drop(self.take(path)),
            Change::Move(from, to) => {
                if let Some(node) = self.take(from) {
                    self.put(to, node);
                }
            }
        }
    }

    fn write(&self, repo: &gix::Repository) -> ObjectId {
        match self {
            Self::Leaf(EntryKind::Commit, _) => ObjectId::null(gix::hash::Kind::Sha1),
            Self::Leaf(_, content) => repo.write_blob(content).unwrap().detach(),
            Self::Folder(nodes) => {
                let entries = nodes.iter().map(|(name, node)| TreeEntry {
                    mode: match node {
                        Self::Folder(_) => EntryKind::Tree.into(),
                        Self::Leaf(kind, _) => (*kind).into(),
                    },
                    filename: (*name).into(),
                    oid: node.write(repo),
                });
                let mut entries: Vec<TreeEntry> = entries.collect();
                entries.sort();
                let tree = gix::objs::Tree { entries };
                repo.write_object(&tree).unwrap().detach()
            }
        }
    }

    /// The manifests below, as somebody would say who knows nothing of trees.
    fn manifests(&self, path: &str, into: &mut BTreeMap<String, Vec<u8>>) {
        match self {
            Self::Folder(nodes) => {
                for (name, node) in nodes {
                    let Some(name) = std::str::from_utf8(name).ok().filter(|name| *name != "..")
                    else {
                        continue;
                    };
                    let slash = if path.is_empty() { "" } else { "/" };
                    node.manifests(&format!("{path}{slash}{name}"), into);
                }
            }
            Self::Leaf(EntryKind::Blob | EntryKind::BlobExecutable, content) => {
                let is_yaml = path.ends_with(".yaml") || path.ends_with(".yml");
                if is_yaml && !content.starts_with(LFS_POINTER) {
                    into.insert(path.to_owned(), content.to_vec());
                }
            }
            Self::Leaf(..) => {}
        }
    }
}

fn repository() -> (TempDir, gix::Repository) {
    let folder = TempDir::new().unwrap();
    gix::init_bare(folder.path()).unwrap();
    let repo = objects::open(folder.path()).unwrap();
    (folder, repo)
}

fn commit(repo: &gix::Repository, tree: ObjectId) -> CommitId {
    let nobody = gix::actor::Signature {
        name: "x".into(),
        email: "x@example.com".into(),
        time: gix::date::Time::new(0, 0),
    };
    let commit = gix::objs::Commit {
        tree,
        parents: [].into_iter().collect(),
        author: nobody.clone(),
        committer: nobody,
        encoding: None,
        message: "x".into(),
        extra_headers: Vec::new(),
    };
    objects::commit_id(repo.write_object(&commit).unwrap().detach())
}

fn texts(snapshot: &Snapshot) -> BTreeMap<String, Vec<u8>> {
    let files = snapshot.files.iter();
    files
        .map(|(path, (_, content))| (path.to_string(), content.to_vec()))
        .collect()
}

fn paths() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..NAMES.len(), 1..4)
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let one = prop_oneof![
        5 => (paths(), 0..LEAVES.len()).prop_map(|(path, leaf)| Change::Put(path, leaf)),
        2 => paths().prop_map(Change::Remove),
        2 => (paths(), paths()).prop_map(|(from, to)| Change::Move(from, to)),
    ];
    prop::collection::vec(one, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Adds, removals, renames, files that become folders and back, modes, links, submodules, pointers of LFS, names that are
    /// none; also below a folder that may be gone for a while, and back to trees from before.
    #[test]
    fn a_patched_snapshot_is_a_full_one(
        steps in prop::collection::vec((changes(), any::<bool>(), any::<prop::sample::Index>()), 1..8),
        is_below in any::<bool>(),
    ) {
        let (_folder, repo) = repository();
        let repo = repo.with_object_memory();
        let below = is_below.then(|| RepoPath::new("a").unwrap());
        let mut cache = Cache::default();
        let mut node = Node::Folder(BTreeMap::new());
        let mut earlier = vec![node.clone()];
        for (changes, goes_back, to) in steps {
            if goes_back {
                node = earlier[to.index(earlier.len())].clone();
            }
            changes.iter().for_each(|change| node.change(change));
            earlier.push(node.clone());
            let at = commit(&repo, node.write(&repo));
            let patched = read(&repo, &at, below.as_ref(), &mut cache).unwrap();
            let full = read(&repo, &at, below.as_ref(), &mut Cache::default()).unwrap();
            prop_assert_eq!(&patched.files, &full.files);
            prop_assert_eq!(&patched.skipped, &full.skipped);
            prop_assert_eq!(&patched.commit, &at);
            let mut wanted = BTreeMap::new();
            node.manifests("", &mut wanted);
            wanted.retain(|path, _| !is_below || path.starts_with("a/"));
            prop_assert_eq!(texts(&patched), wanted);
            // What no path has any more does not pile up.
            let last = cache.last.iter().flat_map(|last| last.files.values());
            let kept = last.map(|(blob, _)| blob).collect::<BTreeSet<_>>();
            let spare = cache.contents.lost.len();
            prop_assert!(cache.contents.known.len() <= kept.len() + spare, "{:?}", cache.contents);
            prop_assert!(spare <= 2 * LEAVES.len());
        }
    }
}

/// Twenty folders of ten files each below `apps`.
fn many() -> Node {
    let mut files = BTreeMap::new();
    for name in ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"] {
        let content: &'static [u8] = name.as_bytes();
        let name: &'static [u8] = format!("{name}.yaml").leak().as_bytes();
        files.insert(name, Node::Leaf(EntryKind::Blob, content));
    }
    let mut folders = BTreeMap::new();
    for number in 0..20 {
        let mut files = files.clone();
        let own: &'static [u8] = format!("v: {number}\n").leak().as_bytes();
        files.insert(b"own.yaml", Node::Leaf(EntryKind::Blob, own));
        let name: &'static [u8] = format!("t{number}").leak().as_bytes();
        folders.insert(name, Node::Folder(files));
    }
    Node::Folder(BTreeMap::from([(&b"apps"[..], Node::Folder(folders))]))
}

fn at<'n>(node: &'n mut Node, path: &[&str]) -> &'n mut Node {
    path.iter().fold(node, |node, name| match node {
        Node::Folder(nodes) => nodes.get_mut(name.as_bytes()).unwrap(),
        Node::Leaf(..) => panic!("{name}"),
    })
}

/// With everything else taken away from the disk: a folder or a file that is looked at again cannot be found.
#[test]
fn what_did_not_change_is_neither_listed_nor_read() {
    let (folder, repo) = repository();
    let mut cache = Cache::default();
    let mut node = many();
    let tree = node.write(&repo);
    let first = commit(&repo, tree);
    let before = read(&repo, &first, None, &mut cache).unwrap();
    assert_eq!((before.files.len(), cache.contents.read), (220, 30));

    *at(&mut node, &["apps", "t7", "own.yaml"]) = Node::Leaf(EntryKind::Blob, b"v: new\n");
    let moved = at(&mut node, &["apps", "t3"]).clone();
    if let Node::Folder(folders) = at(&mut node, &["apps"]) {
        folders.remove(&b"t4"[..]);
        folders.insert(b"moved", moved);
    }
    let new = node.write(&repo);
    let second = commit(&repo, new);
    let id = |tree: ObjectId, path: &str| {
        let found = objects::look_up(&repo, tree, &RepoPath::new(path).unwrap()).unwrap();
        let At::Entry((_, id)) = found else {
            panic!("{path}: {found:?}")
        };
        id
    };
    let needed = [
        tree,
        id(tree, "apps"),
        id(tree, "apps/t7"),
        new,
        id(new, "apps"),
        id(new, "apps/t7"),
        id(new, "apps/t7/own.yaml"),
        // A folder under a new name is listed, its files are known.
        id(new, "apps/moved"),
        objects::object_id(&second).unwrap(),
    ];
    drop(repo);
    let mut removed = 0;
    for fan in std::fs::read_dir(folder.path().join("objects")).unwrap() {
        let fan = fan.unwrap();
        let (name, path) = (fan.file_name(), fan.path());
        if name.len() != 2 {
            continue;
        }
        for object in std::fs::read_dir(path).unwrap() {
            let object = object.unwrap();
            let hex = [name.to_str().unwrap(), object.file_name().to_str().unwrap()].concat();
            if !needed.contains(&ObjectId::from_hex(hex.as_bytes()).unwrap()) {
                std::fs::remove_file(object.path()).unwrap();
                removed += 1;
            }
        }
    }
    assert_eq!(removed, 30 + 18 + 1, "files, folders, and the first commit");
    let repo = objects::open(folder.path()).unwrap();
    let after = read(&repo, &second, None, &mut cache).unwrap();
    assert_eq!(cache.contents.read, 31, "one file");
    assert_eq!(after.files.len(), 220);
    let text = |path: &str| texts(&after).remove(path);
    assert_eq!(text("apps/t7/own.yaml").unwrap(), b"v: new\n");
    assert_eq!(text("apps/moved/own.yaml").unwrap(), b"v: 3\n");
    assert_eq!(text("apps/t4/own.yaml"), None);
    for (path, (_, content)) in before.files.iter() {
        if let Some((_, same)) = after
            .files
            .get(path)
            .filter(|_| path.as_str() != "apps/t7/own.yaml")
        {
            assert!(Arc::ptr_eq(content, same), "{path}");
        }
    }
}

/// The tree before may be gone, as after a copy was made anew: then all of the new one is read.
#[test]
fn without_the_tree_before_all_is_read() {
    let (_gone, repo) = repository();
    let mut cache = Cache::default();
    let first = commit(&repo, many().write(&repo));
    read(&repo, &first, None, &mut cache).unwrap();
    let (_folder, other) = repository();
    let mut node = many();
    *at(&mut node, &["apps", "t7", "own.yaml"]) = Node::Leaf(EntryKind::Blob, b"v: new\n");
    let second = commit(&other, node.write(&other));
    let after = read(&other, &second, None, &mut cache).unwrap();
    let full = read(&other, &second, None, &mut Cache::default()).unwrap();
    assert_eq!((after.files.len(), &after.files), (220, &full.files));
    assert_eq!(
        cache.contents.read, 31,
        "what is known by its content is not read again"
    );
}

/// Below another folder nothing of the last reading counts.
#[test]
fn another_folder_is_read_for_itself() {
    let (_folder, repo) = repository();
    let mut cache = Cache::default();
    let at = commit(&repo, many().write(&repo));
    for (below, files) in [("apps/t1", 11), ("apps/t2", 11), ("apps", 220), ("gone", 0)] {
        let below = RepoPath::new(below).unwrap();
        let snapshot = read(&repo, &at, Some(&below), &mut cache).unwrap();
        assert_eq!(snapshot.files.len(), files, "{below}");
        assert!(snapshot.files.keys().all(|path| path.is_within(&below)));
    }
}
