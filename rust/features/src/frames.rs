//! Frames of a clip, transposed so that one sample of all frames of a group is
//! one vector.
//!
//! Because frames overlap, hops are transposed instead of frames: a hop is the
//! samples from the start of one frame to the start of the next. By default this
//! is four times less work. Sample `n` of frame `f` is sample `n % hop` of hop
//! `f + n / hop`:
//!
//! ```text
//! clip     | hop 0 | hop 1 | hop 2 | hop 3 | hop 4 | hop 5 | hop 6 |
//! frame 0  |-------------------------------|
//! frame 1          |-------------------------------|
//!
//! row r of `hops`:  sample r of hop 0, of hop 1, of hop 2, ...
//! ```

use fearless_simd::prelude::*;

/// Number of lanes of the widest vector.
const MAX_LANES: usize = 16;

/// A group of frames, one per lane.
pub(crate) struct Frames {
    n_fft: usize,
    pub(crate) hop_length: usize,
    /// Samples of the first frame that lie before the clip.
    padding: usize,
    /// Number of hops that the group spans.
    columns: usize,
    /// The samples of a group that extends beyond the clip.
    padded: Vec<f32>,
    /// The transposed hops: a row for each sample in a hop.
    hops: Vec<f32>,
    /// Index in `hops` of each sample of the first frame.
    places: Vec<u32>,
}

impl Frames {
    pub(crate) fn new(n_fft: usize, hop_length: usize, padding: usize, lanes: usize) -> Self {
        let columns = lanes + (n_fft - 1) / hop_length;
        let place = |sample| (sample % hop_length * columns + sample / hop_length) as u32;
        Frames {
            n_fft,
            hop_length,
            padding,
            columns,
            padded: vec![0.0; (lanes - 1) * hop_length + n_fft],
            hops: vec![0.0; hop_length.min(n_fft) * columns],
            places: (0..n_fft).map(place).collect(),
        }
    }

    /// The samples of the group whose first frame is `first`. Beyond the ends of
    /// the clip they are its reflection. Frames after the last frame of the clip
    /// have arbitrary values.
    #[inline(always)]
    pub(crate) fn window<'a>(&'a mut self, clip: &'a [f32], first: usize) -> &'a [f32] {
        let start = (first * self.hop_length) as isize - self.padding as isize;
        let length = self.padded.len();
        let inside = usize::try_from(start)
            .ok()
            .and_then(|start| clip.get(start..start + length));
        if let Some(inside) = inside {
            return inside;
        }
        let before = start.min(0).unsigned_abs().min(length);
        let begin = start.max(0).unsigned_abs().min(clip.len());
        let copied = (length - before).min(clip.len() - begin);
        for (index, sample) in (start..).zip(&mut self.padded[..before]) {
            *sample = reflected(clip, index);
        }
        self.padded[before..before + copied].copy_from_slice(&clip[begin..begin + copied]);
        let after = (clip.len() as isize..).zip(&mut self.padded[before + copied..]);
        for (index, sample) in after {
            *sample = reflected(clip, index);
        }
        &self.padded
    }

    /// Transposes the group whose first frame is `first`.
    #[inline(always)]
    pub(crate) fn transpose<S: Simd>(&mut self, simd: S, clip: &[f32], first: usize) {
        // Taken, because `window` borrows `self`; put back below.
        let mut hops = std::mem::take(&mut self.hops);
        let (columns, hop_length) = (self.columns, self.hop_length);
        let rows = hop_length.min(self.n_fft);
        let whole = rows - rows % S::f32s::LEN;
        let lanes = S::f32s::LEN;
        let samples = self.window(clip, first);
        for row in (0..whole).step_by(lanes) {
            let mut square = [S::f32s::splat(simd, 0.0); MAX_LANES];
            for (column, vector) in square[..lanes].iter_mut().enumerate() {
                let start = column * hop_length + row;
                *vector = S::f32s::from_slice(simd, &samples[start..start + lanes]);
            }
            let square = transposed(simd, square);
            for (row, vector) in (row..).zip(&square[..lanes]) {
                let start = row * columns;
                vector.store_slice(&mut hops[start..start + lanes]);
            }
        }
        // The hops after the first `lanes`, and the rows that do not fill a square.
        for column in 0..columns {
            let begin = if column < lanes { whole } else { 0 };
            let start = column * hop_length;
            let end = samples.len().min(start + rows);
            for (row, &sample) in (begin..).zip(&samples[start + begin..end]) {
                hops[row * columns + column] = sample;
            }
        }
        self.hops = hops;
    }

    /// Sample `index` of every frame.
    #[inline(always)]
    pub(crate) fn sample<S: Simd>(&self, simd: S, index: usize) -> S::f32s {
        let place = self.places[index] as usize;
        S::f32s::from_slice(simd, &self.hops[place..][..S::f32s::LEN])
    }
}

/// Sums of overlapping frames, transposed like [`Frames`].
pub(crate) struct OverlapAdd {
    hop_length: usize,
    columns: usize,
    sums: Vec<f32>,
    places: Vec<u32>,
}

impl OverlapAdd {
    /// For frames that are at most `n_fft` samples apart.
    pub(crate) fn new(n_fft: usize, hop_length: usize, lanes: usize) -> Self {
        let Frames {
            columns,
            hops,
            places,
            ..
        } = Frames::new(n_fft, hop_length, 0, lanes);
        OverlapAdd {
            hop_length,
            columns,
            sums: hops,
            places,
        }
    }

    /// Number of samples that a group spans, rounded up to whole hops.
    pub(crate) fn span(&self) -> usize {
        self.columns * self.hop_length
    }

    /// Adds `values` to sample `index` of every frame.
    #[inline(always)]
    pub(crate) fn add<S: Simd>(&mut self, simd: S, index: usize, values: S::f32s) {
        let place = self.places[index] as usize;
        let sums = &mut self.sums[place..][..S::f32s::LEN];
        (S::f32s::from_slice(simd, sums) + values).store_slice(sums);
    }

    /// Adds the sums to `out`, which begins with the first frame, and clears them.
    #[inline(always)]
    pub(crate) fn finish<S: Simd>(&mut self, simd: S, out: &mut [f32]) {
        let (columns, lanes) = (self.columns, S::f32s::LEN);
        let whole = self.hop_length - self.hop_length % lanes;
        for row in (0..whole).step_by(lanes) {
            let mut square = [S::f32s::splat(simd, 0.0); MAX_LANES];
            for (index, vector) in square[..lanes].iter_mut().enumerate() {
                let start = (row + index) * columns;
                *vector = S::f32s::from_slice(simd, &self.sums[start..start + lanes]);
            }
            let square = transposed(simd, square);
            for (column, vector) in square[..lanes].iter().enumerate() {
                let start = column * self.hop_length + row;
                let out = &mut out[start..start + lanes];
                (S::f32s::from_slice(simd, out) + *vector).store_slice(out);
            }
        }
        // The hops after the first `lanes`, and the rows that do not fill a square.
        for (column, out) in out[..self.span()]
            .chunks_exact_mut(self.hop_length)
            .enumerate()
        {
            let begin = if column < lanes { whole } else { 0 };
            for (row, out) in out.iter_mut().enumerate().skip(begin) {
                *out += self.sums[row * columns + column];
            }
        }
        self.sums.fill(0.0);
    }
}

/// Sample `index` of a clip that is extended by its reflection at both ends, and
/// by 0 beyond that, where there are no frames.
fn reflected(clip: &[f32], index: isize) -> f32 {
    let last = clip.len() as isize - 1;
    let index = index.abs().min((2 * last - index).max(-1));
    let sample = usize::try_from(index)
        .ok()
        .and_then(|index| clip.get(index));
    sample.copied().unwrap_or(0.0)
}

/// Transposes the first vectors, as many as a vector has lanes, by repeated
/// perfect shuffles of the two halves.
#[inline(always)]
fn transposed<S: Simd>(_: S, mut square: [S::f32s; MAX_LANES]) -> [S::f32s; MAX_LANES] {
    let half = S::f32s::LEN / 2;
    for _ in 0..S::f32s::LEN.trailing_zeros() {
        let before = square;
        for i in 0..half {
            square[2 * i] = before[i].zip_low(before[i + half]);
            square[2 * i + 1] = before[i].zip_high(before[i + half]);
        }
    }
    square
}
