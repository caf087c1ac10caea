//! Many new objects as one pack: a file each would make a thousand commits wait for the disk.

use std::collections::BTreeMap;
use std::io::Write;

use gix::ObjectId;
use gix::objs::Kind;
use gix::odb::pack::data::entry::Header;
use gix::odb::pack::data::{Version, header};
use gix::zlib::Compression;
use gix::zlib::stream::deflate;

use super::objects::local;
use crate::ports::RepositoryError;

/// Objects by id: kind and content.
pub(super) type Objects = BTreeMap<ObjectId, (Kind, Vec<u8>)>;

/// The objects, each whole, as `git index-pack --stdin` takes them.
pub(super) fn pack(objects: &Objects) -> Result<Vec<u8>, RepositoryError> {
    let failed = |error: std::io::Error| RepositoryError::Local(error.to_string());
    let count = u32::try_from(objects.len())
        .map_err(|_| RepositoryError::Local("too many objects for a pack".to_owned()))?;
    let mut pack = header::encode(Version::V2, count).to_vec();
    for (kind, content) in objects.values() {
        let header = match kind {
            Kind::Commit => Header::Commit,
            Kind::Tree => Header::Tree,
            Kind::Blob => Header::Blob,
            Kind::Tag => Header::Tag,
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
