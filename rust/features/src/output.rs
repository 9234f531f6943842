//! Where the frames of clips go, and how they are shared among threads.

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

    /// The values of a row from frame `first` on.
    #[inline(always)]
    pub(crate) fn row(&mut self, row: usize, first: usize) -> &mut [f32] {
        match &mut self.rows {
            Rows::Whole(out) => &mut out[row * self.end + first..(row + 1) * self.end],
            Rows::Cut(start, rows) => &mut rows[row][first - *start..],
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
