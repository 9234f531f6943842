//! The table of contents, column by column: a million contents take 100 MB.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use hashbrown::HashTable;

use crate::files::Files;
use crate::hash::Hash;
use crate::records::{Content, Pack, Segment};

/// The number of rows of a content that is kept in [`Contents::others`].
const ELSEWHERE: u32 = u32::MAX;

/// In place of the number of a content: there is none.
pub(super) const NO_CONTENT: u32 = u32::MAX;

/// The number of the content of each file of a table.
#[derive(Clone, Debug)]
struct Numbered {
    /// Weak, so that a table of one owner can be changed in place; it is then no longer this one.
    files: Weak<Files>,
    numbers: Vec<u32>,
}

/// Where the rows of a content are that has at most one segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pack: u32,
    first: u32,
    /// 0 if there is no segment.
    rows: u32,
    silent: u32,
}

/// Contents by hash.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    hashes: Vec<Hash>,
    placed: Vec<Placed>,
    sums: Vec<[f64; 5]>,
    /// Contents with several segments, silent chunks, a reason or large numbers, by their
    /// number.
    others: HashMap<u32, Content>,
    /// The number of each hash.
    numbers: HashTable<u32>,
    /// Known until either table changes: looking up a million hashes takes a quarter of a second.
    of_files: Option<Numbered>,
}

/// The first 8 bytes of a hash. Files made to have colliding prefixes would only slow
/// down the dataset that contains them.
fn prefix(hash: &Hash) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    u64::from_ne_bytes(first)
}

impl Placed {
    /// The place of a content; `None` if it has to be kept elsewhere.
    fn of(content: &Content) -> Option<Self> {
        let has_more = !content.silent_runs.is_empty();
        if content.skipped.is_some() || content.partial.is_some() || has_more {
            return None;
        }
        let (pack, first, rows) = match *content.segments.as_slice() {
            [] => (0, 0, 0),
            [Segment { pack, first, rows }] => (pack, first, rows),
            _ => return None,
        };
        let placed = Placed {
            pack: pack.try_into().ok()?,
            first: first.try_into().ok()?,
            rows: rows.try_into().ok()?,
            silent: content.silent.try_into().ok()?,
        };
        (placed.rows != ELSEWHERE).then_some(placed)
    }

    pub(super) fn to_bytes(self) -> [u8; 16] {
        let [a, b, c, d] = [self.pack, self.first, self.rows, self.silent].map(u32::to_le_bytes);
        let mut bytes = [0; 16];
        let parts = bytes.chunks_exact_mut(4).zip([a, b, c, d]);
        parts.for_each(|(place, part)| place.copy_from_slice(&part));
        bytes
    }

    pub(super) fn from_bytes(bytes: [u8; 16]) -> Self {
        let number = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Placed {
            pack: number(0),
            first: number(4),
            rows: number(8),
            silent: number(12),
        }
    }

    /// Whether its rows are in a pack.
    fn is_in(self, packs: &[Pack]) -> bool {
        let end = u64::from(self.first) + u64::from(self.rows);
        let pack = packs.get(self.pack as usize);
        self.rows == 0 || pack.is_some_and(|pack| end <= pack.rows)
    }

    fn segment(self) -> Option<Segment> {
        (self.rows > 0).then(|| Segment {
            pack: self.pack.into(),
            first: self.first.into(),
            rows: self.rows.into(),
        })
    }
}

impl Contents {
    /// The contents of these columns, and of another table, which holds those that are kept as a
    /// whole. `None` if a rule is broken, besides those that are about all contents.
    pub(super) fn from_columns(
        hashes: Vec<Hash>,
        placed: Vec<Placed>,
        sums: Vec<[f64; 5]>,
        rare: &Contents,
        packs: &[Pack],
    ) -> Option<Self> {
        let is_rare = |placed: &&Placed| placed.rows == ELSEWHERE;
        let is_fine = |placed: &Placed| is_rare(&placed) || placed.is_in(packs);
        let is_sorted = hashes.is_sorted_by(|a, b| a < b);
        let n_rare = placed.iter().filter(is_rare).count();
        if !is_sorted || !placed.iter().all(is_fine) || n_rare != rare.len() {
            return None;
        }
        let mut others = HashMap::with_capacity(n_rare);
        for (hash, content) in rare.iter() {
            let number = hashes.binary_search(hash).ok()?;
            let is_same = content.sums == sums[number];
            if !is_rare(&&placed[number]) || !is_same {
                return None;
            }
            others.insert(number as u32, content.into_owned());
        }
        let mut numbers = HashTable::with_capacity(hashes.len());
        let of = |&number: &u32| prefix(&hashes[number as usize]);
        for (number, hash) in (0..).zip(&hashes) {
            numbers.insert_unique(prefix(hash), number, of);
        }
        Some(Contents {
            hashes,
            placed,
            sums,
            others,
            numbers,
            of_files: None,
        })
    }

    pub(super) fn placed(&self, number: usize) -> Placed {
        self.placed[number]
    }

    pub(super) fn sums(&self, number: usize) -> [f64; 5] {
        self.sums[number]
    }

    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    pub(super) fn number(&self, hash: &Hash) -> Option<usize> {
        let is_it = |&number: &u32| self.hashes[number as usize] == *hash;
        self.numbers.find(prefix(hash), is_it).map(|&n| n as usize)
    }

    pub(super) fn get(&self, hash: &Hash) -> Option<Cow<'_, Content>> {
        self.number(hash).map(|number| self.at(number))
    }

    /// A content with this number, if it may have a reason.
    pub(super) fn other(&self, number: usize) -> Option<&Content> {
        match self.others.is_empty() {
            true => None,
            false => self.others.get(&(number as u32)),
        }
    }

    /// Keeps the number of the content of each file of a table.
    pub(super) fn keep_numbers(&mut self, files: &Arc<Files>, numbers: Vec<u32>) {
        let files = Arc::downgrade(files);
        self.of_files = Some(Numbered { files, numbers });
    }

    /// Keeps the numbers that are known for an equal table.
    pub(super) fn renumber_files(&mut self, files: &Arc<Files>) {
        if let Some(known) = &mut self.of_files {
            known.files = Arc::downgrade(files);
        }
    }

    /// The number of the content of each file of a table; `None` where it is not listed.
    pub(super) fn of<'a>(&'a self, files: &'a Arc<Files>) -> impl Fn(usize) -> Option<usize> + 'a {
        let known = self.of_files.as_ref();
        let known = known.filter(|known| Weak::as_ptr(&known.files) == Arc::as_ptr(files));
        move |index| match known {
            Some(known) => Some(known.numbers[index])
                .filter(|&number| number != NO_CONTENT)
                .map(|number| number as usize),
            None => self.number(&files.content(index)?),
        }
    }

    pub(super) fn last_hash(&self) -> Option<&Hash> {
        self.hashes.last()
    }

    pub(super) fn hash(&self, number: usize) -> &Hash {
        &self.hashes[number]
    }

    pub(super) fn at(&self, number: usize) -> Cow<'_, Content> {
        let placed = self.placed[number];
        if placed.rows == ELSEWHERE {
            if let Some(content) = self.others.get(&(number as u32)) {
                return Cow::Borrowed(content);
            }
        }
        Cow::Owned(Content {
            segments: placed.segment().into_iter().collect(),
            silent: placed.silent.into(),
            sums: self.sums[number],
            ..Content::default()
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Hash, Cow<'_, Content>)> {
        (0..self.len()).map(|number| (&self.hashes[number], self.at(number)))
    }

    /// The numbers of all contents, in the order of their hashes.
    pub(super) fn sorted(&self) -> Vec<u32> {
        let mut numbers: Vec<u32> = (0..self.len() as u32).collect();
        // A manifest that was read is sorted already.
        if !self.hashes.is_sorted() {
            numbers.sort_unstable_by_key(|&number| self.hashes[number as usize]);
        }
        numbers
    }

    /// Adds a content, or replaces it.
    pub(super) fn insert(&mut self, hash: Hash, content: Content) {
        match self.number(&hash) {
            Some(number) => self.replace(number, content),
            None => self.push(hash, content),
        }
    }

    /// Adds a content that is not listed.
    pub(super) fn push(&mut self, hash: Hash, content: Content) {
        let number = self.len();
        self.of_files = None;
        self.hashes.push(hash);
        self.sums.push([0.0; 5]);
        self.placed.push(Placed {
            pack: 0,
            first: 0,
            rows: 0,
            silent: 0,
        });
        self.replace(number, content);
        let Contents {
            hashes, numbers, ..
        } = self;
        let of = |&number: &u32| prefix(&hashes[number as usize]);
        numbers.insert_unique(prefix(&hash), number as u32, of);
    }

    pub(super) fn replace(&mut self, number: usize, content: Content) {
        self.others.remove(&(number as u32));
        self.sums[number] = content.sums;
        match Placed::of(&content) {
            Some(placed) => self.placed[number] = placed,
            None => {
                self.placed[number].rows = ELSEWHERE;
                self.others.insert(number as u32, content);
            }
        }
    }

    /// Keeps some of the contents.
    pub(super) fn retain(&mut self, keeps: impl Fn(usize, &Content) -> bool) {
        let numbers = 0..self.len();
        let keeps: Vec<bool> = numbers.map(|n| keeps(n, &self.at(n))).collect();
        if keeps.iter().all(|&keep| keep) {
            return;
        }
        let mut kept = Contents::default();
        for (number, _) in keeps.iter().enumerate().filter(|(_, &keep)| keep) {
            kept.push(self.hashes[number], self.at(number).into_owned());
        }
        *self = kept;
    }

    /// Gives packs other numbers.
    pub(super) fn renumber_packs(&mut self, moved: &[u64]) {
        for placed in self.placed.iter_mut().filter(|p| p.rows != ELSEWHERE) {
            // A content without rows is in no pack. A number only becomes smaller.
            if let Some(&pack) = moved.get(placed.pack as usize) {
                placed.pack = pack as u32;
            }
        }
        let others = self.others.values_mut().flat_map(|c| &mut c.segments);
        others.for_each(|segment| segment.pack = moved[segment.pack as usize]);
    }

    /// Reserves memory for more contents.
    pub(super) fn reserve(&mut self, more: usize) {
        self.hashes.reserve(more);
        self.placed.reserve(more);
        self.sums.reserve(more);
        let hashes = &self.hashes;
        let of = |&number: &u32| prefix(&hashes[number as usize]);
        self.numbers.reserve(more, of);
    }
}

impl PartialEq for Contents {
    fn eq(&self, other: &Self) -> bool {
        let is_same = |(hash, content)| other.get(hash).is_some_and(|there| there == content);
        self.len() == other.len() && self.iter().all(is_same)
    }
}
