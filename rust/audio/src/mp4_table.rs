//! The tables that say where the packets of a track are.

use crate::packets::Place;

/// Returns the 32-bit number at `at`; 0 behind the end.
pub(crate) fn field(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u32::from_be_bytes)
}

/// The tables as they are in the file, and the position in them.
pub(crate) struct SampleTable {
    sizes: Vec<u8>,
    /// Runs of chunks: first chunk, packets in each.
    runs: Vec<u8>,
    durations: Vec<u8>,
    offsets: Vec<u8>,
    is_long: bool,
    packet: usize,
    chunk: usize,
    run: usize,
    left_in_chunk: u32,
    offset: u64,
}

impl SampleTable {
    /// Takes the contents of `stsz`, `stsc`, `stts`, and of `stco` or `co64`.
    pub(crate) fn new(
        sizes: Vec<u8>,
        runs: Vec<u8>,
        durations: Vec<u8>,
        offsets: Vec<u8>,
        is_long: bool,
    ) -> Self {
        Self {
            sizes,
            runs,
            durations,
            offsets,
            is_long,
            packet: 0,
            chunk: 0,
            run: 0,
            left_in_chunk: 0,
            offset: 0,
        }
    }

    fn size(&self, packet: usize) -> Option<u32> {
        if packet >= field(&self.sizes, 8) as usize {
            return None;
        }
        match field(&self.sizes, 4) {
            0 => {
                let at = 12 + packet * 4;
                (at + 4 <= self.sizes.len()).then(|| field(&self.sizes, at))
            }
            constant => Some(constant),
        }
    }

    /// Moves to the next chunk with packets; None behind the last one.
    fn next_chunk(&mut self) -> Option<()> {
        while self.left_in_chunk == 0 {
            let width = if self.is_long { 8 } else { 4 };
            let at = 8 + self.chunk * width;
            self.offsets.get(at..at + width)?;
            let low = u64::from(field(&self.offsets, at));
            self.offset = match self.is_long {
                true => low << 32 | u64::from(field(&self.offsets, at + 4)),
                false => low,
            };
            self.chunk += 1;
            // The run of this chunk is the last one that begins at or before it.
            while 8 + (self.run + 2) * 12 <= self.runs.len()
                && field(&self.runs, 8 + (self.run + 1) * 12) as usize <= self.chunk
            {
                self.run += 1;
            }
            self.left_in_chunk = field(&self.runs, 8 + self.run * 12 + 4);
        }
        Some(())
    }

    pub(crate) fn next(&mut self) -> Option<Place> {
        let length = self.size(self.packet)?;
        self.next_chunk()?;
        let offset = self.offset;
        self.packet += 1;
        self.left_in_chunk -= 1;
        self.offset = self.offset.saturating_add(u64::from(length));
        Some(Place { offset, length })
    }

    fn count(&self) -> u64 {
        u64::from(field(&self.sizes, 8))
    }

    /// Runs of packets of the same duration: how many, and how long.
    fn durations(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let runs = self.durations.get(8..).unwrap_or_default();
        runs.chunks_exact(8)
            .map(|run| (u64::from(field(run, 0)), u64::from(field(run, 4))))
    }

    /// Number of packets that begin before a time.
    pub(crate) fn packets_before(&self, end: u64) -> u64 {
        match end {
            u64::MAX => self.count(),
            _ => self.before(end).0.min(self.count()),
        }
    }

    /// Duration of the packets that begin before a time.
    pub(crate) fn duration_before(&self, end: u64) -> u64 {
        self.before(end).1
    }

    fn before(&self, end: u64) -> (u64, u64) {
        let (mut packets, mut time) = (0_u64, 0_u64);
        for (count, duration) in self.durations() {
            let left = end.saturating_sub(time);
            let fits = if left == 0 {
                0
            } else {
                left.div_ceil(duration.max(1)).min(count)
            };
            packets += fits;
            time = time.saturating_add(fits.saturating_mul(duration));
            if fits < count {
                break;
            }
        }
        (packets, time)
    }
}
