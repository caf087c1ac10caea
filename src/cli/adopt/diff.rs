//! A unified diff of one change in one place, as `git apply` takes it.

use std::io::Write as _;

/// Lines around a change.
const CONTEXT: usize = 3;

/// What turns `before` (nothing: the file is new) into `after`, as one hunk.
pub(super) fn unified(path: &str, before: Option<&[u8]>, after: &[u8]) -> Vec<u8> {
    let old = lines(before.unwrap_or_default());
    let new = lines(after);
    let common = |pairs: &mut dyn Iterator<Item = bool>| pairs.take_while(|same| *same).count();
    let head = common(&mut old.iter().zip(&new).map(|(a, b)| a == b));
    let rest = (old.len() - head).min(new.len() - head);
    let tail = common(&mut old.iter().rev().zip(new.iter().rev()).map(|(a, b)| a == b)).min(rest);
    let from = head.saturating_sub(CONTEXT);
    let old_end = (old.len() - tail + CONTEXT).min(old.len());
    let new_end = (new.len() - tail + CONTEXT).min(new.len());
    let mut out = Vec::new();
    let source = before.map_or_else(|| "/dev/null".to_owned(), |_| format!("a/{path}"));
    // Writing to memory cannot fail.
    let _ = write!(
        out,
        "--- {source}\n+++ b/{path}\n@@ -{} +{} @@\n",
        place(from, old_end - from),
        place(from, new_end - from)
    );
    let mut put = |sign: u8, some: &[&[u8]]| {
        for line in some {
            out.push(sign);
            out.extend_from_slice(line);
            if !line.ends_with(b"\n") {
                out.extend_from_slice(b"\n\\ No newline at end of file\n");
            }
        }
    };
    put(b' ', old.get(from..head).unwrap_or_default());
    put(b'-', old.get(head..old.len() - tail).unwrap_or_default());
    put(b'+', new.get(head..new.len() - tail).unwrap_or_default());
    put(b' ', old.get(old.len() - tail..old_end).unwrap_or_default());
    out
}

fn place(from: usize, count: usize) -> String {
    format!("{},{count}", if count == 0 { from } else { from + 1 })
}

fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(before: Option<&str>, after: &str) -> String {
        String::from_utf8(unified("f", before.map(str::as_bytes), after.as_bytes())).unwrap()
    }

    #[test]
    fn one_hunk_with_context() {
        insta::assert_snapshot!(shown(Some("1\n2\n3\n4\n5\n6\n7\n"), "1\n2\n3\n4\nnew\n5\n6\n7\n"), @"
        --- a/f
        +++ b/f
        @@ -2,6 +2,7 @@
         2
         3
         4
        +new
         5
         6
         7
        ");
        insta::assert_snapshot!(shown(None, "a\nb\n"), @"
        --- /dev/null
        +++ b/f
        @@ -0,0 +1,2 @@
        +a
        +b
        ");
        insta::assert_snapshot!(shown(Some("a\na"), "a\na\na"), @r"
        --- a/f
        +++ b/f
        @@ -1,2 +1,3 @@
         a
        +a
         a
        \ No newline at end of file
        ");
    }
}
