//! Sparse matrices that are multiplied with a vector for each row.

use fearless_simd::prelude::*;

use crate::Error;

/// A sparse matrix, row after row.
#[derive(Clone, Debug)]
pub struct Sparse {
    /// Column and weight of each non-zero entry.
    entries: Vec<(u32, f32)>,
    /// Start of each row in `entries`, then the end.
    offsets: Vec<u32>,
    columns: usize,
}

impl Sparse {
    /// A matrix with `columns` columns from the column and weight of each non-zero
    /// entry, row after row, and the start of each row, then the end.
    ///
    /// # Errors
    ///
    /// If the lengths do not match, or a column or offset is out of range.
    pub fn new(entries: Vec<(u32, f32)>, offsets: Vec<u32>, columns: usize) -> Result<Self, Error> {
        let ends_match = offsets.first() == Some(&0)
            && offsets.last().map(|&end| end as usize) == Some(entries.len());
        if !ends_match || !offsets.is_sorted() {
            return Err(Error::Invalid(format!(
                "the rows of a matrix must lie one after the other in its {} entries",
                entries.len()
            )));
        }
        if let Some((column, _)) = entries.iter().find(|entry| entry.0 as usize >= columns) {
            return Err(Error::Invalid(format!(
                "a matrix with {columns} columns has an entry in column {column}"
            )));
        }
        Ok(Sparse {
            entries,
            offsets,
            columns,
        })
    }

    /// Number of rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        [self.offsets.len() - 1, self.columns]
    }

    /// The product of a row with vectors, one for each column.
    #[inline(always)]
    pub(crate) fn times<S: Simd>(&self, simd: S, row: usize, right: &[S::f32s]) -> S::f32s {
        let (start, end) = (self.offsets[row] as usize, self.offsets[row + 1] as usize);
        let mut sum = S::f32s::splat(simd, 0.0);
        for &(column, weight) in &self.entries[start..end] {
            sum = right[column as usize].mul_add(S::f32s::splat(simd, weight), sum);
        }
        sum
    }
}
