//! The files that were found, column by column: a million files take 80 MB.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::paths::Paths;
use crate::skip_reason::SkipReason;
use crate::stat::StatKey;

/// A file that was found. It has not been opened yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    pub(crate) path: &'a [u8],
    pub(crate) key: StatKey,
    /// It is a symbolic link that may be followed.
    pub(crate) linked: bool,
    /// Why it cannot be used, whatever its content.
    pub(crate) unusable: Option<&'static SkipReason>,
}

/// Number of files of a block.
const BLOCK_FILES: usize = 2048;

/// The files that one thread found, folder by folder.
#[derive(Debug, Default)]
pub(crate) struct FoundList {
    /// In blocks: one long list would take up to twice its memory while it grows.
    blocks: Vec<Block>,
    len: usize,
    unusable: BTreeMap<usize, &'static SkipReason>,
    /// The numbers of the files, those of each folder sorted by path.
    order: Vec<u32>,
    /// Where the files of each folder are in `order`.
    folders: Vec<Range<usize>>,
}

#[derive(Debug, Default)]
struct Block {
    paths: Paths,
    keys: Vec<StatKey>,
    linked: Vec<bool>,
}

impl FoundList {
    fn get(&self, index: usize) -> Found<'_> {
        let (block, number) = (&self.blocks[index / BLOCK_FILES], index % BLOCK_FILES);
        Found {
            path: block.paths.get(number),
            key: block.keys[number],
            linked: block.linked[number],
            unusable: self.unusable.get(&index).copied(),
        }
    }

    fn path(&self, index: usize) -> &[u8] {
        let block = &self.blocks[index / BLOCK_FILES];
        block.paths.get(index % BLOCK_FILES)
    }

    pub(crate) fn push(&mut self, file: Found) {
        if let Some(reason) = file.unusable {
            self.unusable.insert(self.len, reason);
        }
        if self.len == self.blocks.len() * BLOCK_FILES {
            self.blocks.push(Block::default());
        }
        if let Some(block) = self.blocks.last_mut() {
            block.paths.push(file.path);
            block.keys.push(file.key);
            block.linked.push(file.linked);
        }
        self.len += 1;
    }

    /// Sorts the files found since the last call: each thread sorts its own.
    pub(crate) fn end_folder(&mut self) {
        let first = self.order.len();
        self.order.extend(first as u32..self.len as u32);
        let mut new = self.order.split_off(first);
        new.sort_unstable_by(|&a, &b| self.path(a as usize).cmp(self.path(b as usize)));
        self.order.append(&mut new);
        if first < self.order.len() {
            self.folders.push(first..self.order.len());
        }
    }

    /// Forgets the files found since the last call of `end_folder`.
    pub(crate) fn abandon_folder(&mut self) {
        self.len = self.order.len();
        self.blocks.truncate(self.len.div_ceil(BLOCK_FILES));
        if let Some(block) = self.blocks.last_mut() {
            let count = self.len - (self.len - 1) / BLOCK_FILES * BLOCK_FILES;
            block.paths.truncate(count);
            block.keys.truncate(count);
            block.linked.truncate(count);
        }
        self.unusable.split_off(&self.len);
    }
}

/// All files that were found, sorted by path.
#[derive(Debug, Default)]
pub(crate) struct FoundFiles {
    lists: Vec<FoundList>,
    /// The list of each file, and its number there.
    order: Vec<(u32, u32)>,
}

impl FoundFiles {
    pub(crate) fn sorted(mut lists: Vec<FoundList>) -> Self {
        let mut folders: Vec<(u32, Range<usize>)> = Vec::new();
        for (number, list) in (0..).zip(&mut lists) {
            let ranges = std::mem::take(&mut list.folders);
            folders.extend(ranges.into_iter().map(|range| (number, range)));
        }
        let path = |&(list, number): &(u32, u32)| lists[list as usize].path(number as usize);
        let first = |(list, range): &(u32, Range<usize>)| {
            path(&(*list, lists[*list as usize].order[range.start]))
        };
        folders.sort_by(|a, b| first(a).cmp(first(b)));
        let mut order = Vec::with_capacity(lists.iter().map(|list| list.order.len()).sum());
        for (list, range) in folders {
            let numbers = lists[list as usize].order[range].iter();
            order.extend(numbers.map(|&number| (list, number)));
        }
        // Nearly sorted already, except where files and folders have the same
        // parent: the stable sort takes advantage of that.
        order.sort_by(|a, b| path(a).cmp(path(b)));
        // readdir may return an entry twice if the folder changes meanwhile.
        order.dedup_by(|a, b| path(a) == path(b));
        lists.iter_mut().for_each(|list| list.order = Vec::new());
        FoundFiles { lists, order }
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    pub(crate) fn get(&self, index: usize) -> Found<'_> {
        let (list, number) = self.order[index];
        self.lists[list as usize].get(number as usize)
    }

    /// Replaces the key of a file that was read meanwhile.
    pub(crate) fn set_key(&mut self, index: usize, key: StatKey) {
        let (list, number) = self.order[index];
        let number = number as usize;
        let blocks = &mut self.lists[list as usize].blocks;
        blocks[number / BLOCK_FILES].keys[number % BLOCK_FILES] = key;
    }
}
