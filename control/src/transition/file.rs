//! `circles.json`: the ring of every circle at the last start, and the state of its transition. It holds names, urls
//! and hash settings, but no credentials (urls hold none).
//!
//! A new version is written to a second file, synced and renamed, so the file is never half written.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use fluxgate_dataplane::placement::{Former, FormerMember, HashKey, PlacementSettings, RingHash};
use serde::{Deserialize, Serialize};

use super::{Places, SavedCircle};

/// A later version is refused: its meaning is unknown here.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct CirclesFile {
    version: u32,
    circles: Vec<CircleEntry>,
}

#[derive(Serialize, Deserialize)]
struct CircleEntry {
    name: String,
    ring: RingEntry,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    former: Option<RingEntry>,
    #[serde(default, skip_serializing_if = "Places::is_empty")]
    moved: Places,
}

#[derive(Serialize, Deserialize)]
struct RingEntry {
    hash_key: String,
    vnode_size: u32,
    shard_key: String,
    hash: Hash,
    members: Vec<Member>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    as_written: bool,
    #[serde(default, skip_serializing_if = "Places::is_empty")]
    in_place: Places,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Hash {
    Crc32,
    Xxh3,
}

#[derive(Serialize, Deserialize)]
struct Member {
    name: String,
    url: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    gone: bool,
}

/// The content of the file; None when there is no file.
///
/// # Errors
/// One sentence that names the file.
pub(super) fn load(path: &Path) -> Result<Option<Vec<SavedCircle>>, String> {
    let shown = path.display();
    let text = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| format!("{shown} cannot be read: {error}"))?,
    };
    let unreadable = |why: &dyn std::fmt::Display| {
        format!(
            "{shown} says where data lies while circles change, and cannot be used: {why}; restore it, or remove it \
             if all data lies where the configuration places it"
        )
    };
    let document: CirclesFile = serde_json::from_slice(&text).map_err(|error| unreadable(&error))?;
    if document.version != VERSION {
        return Err(unreadable(&format_args!("it is of version {}, not {VERSION}", document.version)));
    }
    let circles = document.circles.into_iter().map(|circle| {
        let CircleEntry { name, ring, former, moved } = circle;
        Some(SavedCircle {
            name,
            now: read(ring)?,
            former: former.map_or(Some(None), |ring| read(ring).map(Some))?,
            moved,
        })
    });
    circles.collect::<Option<_>>().map(Some).ok_or_else(|| unreadable(&"a ring is invalid"))
}

/// # Errors
/// One sentence that names the file. The former file then still exists.
pub(super) fn save(path: &Path, circles: &[SavedCircle]) -> Result<(), String> {
    let circles = circles.iter().map(|kept| CircleEntry {
        name: kept.name.clone(),
        ring: write(&kept.now),
        former: kept.former.as_ref().map(write),
        moved: kept.moved.clone(),
    });
    let document = CirclesFile { version: VERSION, circles: circles.collect() };
    let mut text = serde_json::to_vec_pretty(&document).expect("text and numbers are serializable");
    text.push(b'\n');
    let put = || {
        let beside = path.with_extension("json.new");
        let mut file = File::create(&beside)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        // The rename is durable once its folder is synced.
        File::open(path.parent().unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all())
    };
    put().map_err(|error| format!("{} cannot be written: {error}", path.display()))
}

fn write(former: &Former) -> RingEntry {
    let PlacementSettings { hash_key, vnode_size, shard_key, hash } = &former.settings;
    let member = |m: &FormerMember| Member { name: m.name.clone(), url: m.url.clone(), gone: m.gone };
    RingEntry {
        hash_key: hash_key.text().to_owned(),
        vnode_size: *vnode_size,
        shard_key: shard_key.clone(),
        hash: match hash {
            RingHash::Crc32 => Hash::Crc32,
            RingHash::Xxh3 => Hash::Xxh3,
        },
        members: former.members.iter().map(member).collect(),
        as_written: former.as_written.is_some(),
        in_place: former.as_written.clone().unwrap_or_default(),
    }
}

/// None when the ring has no members or points, or an unknown hash key.
fn read(ring: RingEntry) -> Option<Former> {
    let RingEntry { hash_key, vnode_size, shard_key, hash, members, as_written, in_place } = ring;
    let hash = match hash {
        Hash::Crc32 => RingHash::Crc32,
        Hash::Xxh3 => RingHash::Xxh3,
    };
    let hash_key = HashKey::from_text(&hash_key)?;
    let members: Vec<_> =
        members.into_iter().map(|Member { name, url, gone }| FormerMember { name, url, gone }).collect();
    let settings = PlacementSettings { hash_key, vnode_size, shard_key, hash };
    let is_ring = !members.is_empty() && members.len() <= usize::from(u16::MAX) && vnode_size > 0;
    is_ring.then_some(Former { settings, members, as_written: as_written.then_some(in_place) })
}
