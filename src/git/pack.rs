//! Many new objects as one pack: a file each would make a thousand commits wait for the disk.
//!
//! A folder of a thousand canaries is written a thousand times, with one entry changed each time. So a tree is written as
//! its difference to the tree before it at the same path, where that is new too; `git push` sends such differences on as
//! they are.

use std::collections::BTreeMap;
use std::io::Write;

use gix::ObjectId;
use gix::objs::{Kind, TreeRefIter};
use gix::odb::pack::data::entry::Header;
use gix::odb::pack::data::{Version, header};
use gix::zlib::Compression;
use gix::zlib::stream::deflate;

use super::objects::local;
use crate::ports::RepositoryError;

/// Objects by id: kind and content.
pub(super) type Objects = BTreeMap<ObjectId, (Kind, Vec<u8>)>;

/// The longest chain of differences, the same as `git`'s own for what it packs: each link is work for the reader.
const MAX_CHAIN: usize = 50;
/// The longest piece that one instruction copies.
const MAX_COPY: usize = 0xffff;
/// The longest piece that one instruction inserts.
const MAX_INSERT: usize = 0x7f;

/// The objects as `git index-pack --stdin` takes them. `steps` are the root trees before and after each commit, in order.
pub(super) fn pack(
    objects: &Objects,
    steps: &[(ObjectId, ObjectId)],
) -> Result<Vec<u8>, RepositoryError> {
    let failed = |error: std::io::Error| RepositoryError::Local(error.to_string());
    let count = u32::try_from(objects.len())
        .map_err(|_| RepositoryError::Local("too many objects for a pack".to_owned()))?;
    let bases = bases(objects, steps);
    let mut pack = header::encode(Version::V2, count).to_vec();
    for (id, (kind, content)) in objects {
        let base = bases
            .get(id)
            .and_then(|base| Some((base, objects.get(base)?)));
        let difference = base.and_then(|(base, (_, old))| Some((*base, difference(old, content)?)));
        let (header, content) = match &difference {
            Some((base_id, difference)) => (Header::RefDelta { base_id: *base_id }, difference),
            None => (whole(*kind), content),
        };
        let size = u64::try_from(content.len()).unwrap_or(u64::MAX);
        header.write_to(size, &mut pack).map_err(failed)?;
        let mut deflated = deflate::Write::new(&mut pack, Compression::BEST_SPEED);
        deflated.write_all(content).map_err(failed)?;
        deflated.flush().map_err(failed)?;
    }
    let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
    hasher.update(&pack);
    let checksum = hasher.try_finalize().map_err(local)?;
    pack.extend_from_slice(checksum.as_slice());
    Ok(pack)
}

fn whole(kind: Kind) -> Header {
    match kind {
        Kind::Commit => Header::Commit,
        Kind::Tree => Header::Tree,
        Kind::Blob => Header::Blob,
        Kind::Tag => Header::Tag,
    }
}

/// For trees, the tree before at the same path, as far as that is among the objects and the chain is not too long.
fn bases(objects: &Objects, steps: &[(ObjectId, ObjectId)]) -> BTreeMap<ObjectId, ObjectId> {
    let mut bases = BTreeMap::new();
    let mut chains: BTreeMap<ObjectId, usize> = BTreeMap::new();
    let mut open: Vec<(ObjectId, ObjectId)> = Vec::new();
    for step in steps {
        open.push(*step);
        while let Some((old, new)) = open.pop() {
            let (Some((_, before)), Some((_, after))) = (objects.get(&old), objects.get(&new))
            else {
                continue;
            };
            if old == new || chains.contains_key(&new) {
                continue;
            }
            // Whatever has a base here, or is one, gets no other: that could close a circle.
            let chain = *chains.entry(old).or_insert(0) + 1;
            if chain <= MAX_CHAIN {
                bases.insert(new, old);
                chains.insert(new, chain);
            } else {
                chains.insert(new, 0);
            }
            changed_folders(before, after, &mut open);
        }
    }
    bases
}

/// Folders that both trees have with other content. What is overlooked is written whole.
fn changed_folders(before: &[u8], after: &[u8], into: &mut Vec<(ObjectId, ObjectId)>) {
    let entries =
        |tree| TreeRefIter::from_bytes(tree, gix::hash::Kind::Sha1).filter_map(Result::ok);
    let (mut left, mut right) = (entries(before).peekable(), entries(after).peekable());
    while let (Some(old), Some(new)) = (left.peek(), right.peek()) {
        match old.filename.cmp(new.filename) {
            std::cmp::Ordering::Less => drop(left.next()),
            std::cmp::Ordering::Greater => drop(right.next()),
            std::cmp::Ordering::Equal => {
                if old.oid != new.oid && old.mode.is_tree() && new.mode.is_tree() {
                    into.push((old.oid.to_owned(), new.oid.to_owned()));
                }
                left.next();
                right.next();
            }
        }
    }
}

/// `new` in terms of `old`: the same beginning, what is in between, the same end. `None` when that saves little.
fn difference(old: &[u8], new: &[u8]) -> Option<Vec<u8>> {
    let beginning = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (old.get(beginning..)?, new.get(beginning..)?);
    let pairs = old_rest.iter().rev().zip(new_rest.iter().rev());
    let end = pairs.take_while(|(a, b)| a == b).count();
    let between = new_rest.get(..new_rest.len() - end)?;
    let mut difference = Vec::new();
    size(old.len(), &mut difference);
    size(new.len(), &mut difference);
    copy(0, beginning, &mut difference);
    for piece in between.chunks(MAX_INSERT) {
        difference.push(u8::try_from(piece.len()).ok()?);
        difference.extend_from_slice(piece);
    }
    copy(old.len() - end, end, &mut difference);
    (difference.len() < new.len() / 2).then_some(difference)
}

/// A length, seven bits at a time, the lowest first.
fn size(mut length: usize, into: &mut Vec<u8>) {
    while length > 0x7f {
        into.push(low_byte(length) | 0x80);
        length >>= 7;
    }
    into.push(low_byte(length));
}

/// Instructions to copy a piece of the old content: a bit for each byte of offset and size that is not zero, then these.
fn copy(mut offset: usize, mut length: usize, into: &mut Vec<u8>) {
    while length > 0 {
        let piece = length.min(MAX_COPY);
        let place = into.len();
        into.push(0x80);
        for (bit, byte) in (0..4)
            .map(|n| (n, low_byte(offset >> (8 * n))))
            .chain([(4, low_byte(piece)), (5, low_byte(piece >> 8))])
        {
            if byte != 0 {
                into.push(byte);
                if let Some(instruction) = into.get_mut(place) {
                    *instruction |= 1 << bit;
                }
            }
        }
        offset += piece;
        length -= piece;
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "one byte is what is wanted"
)]
fn low_byte(number: usize) -> u8 {
    number as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As `git` applies it: `Documentation/gitformat-pack.txt` in its sources.
    fn applied(old: &[u8], difference: &[u8]) -> Vec<u8> {
        let mut bytes = difference.iter().copied();
        let mut size = || {
            let (mut length, mut shift) = (0_usize, 0);
            loop {
                let byte = bytes.next().unwrap();
                length |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    return length;
                }
            }
        };
        assert_eq!(size(), old.len());
        let wanted = size();
        let mut new = Vec::new();
        while let Some(instruction) = bytes.next() {
            if instruction & 0x80 == 0 {
                new.extend(bytes.by_ref().take(usize::from(instruction)));
                continue;
            }
            let mut part = |bits: std::ops::Range<u32>| {
                let mut number = 0;
                for (place, bit) in bits.enumerate() {
                    if instruction & (1 << bit) != 0 {
                        number |= usize::from(bytes.next().unwrap()) << (8 * place);
                    }
                }
                number
            };
            let offset = part(0..4);
            let length = part(4..7);
            new.extend_from_slice(&old[offset..offset + length]);
        }
        assert_eq!(new.len(), wanted);
        new
    }

    proptest! {
        #[test]
        fn a_difference_gives_the_new_content(
            beginning in "[ab]{0,300}", before in "[abc]{0,10}", after in "[abc]{0,300}", end in "[ab]{0,300}", times in 1..400_usize,
        ) {
            let old = format!("{}{before}{}", beginning.repeat(times), end.repeat(times));
            let new = format!("{}{after}{}", beginning.repeat(times), end.repeat(times));
            if let Some(difference) = difference(old.as_bytes(), new.as_bytes()) {
                prop_assert_eq!(applied(old.as_bytes(), &difference), new.as_bytes());
                prop_assert!(difference.len() < new.len() / 2);
            }
        }
    }

    #[test]
    fn a_changed_entry_is_a_short_difference() {
        let old = [b'x'; 200_000];
        let mut new = old;
        new[100_000] = b'y';
        let short = difference(&old, &new).unwrap();
        assert!(short.len() < 50, "{}", short.len());
        assert_eq!(applied(&old, &short), new);
        assert_eq!(difference(b"abc", b"xyz"), None);
        assert_eq!(difference(b"", b""), None);
    }
}
