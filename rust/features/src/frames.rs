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
pub(crate) const MAX_LANES: usize = 16;

/// Consecutive frames of a clip, in consecutive lanes.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    pub(crate) clip: &'a [f32],
    pub(crate) first: usize,
    pub(crate) count: usize,
}

/// A group of frames, one per lane. Each run of frames has hops of its own, those of
/// the next run follow in the same rows.
pub(crate) struct Frames {
    n_fft: usize,
    pub(crate) hop_length: usize,
    /// Samples of the first frame that lie before the clip.
    padding: usize,
    /// Number of hops that a run spans beyond the number of its frames.
    extra: usize,
    /// Number of hops in a row.
    columns: usize,
    /// The samples of a group of several runs, or of one that extends beyond its clip.
    padded: Vec<f32>,
    /// The transposed hops: a row for each sample in a hop.
    hops: Vec<f32>,
    /// Indices in `hops` of each two samples of the first frame.
    places: Vec<[u32; 2]>,
    /// The first lane of each run.
    starts: Vec<usize>,
}

impl Frames {
    pub(crate) fn new(n_fft: usize, hop_length: usize, padding: usize, lanes: usize) -> Self {
        let mut frames = Frames {
            n_fft,
            hop_length,
            padding,
            extra: (n_fft - 1) / hop_length,
            columns: 0,
            padded: Vec::new(),
            hops: Vec::new(),
            places: Vec::new(),
            starts: Vec::with_capacity(lanes),
        };
        frames.reserve(lanes, 1);
        frames
    }

    /// Makes room for a group of `runs` runs.
    fn reserve(&mut self, lanes: usize, runs: usize) {
        let columns = lanes + runs * self.extra;
        if columns <= self.columns {
            return;
        }
        let hop_length = self.hop_length;
        let place = |sample| place(sample, hop_length, columns);
        self.columns = columns;
        self.hops = vec![0.0; hop_length.min(self.n_fft) * columns];
        self.places = (0..self.n_fft / 2)
            .map(|index| [place(2 * index), place(2 * index + 1)])
            .collect();
    }

    /// The samples that `run` spans. Beyond the ends of the clip they are its
    /// reflection. Frames after the last frame of the clip have arbitrary values.
    #[inline(always)]
    pub(crate) fn window<'a>(&'a mut self, run: Run<'a>) -> &'a [f32] {
        let (start, length) = (self.start(run), self.span(run));
        let inside = usize::try_from(start)
            .ok()
            .and_then(|start| run.clip.get(start..start + length));
        if let Some(inside) = inside {
            return inside;
        }
        self.padded.resize(self.padded.len().max(length), 0.0);
        copy_reflected(run.clip, start, &mut self.padded[..length]);
        &self.padded[..length]
    }

    fn start(&self, run: Run) -> isize {
        (run.first * self.hop_length) as isize - self.padding as isize
    }

    /// Number of samples from the first of a run to its last.
    fn span(&self, run: Run) -> usize {
        (run.count - 1) * self.hop_length + self.n_fft
    }

    /// The samples of several runs, each from the start of a hop on.
    fn windows<'a>(&'a mut self, runs: &[Run<'a>]) -> &'a [f32] {
        let hops: usize = runs.iter().map(|run| run.count + self.extra).sum();
        let length = hops * self.hop_length;
        // Taken, because `start` and `span` borrow `self`; put back below.
        let mut padded = std::mem::take(&mut self.padded);
        padded.resize(padded.len().max(length), 0.0);
        let mut place = 0;
        for &run in runs {
            copy_reflected(
                run.clip,
                self.start(run),
                &mut padded[place..][..self.span(run)],
            );
            place += (run.count + self.extra) * self.hop_length;
        }
        self.padded = padded;
        &self.padded[..length]
    }

    /// Transposes a group: runs of as many frames as there are lanes.
    #[inline(always)]
    pub(crate) fn transpose<S: Simd>(&mut self, simd: S, runs: &[Run]) {
        let lanes = S::f32s::LEN;
        self.reserve(lanes, runs.len());
        self.starts.clear();
        self.starts.extend(runs.iter().scan(0, |lane, run| {
            *lane += run.count;
            Some(*lane - run.count)
        }));
        // Taken, because `window` borrows `self`; put back below.
        let mut hops = std::mem::take(&mut self.hops);
        let (columns, hop_length) = (self.columns, self.hop_length);
        let used = lanes + runs.len() * self.extra;
        let rows = hop_length.min(self.n_fft);
        let whole = rows - rows % lanes;
        let samples = match *runs {
            [run] => self.window(run),
            _ => self.windows(runs),
        };
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
        for column in 0..used {
            let begin = if column < lanes { whole } else { 0 };
            let start = column * hop_length;
            let end = samples.len().min(start + rows);
            for (row, &sample) in (begin..).zip(&samples[start + begin..end]) {
                hops[row * columns + column] = sample;
            }
        }
        self.hops = hops;
    }

    /// Whether the frames of a group have hops in common with those of other runs.
    #[inline(always)]
    pub(crate) fn is_one_run(&self) -> bool {
        self.starts.len() == 1 || self.extra == 0
    }

    /// Which lanes belong to run `run` or to a later one; for each after the first run.
    #[inline(always)]
    pub(crate) fn later_runs<S: Simd>(&self, simd: S) -> Vec<S::mask32s> {
        let lanes = S::f32s::from_fn(simd, |lane| lane as f32);
        let mut later = Vec::with_capacity(self.starts.len());
        for &start in &self.starts[1..] {
            later.push(lanes.simd_ge(start as f32));
        }
        later
    }

    /// Samples `2 * index` and `2 * index + 1` of every frame of a group of one run.
    #[inline(always)]
    pub(crate) fn pair<S: Simd>(&self, simd: S, index: usize) -> [S::f32s; 2] {
        let [even, odd] = self.places[index];
        [self.column(simd, even), self.column(simd, odd)]
    }

    #[inline(always)]
    fn column<S: Simd>(&self, simd: S, place: u32) -> S::f32s {
        let place = place as usize;
        S::f32s::from_slice(simd, &self.hops[place..place + S::f32s::LEN])
    }

    /// The same of several runs, where `later` is [`Self::later_runs`].
    #[inline(always)]
    pub(crate) fn pair_of_runs<S: Simd>(
        &self,
        simd: S,
        index: usize,
        later: &[S::mask32s],
    ) -> [S::f32s; 2] {
        let mut values = self.pair(simd, index);
        let mut places = self.places[index];
        for mask in later {
            for (value, place) in values.iter_mut().zip(&mut places) {
                *place += self.extra as u32;
                *value = mask.select(self.column(simd, *place), *value);
            }
        }
        values
    }
}

/// Where the transposed hops have sample `sample` of the first frame.
fn place(sample: usize, hop_length: usize, columns: usize) -> u32 {
    (sample % hop_length * columns + sample / hop_length) as u32
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
        let columns = lanes + (n_fft - 1) / hop_length;
        let place = |sample| place(sample, hop_length, columns);
        OverlapAdd {
            hop_length,
            columns,
            sums: vec![0.0; hop_length * columns],
            places: (0..n_fft).map(place).collect(),
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

/// Copies samples from `start` on, of a clip that is extended by its reflection at
/// both ends, and by 0 beyond that, where there are no frames.
fn copy_reflected(clip: &[f32], start: isize, out: &mut [f32]) {
    let before = start.min(0).unsigned_abs();
    let begin = start.max(0).unsigned_abs().min(clip.len());
    let (reflection, out) = out.split_at_mut(before.min(out.len()));
    for (out, sample) in reflection.iter_mut().zip(clip[..=before].iter().rev()) {
        *out = *sample;
    }
    let (inside, out) = out.split_at_mut(out.len().min(clip.len() - begin));
    inside.copy_from_slice(&clip[begin..][..inside.len()]);
    let (reflection, beyond) = out.split_at_mut(out.len().min(clip.len() - 1));
    for (out, sample) in reflection.iter_mut().zip(clip.iter().rev().skip(1)) {
        *out = *sample;
    }
    beyond.fill(0.0);
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
