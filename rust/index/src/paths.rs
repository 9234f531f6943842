//! A list of paths in one allocation: a million boxes would take twice the memory.

/// A list of paths, as bytes relative to the dataset's root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    bytes: Vec<u8>,
    /// The end of each path in `bytes`.
    ends: Vec<usize>,
}

impl Paths {
    /// The paths of these lengths, which follow each other in `bytes`. `None` if they are not all of it.
    pub(crate) fn from_lengths(bytes: Vec<u8>, lengths: &[u32]) -> Option<Self> {
        let mut end = 0_usize;
        let mut ends = Vec::with_capacity(lengths.len());
        for &length in lengths {
            end = end.checked_add(length as usize)?;
            ends.push(end);
        }
        (end == bytes.len()).then_some(Paths { bytes, ends })
    }

    /// Whether each path is greater than the one before.
    pub(crate) fn is_sorted(&self) -> bool {
        self.iter().is_sorted_by(|a, b| a < b)
    }

    /// Number of paths.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The path with this number.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub fn get(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[index]]
    }

    /// The paths, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.get(index))
    }

    pub(crate) fn push(&mut self, path: &[u8]) {
        self.bytes.extend_from_slice(path);
        self.ends.push(self.bytes.len());
    }

    pub(crate) fn last(&self) -> Option<&[u8]> {
        Some(self.get(self.len().checked_sub(1)?))
    }

    pub(crate) fn truncate(&mut self, count: usize) {
        self.ends.truncate(count);
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
    }

    pub(crate) fn shrink_to_fit(&mut self) {
        self.bytes.shrink_to_fit();
        self.ends.shrink_to_fit();
    }
}

impl<'a> FromIterator<&'a [u8]> for Paths {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(paths: I) -> Self {
        let mut list = Paths::default();
        paths.into_iter().for_each(|path| list.push(path));
        list
    }
}
