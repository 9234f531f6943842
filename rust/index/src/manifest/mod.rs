//! The manifest: what is in the cache, and which files it came from.

mod check;
mod commit;
mod read;
mod table;
mod write;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::hash::Hash;
use crate::outcome::Scan;
use crate::stat::StatKey;
use crate::{Error, Result};

pub use check::FORMAT_VERSION;
pub use table::{Live, Summary, Totals};
pub use write::seal;

/// An immutable file of cached rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    /// Its name in the folder of packs.
    pub name: String,
    /// How many rows it holds.
    pub rows: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its modification time when it was last known to be whole.
    pub mtime_ns: i64,
    /// Its change time then.
    pub ctime_ns: i64,
    /// 64 lower-case hexadecimal digits; what they are of is the caller's rule.
    pub checksum: String,
    /// What computed the rows.
    pub backend: String,
}

/// A run of rows in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Position of the pack in the manifest's list.
    pub pack: u64,
    /// The first row in that pack.
    pub first: u64,
    /// How many rows; at least one.
    pub rows: u64,
}

/// What is known of one content, whatever files have it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    /// Where its rows are, in their order.
    pub segments: SmallVec<[Segment; 1]>,
    /// How many of its chunks were silent and gave no row.
    pub silent: u64,
    /// Count, then sum and sum of squares of each of the two channels.
    pub sums: [f64; 5],
    /// Why these bytes cannot be used, if they cannot.
    pub skipped: Option<String>,
}

impl Content {
    /// How many rows it has.
    pub fn rows(&self) -> u64 {
        let rows = self.segments.iter().map(|segment| segment.rows);
        rows.fold(0, u64::saturating_add)
    }
}

/// A source file as it was when last looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Relative to the dataset's root.
    pub path: Box<[u8]>,
    /// Its stamps.
    pub key: StatKey,
    /// The stamps were too young to be trusted.
    pub racy: bool,
    /// Its content, unless it is skipped by itself.
    pub content: Option<Hash>,
    /// Why the file, whatever its content, is skipped.
    pub skipped: Option<String>,
}

/// Contents by hash.
type Contents = HashMap<Hash, Content, BuildHasherDefault<ByPrefix>>;

/// Takes a part of what is a hash already. Whoever makes files on purpose whose
/// BLAKE3 begin alike slows down his own dataset.
#[derive(Clone, Default)]
struct ByPrefix(u64);

impl Hasher for ByPrefix {
    fn write(&mut self, bytes: &[u8]) {
        // Of a hash; before it comes its length.
        if let Some(&prefix) = bytes.first_chunk() {
            self.0 = u64::from_ne_bytes(prefix);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The tables of a manifest, in memory.
///
/// Here a file may have a content that is not in the table of contents yet: it
/// is still to be computed. What is written leaves such files out.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    header: String,
    packs: Vec<Pack>,
    contents: Contents,
    /// Sorted by path. Shared with the scan it was adopted from.
    files: Arc<Vec<FileEntry>>,
}

impl Default for Manifest {
    fn default() -> Self {
        Manifest {
            header: "{}".into(),
            packs: Vec::new(),
            contents: Contents::default(),
            files: Arc::default(),
        }
    }
}

impl Manifest {
    /// The caller's own JSON object.
    pub fn header(&self) -> &str {
        &self.header
    }

    /// Replaces the caller's object.
    pub fn set_header(&mut self, json: &str) -> Result<()> {
        check::header(json).map_err(Error::Invalid)?;
        // A newline in JSON stands between tokens, never inside one. Without
        // any, the header is one line of the file.
        self.header = json.trim().replace(['\n', '\r'], " ");
        Ok(())
    }

    /// The packs, in the order that [`Segment::pack`] counts in.
    pub fn packs(&self) -> &[Pack] {
        &self.packs
    }

    /// The files, sorted by path.
    pub fn files(&self) -> &[FileEntry] {
        &self.files
    }

    /// The table of files itself.
    pub(crate) fn shared_files(&self) -> Arc<Vec<FileEntry>> {
        Arc::clone(&self.files)
    }

    /// What is known of a content.
    pub fn content(&self, hash: &Hash) -> Option<&Content> {
        self.contents.get(hash)
    }

    /// Lists a pack, and gives its position.
    pub fn add_pack(&mut self, pack: Pack) -> Result<u64> {
        check::pack(&pack).map_err(Error::Invalid)?;
        if self.packs.iter().any(|other| other.name == pack.name) {
            return Err(Error::Invalid(format!("pack {:?} is listed", pack.name)));
        }
        self.packs.push(pack);
        Ok(self.packs.len() as u64 - 1)
    }

    /// Records the stamps that a pack had when it was last found whole. Whether
    /// there is such a pack.
    pub fn set_pack_stamps(&mut self, name: &str, mtime_ns: i64, ctime_ns: i64) -> bool {
        let pack = self.packs.iter_mut().find(|pack| pack.name == name);
        let found = pack.is_some();
        if let Some(pack) = pack {
            (pack.mtime_ns, pack.ctime_ns) = (mtime_ns, ctime_ns);
        }
        found
    }

    /// Records, or replaces, what is known of a content.
    pub fn set_content(&mut self, hash: Hash, content: Content) -> Result<()> {
        check::content(&content, &self.packs).map_err(Error::Invalid)?;
        self.contents.insert(hash, content);
        Ok(())
    }

    /// Forgets all rows, and what they were computed from: the configuration
    /// changed. The files keep their stamps and hashes.
    pub fn clear_contents(&mut self) {
        self.packs.clear();
        self.contents.clear();
    }

    /// Forgets the contents that no file has, and the packs that then hold no
    /// row of any.
    pub fn drop_dead(&mut self) {
        let live: HashSet<Hash> = self.files.iter().filter_map(|f| f.content).collect();
        self.contents.retain(|hash, _| live.contains(hash));
        self.drop_unused_packs();
    }

    /// Forgets a pack that is damaged, the contents that have rows in it, and
    /// the packs that then hold no row of any. Whether there was such a pack.
    pub fn drop_pack(&mut self, name: &str) -> bool {
        let Some(index) = self.packs.iter().position(|pack| pack.name == name) else {
            return false;
        };
        let index = index as u64;
        self.contents
            .retain(|_, content| content.segments.iter().all(|s| s.pack != index));
        self.drop_unused_packs();
        true
    }

    /// Forgets each content that has one of these rows of a pack, and the packs
    /// that then hold no row of any. How many contents were forgotten.
    pub fn drop_rows(&mut self, name: &str, rows: &[u64]) -> u64 {
        let Some(index) = self.packs.iter().position(|pack| pack.name == name) else {
            return 0;
        };
        let mut bad = rows.to_vec();
        bad.sort_unstable();
        let is_hit = |segment: &Segment| {
            let at = bad.partition_point(|&row| row < segment.first);
            let row = bad.get(at).filter(|_| segment.pack == index as u64);
            row.is_some_and(|&row| row - segment.first < segment.rows)
        };
        let before = self.contents.len();
        self.contents
            .retain(|_, content| !content.segments.iter().any(is_hit));
        self.drop_unused_packs();
        (before - self.contents.len()) as u64
    }

    /// Says that a content's rows are elsewhere now.
    pub fn move_content(&mut self, hash: &Hash, segments: SmallVec<[Segment; 1]>) -> Result<()> {
        let Some(content) = self.contents.get_mut(hash) else {
            return Err(Error::Invalid("no such content".into()));
        };
        let moved = Content {
            segments,
            ..content.clone()
        };
        check::content(&moved, &self.packs).map_err(Error::Invalid)?;
        if moved.rows() != content.rows() {
            return Err(Error::Invalid(format!(
                "a content of {} rows cannot have {}",
                content.rows(),
                moved.rows()
            )));
        }
        *content = moved;
        Ok(())
    }

    fn drop_unused_packs(&mut self) {
        let mut is_used = vec![false; self.packs.len()];
        for segment in self.contents.values().flat_map(|c| &c.segments) {
            is_used[segment.pack as usize] = true;
        }
        let mut next = 0;
        let moved: Vec<u64> = is_used
            .iter()
            .map(|&used| {
                next += u64::from(used);
                next.saturating_sub(1)
            })
            .collect();
        for segment in self.contents.values_mut().flat_map(|c| &mut c.segments) {
            segment.pack = moved[segment.pack as usize];
        }
        let mut used = is_used.into_iter();
        self.packs.retain(|_| used.next().unwrap_or(false));
    }

    /// Adopts the files of a scan. Whether the table is another one now.
    pub fn apply(&mut self, scan: &Scan) -> bool {
        let differs = !Arc::ptr_eq(&self.files, &scan.files) && self.files != scan.files;
        self.files = Arc::clone(&scan.files);
        differs
    }
}
