//! The tables of a manifest in memory, and the operations that change them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::check;
use super::contents::Contents;
use crate::files::{File, Files};
use crate::hash::Hash;
use crate::records::{Content, Pack, Segment};
use crate::scan_result::Scan;
use crate::stat::StatKey;
use crate::{Error, Result};

/// The tables of a manifest, in memory.
///
/// A file may have a content that is not in the table of contents, because its
/// features are not computed yet, or may not be hashed yet. Such files are not saved.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    pub(super) header: String,
    pub(super) packs: Vec<Pack>,
    pub(super) contents: Contents,
    /// Sorted by path. Shared with the scan that it comes from.
    pub(super) files: Arc<Files>,
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
    /// The header: a JSON object whose content is up to the caller.
    pub fn header(&self) -> &str {
        &self.header
    }

    /// Replaces the header.
    ///
    /// # Errors
    ///
    /// If `json` is not a JSON object, or exceeds 64 KiB.
    pub fn set_header(&mut self, json: &str) -> Result<()> {
        check::header(json).map_err(Error::Invalid)?;
        // The header is one line of the file. In JSON a newline is never inside a
        // token, so a space can replace it.
        self.header = json.trim().replace(['\n', '\r'], " ");
        Ok(())
    }

    /// The packs. [`Segment::pack`] is an index into them.
    pub fn packs(&self) -> &[Pack] {
        &self.packs
    }

    /// The files, sorted by path.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The table of files, without copying it.
    pub(crate) fn shared_files(&self) -> Arc<Files> {
        Arc::clone(&self.files)
    }

    /// What was computed from a content; `None` if nothing was.
    pub fn content(&self, hash: &Hash) -> Option<Cow<'_, Content>> {
        self.contents.get(hash)
    }

    /// Adds a pack and returns its index.
    ///
    /// # Errors
    ///
    /// If the name is not a plain file name or already listed, the checksum is not
    /// 64 hex digits, or a number exceeds 63 bits.
    pub fn add_pack(&mut self, pack: Pack) -> Result<u64> {
        check::pack(&pack).map_err(Error::Invalid)?;
        if self.packs.iter().any(|other| other.name == pack.name) {
            return Err(Error::Invalid(format!(
                "pack {:?} is already listed",
                pack.name
            )));
        }
        self.packs.push(pack);
        Ok(self.packs.len() as u64 - 1)
    }

    /// Records the times of a pack that was just verified. Returns whether the
    /// pack exists.
    pub fn set_pack_stamps(&mut self, name: &str, mtime_ns: i64, ctime_ns: i64) -> bool {
        let pack = self.packs.iter_mut().find(|pack| pack.name == name);
        let found = pack.is_some();
        if let Some(pack) = pack {
            (pack.mtime_ns, pack.ctime_ns) = (mtime_ns, ctime_ns);
        }
        found
    }

    /// Records, or replaces, what was computed from a content.
    ///
    /// # Errors
    ///
    /// If a segment is not inside its pack, a sum is not finite, or a skipped
    /// content has rows.
    pub fn set_content(&mut self, hash: Hash, content: Content) -> Result<()> {
        check::content(&content, &self.packs).map_err(Error::Invalid)?;
        self.contents.insert(hash, content);
        Ok(())
    }

    /// Adds the packs, contents and files of another manifest. Of a content that both
    /// have, this one's rows stay. Returns whether anything changed.
    ///
    /// # Errors
    ///
    /// If both list a pack of the same name with another number of rows.
    pub fn adopt(&mut self, part: &Manifest) -> Result<bool> {
        let names = self.packs.iter().enumerate();
        let own: HashMap<&str, usize> = names.map(|(at, pack)| (&*pack.name, at)).collect();
        let mut index_of = Vec::with_capacity(part.packs.len());
        for pack in &part.packs {
            let known = own.get(&*pack.name).copied();
            if known.is_some_and(|index| self.packs[index].rows != pack.rows) {
                let message = format!("pack {:?} is listed with other rows", pack.name);
                return Err(Error::Invalid(message));
            }
            index_of.push(known.map(|index| index as u64));
        }
        let mut has_changed = false;
        for (hash, content) in part.contents.iter() {
            let own = self.contents.get(hash);
            let has_more = own.is_none_or(|own| own.skipped.is_some() && content.skipped.is_none());
            if has_more {
                let mut content = content.into_owned();
                for segment in &mut content.segments {
                    // A pack of which nothing is taken would only take space.
                    let index = &mut index_of[segment.pack as usize];
                    segment.pack = match *index {
                        Some(index) => index,
                        None => {
                            *index.insert(self.add_pack(part.packs[segment.pack as usize].clone())?)
                        }
                    };
                }
                self.contents.insert(*hash, content);
                has_changed = true;
            }
        }
        Ok(Files::merge(&mut self.files, &part.files) || has_changed)
    }

    /// Adds a file whose content is known, as a scan found it; one of the same path is replaced. Fastest in the
    /// order of the paths.
    pub fn add_file(&mut self, path: &[u8], key: StatKey, racy: bool, hash: Hash) {
        let mut file = Files::default();
        file.push(File {
            path,
            key,
            racy,
            content: Some(hash),
            skipped: None,
            selected: true,
        });
        Files::merge(&mut self.files, &file);
    }

    /// Removes the contents that no file has, selected or not, and packs without
    /// remaining rows.
    pub fn drop_dead(&mut self) {
        let is_live = self.contents_of(|_| true);
        self.contents.retain(|number, _| is_live[number]);
        self.drop_unused_packs();
    }

    /// Removes the contents that are skipped for a reason with this code, so that
    /// they are tried again. Returns whether there were any.
    pub fn forget_skipped(&mut self, code: &str) -> bool {
        let before = self.contents.len();
        self.contents.retain(|_, content| {
            let reason = content.skipped.as_ref();
            reason.is_none_or(|reason| reason.code != code)
        });
        self.contents.len() < before
    }

    /// Removes a damaged pack, the contents with rows in it, and packs without
    /// remaining rows. Returns whether the pack existed.
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

    /// Removes each content with one of these rows of a pack, and packs without
    /// remaining rows. Returns the number of contents removed.
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

    /// Replaces the location of a content's rows.
    ///
    /// # Errors
    ///
    /// If the content is not listed, a segment is not inside its pack, or the number
    /// of rows changes.
    pub fn move_content(&mut self, hash: &Hash, segments: SmallVec<[Segment; 1]>) -> Result<()> {
        let Some(number) = self.contents.number(hash) else {
            return Err(Error::Invalid("the content is not listed".into()));
        };
        let content = self.contents.at(number).into_owned();
        let rows = content.rows();
        let moved = Content {
            segments,
            ..content
        };
        check::content(&moved, &self.packs).map_err(Error::Invalid)?;
        if moved.rows() != rows {
            return Err(Error::Invalid(format!(
                "a content of {rows} rows cannot move to {} rows",
                moved.rows()
            )));
        }
        self.contents.replace(number, moved);
        Ok(())
    }

    /// Removes packs without rows of a listed content, and renumbers the others.
    fn drop_unused_packs(&mut self) {
        let mut is_used = vec![false; self.packs.len()];
        for (_, content) in self.contents.iter() {
            for segment in &content.segments {
                is_used[segment.pack as usize] = true;
            }
        }
        let mut next = 0;
        let moved: Vec<u64> = is_used
            .iter()
            .map(|&used| {
                next += u64::from(used);
                next.saturating_sub(1)
            })
            .collect();
        self.contents.renumber_packs(&moved);
        let mut used = is_used.into_iter();
        self.packs.retain(|_| used.next().unwrap_or(false));
    }

    /// Records the hash of a file that the scan did not hash. Returns whether there is
    /// such a file.
    pub fn set_hash(&mut self, path: &[u8], hash: Hash) -> bool {
        Files::set_hash(&mut self.files, path, hash)
    }

    /// Replaces the table of files with that of a scan. Returns whether it changed.
    pub fn apply(&mut self, scan: &Scan) -> bool {
        let differs = !Arc::ptr_eq(&self.files, &scan.files) && self.files != scan.files;
        self.files = Arc::clone(&scan.files);
        differs
    }
}
