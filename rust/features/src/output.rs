//! Where the frames of clips go, and how they are shared among threads.

use std::ops::Range;

/// Consecutive frames of a clip, and the memory for their features.
pub(crate) struct Part<'a> {
    pub(crate) clip: &'a [f32],
    /// The first frame that is not computed yet.
    pub(crate) next: usize,
    /// The frame after the last.
    pub(crate) end: usize,
    rows: Rows<'a>,
}

/// A row for each channel and band.
enum Rows<'a> {
    /// All frames of a clip.
    Whole(&'a mut [f32]),
    /// The frames from this one on.
    Cut(usize, Vec<&'a mut [f32]>),
}

impl<'a> Part<'a> {
    fn whole(clip: &'a [f32], out: &'a mut [f32], frames: usize) -> Self {
        Part {
            clip,
            next: 0,
            end: frames,
            rows: Rows::Whole(out),
        }
    }

    /// Calls `store` with `count` values of each row in `rows`, from frame `first` on.
    #[inline(always)]
    pub(crate) fn store(
        &mut self,
        rows: Range<usize>,
        first: usize,
        count: usize,
        mut store: impl FnMut(usize, &mut [f32]),
    ) {
        let end = self.end;
        match &mut self.rows {
            Rows::Whole(out) => {
                let out = &mut out[rows.start * end..rows.end * end];
                for (row, out) in rows.zip(out.chunks_exact_mut(end)) {
                    store(row, &mut out[first..first + count]);
                }
            }
            Rows::Cut(start, out) => {
                let first = first - *start;
                for (row, out) in rows.clone().zip(&mut out[rows]) {
                    store(row, &mut out[first..first + count]);
                }
            }
        }
    }

    /// Splits off the first `count` frames.
    fn split(self, count: usize) -> (Self, Self) {
        let (begin, end) = (self.next, self.end);
        let rows: Vec<&mut [f32]> = match self.rows {
            Rows::Whole(out) => out.chunks_exact_mut(end).collect(),
            Rows::Cut(_, rows) => rows,
        };
        let (first, second) = rows.into_iter().map(|row| row.split_at_mut(count)).unzip();
        let part = |begin, end, rows| Part {
            clip: self.clip,
            next: begin,
            end,
            rows: Rows::Cut(begin, rows),
        };
        (
            part(begin, begin + count, first),
            part(begin + count, end, second),
        )
    }
}

/// Copies fewer than 16 values. A call of memcpy would take longer.
#[inline(always)]
pub(crate) fn copy_few(mut from: &[f32], mut to: &mut [f32]) {
    for count in [8, 4, 2, 1] {
        if let Some((head, rest)) = from.split_at_checked(count) {
            let (start, others) = to.split_at_mut(count);
            start.copy_from_slice(head);
            (from, to) = (rest, others);
        }
    }
}

/// Divides the frames of clips into shares of `size` frames. A clip may be cut.
pub(crate) struct Shares<'a, C> {
    /// Clips with their features.
    clips: C,
    /// The rest of a clip that was cut.
    rest: Option<Part<'a>>,
    frames: usize,
    size: usize,
}

impl<'a, C: Iterator<Item = (&'a [f32], &'a mut [f32])>> Shares<'a, C> {
    /// Shares of clips of `frames` frames each; `size` is at least 1.
    pub(crate) fn new(clips: C, frames: usize, size: usize) -> Self {
        Shares {
            clips,
            rest: None,
            frames,
            size,
        }
    }
}

impl<'a, C: Iterator<Item = (&'a [f32], &'a mut [f32])>> Iterator for Shares<'a, C> {
    type Item = Vec<Part<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut share = Vec::new();
        let mut missing = self.size;
        while missing > 0 {
            let whole = |(clip, out)| Part::whole(clip, out, self.frames);
            let Some(mut part) = self.rest.take().or_else(|| self.clips.next().map(whole)) else {
                break;
            };
            if part.end - part.next > missing {
                let (first, rest) = part.split(missing);
                (part, self.rest) = (first, Some(rest));
            }
            missing -= part.end - part.next;
            share.push(part);
        }
        (!share.is_empty()).then_some(share)
    }
}
