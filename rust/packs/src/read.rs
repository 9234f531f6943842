//! Reading of batches of rows.

use std::io;

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::{Checksums, PackFile};

/// Where the rows of a pack are in its file.
#[derive(Clone, Copy)]
pub struct Layout {
    /// Position of the first row.
    pub start: u64,
    /// Size of a row.
    pub row_bytes: usize,
}

impl Layout {
    /// Position of a row.
    pub(crate) fn offset(self, number: usize) -> u64 {
        self.start + number as u64 * self.row_bytes as u64
    }
}

/// A row to read: its pack and its number there.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// The file of its pack.
    pub file: &'a PackFile,
    /// The checksums of its pack.
    pub checksums: &'a Checksums,
    /// Its index in the pack.
    pub number: usize,
}

/// How values are stored.
#[derive(Clone, Copy)]
pub enum Stored {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
}

/// Mean and reciprocal standard deviation of each channel.
#[derive(Clone, Copy)]
pub struct Normalization<'a> {
    /// Means, one a channel.
    pub mean: &'a [f32],
    /// Reciprocal standard deviations.
    pub scale: &'a [f32],
}

/// Why a row could not be had.
#[derive(Debug)]
pub enum Fault {
    /// The file cannot be read.
    Io(io::Error),
    /// The file ends before the end of the row.
    Short,
    /// The row is not the one that its checksum is of.
    Mismatch,
}

/// Reads rows as they are stored; `out` has room for as many rows.
///
/// # Errors
///
/// The fault of a row, with its place in `rows`.
pub fn read_stored(rows: &[Row], layout: Layout, out: &mut [u8]) -> Result<(), (usize, Fault)> {
    let places = out.chunks_exact_mut(layout.row_bytes).collect();
    read_all(rows, layout, places, |row, to| fetch(row, layout, to))
}

/// Reads rows as 32-bit floats, normalised if `normalization` is given. Each row goes
/// to its place.
///
/// # Errors
///
/// The fault of a row, with its place in `rows`.
pub fn read_floats(
    rows: &[Row],
    layout: Layout,
    stored: Stored,
    normalization: Option<Normalization>,
    places: Vec<&mut [f32]>,
) -> Result<(), (usize, Fault)> {
    let mut scratch = Vec::new();
    read_all(rows, layout, places, |row, to| {
        match stored {
            Stored::F32 => fetch(row, layout, bytemuck::cast_slice_mut(to))?,
            Stored::F16 => {
                scratch.resize(to.len(), f16::ZERO);
                fetch(row, layout, bytemuck::cast_slice_mut(&mut scratch))?;
                scratch.convert_to_f32_slice(to);
            }
        }
        if let Some(normalization) = normalization {
            normalize(to, normalization);
        }
        Ok(())
    })
}

fn fetch(row: &Row, layout: Layout, to: &mut [u8]) -> Result<(), Fault> {
    let offset = layout.offset(row.number);
    if row.file.read_at(to, offset).map_err(Fault::Io)? < to.len() {
        return Err(Fault::Short);
    }
    match row.checksums.match_once(row.number, to) {
        true => Ok(()),
        false => Err(Fault::Mismatch),
    }
}

fn normalize(row: &mut [f32], normalization: Normalization) {
    let Normalization { mean, scale } = normalization;
    let values = (row.len() / mean.len().max(1)).max(1);
    for (channel, (&mean, &scale)) in row.chunks_exact_mut(values).zip(mean.iter().zip(scale)) {
        for value in channel {
            *value = (*value - mean) * scale;
        }
    }
}

/// Announces all rows, then reads each into its place with `read`.
///
/// In one thread: where the cores are busy with training, a batch would wait for the
/// last of several to be scheduled.
fn read_all<T>(
    rows: &[Row],
    layout: Layout,
    places: Vec<&mut [T]>,
    mut read: impl FnMut(&Row, &mut [T]) -> Result<(), Fault>,
) -> Result<(), (usize, Fault)> {
    announce(rows, layout);
    for (place, (row, to)) in rows.iter().zip(places).enumerate() {
        read(row, to).map_err(|fault| (place, fault))?;
    }
    Ok(())
}

/// Lets the system read the rows, in the order in which they are stored. Neighbours
/// are announced together.
fn announce(rows: &[Row], layout: Layout) {
    let mut order: Vec<&Row> = rows.iter().collect();
    order.sort_by_key(|row| (std::ptr::from_ref(row.file).addr(), row.number));
    let is_next = |one: &&Row, other: &&Row| {
        std::ptr::eq(one.file, other.file) && other.number - one.number <= 1
    };
    for run in order.chunk_by(is_next) {
        let (first, last) = (run[0].number, run[run.len() - 1].number);
        let length = (last + 1 - first) as u64 * layout.row_bytes as u64;
        run[0].file.will_need(layout.offset(first), length);
    }
}
