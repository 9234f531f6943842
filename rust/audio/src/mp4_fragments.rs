//! The packets of a fragmented MP4 file, which lists them piece by piece.

use std::collections::VecDeque;

use crate::fault::Fault;
use crate::mp4::{atom_at, bytes_of, Atom};
use crate::mp4_table::field;
use crate::packets::Place;
use crate::window::Window;

/// Packets in one fragment, at most.
const MOST_PACKETS: usize = 1 << 20;

/// Reads the fragments of a track, one after the other.
pub(crate) struct Fragments {
    track: u32,
    /// Size of packets whose size is not stated.
    default_size: u32,
    are_any: bool,
    /// Where the next box of the file is.
    offset: u64,
    packets: VecDeque<Place>,
}

impl Fragments {
    /// `defaults` are the `trex` boxes, None in a file without fragments.
    pub(crate) fn new(defaults: &Option<Vec<Vec<u8>>>, track: u32, offset: u64) -> Self {
        let own = defaults
            .iter()
            .flatten()
            .find(|defaults| field(defaults, 4) == track);
        Self {
            track,
            default_size: own.map_or(0, |defaults| field(defaults, 16)),
            are_any: defaults.is_some(),
            offset,
            packets: VecDeque::new(),
        }
    }

    pub(crate) fn are_any(&self) -> bool {
        self.are_any
    }

    pub(crate) fn next(&mut self, window: &mut Window) -> Result<Option<Place>, Fault> {
        while self.are_any && self.packets.is_empty() {
            let size = window.size();
            let Some(atom) = atom_at(window, self.offset, size)? else {
                return Ok(None);
            };
            self.offset = atom.end;
            if &atom.kind == b"moof" {
                self.read(window, atom)?;
            }
        }
        Ok(self.packets.pop_front())
    }

    fn read(&mut self, window: &mut Window, fragment: Atom) -> Result<(), Fault> {
        let mut offset = fragment.start;
        while let Some(atom) = atom_at(window, offset, fragment.end)? {
            offset = atom.end;
            if &atom.kind == b"traf" {
                self.read_track(window, atom, fragment.head)?;
            }
        }
        Ok(())
    }

    fn read_track(&mut self, window: &mut Window, track: Atom, base: u64) -> Result<(), Fault> {
        let (mut base, mut size) = (base, self.default_size);
        let mut next = base;
        let mut offset = track.start;
        while let Some(atom) = atom_at(window, offset, track.end)? {
            offset = atom.end;
            if &atom.kind == b"tfhd" {
                let header = bytes_of(window, atom)?;
                if field(&header, 4) != self.track {
                    return Ok(());
                }
                let flags = field(&header, 0);
                let mut at = 8;
                if flags & 1 != 0 {
                    base = u64::from(field(&header, at)) << 32 | u64::from(field(&header, at + 4));
                    at += 8;
                }
                at += if flags & 2 != 0 { 4 } else { 0 };
                at += if flags & 8 != 0 { 4 } else { 0 };
                if flags & 0x10 != 0 {
                    size = field(&header, at);
                }
                next = base;
            } else if &atom.kind == b"trun" {
                let run = bytes_of(window, atom)?;
                next = self.read_run(&run, base, next, size)?;
            }
        }
        Ok(())
    }

    /// Adds the packets of a run, and returns where the last one ends.
    fn read_run(&mut self, run: &[u8], base: u64, next: u64, size: u32) -> Result<u64, Fault> {
        let flags = field(run, 0);
        let count = field(run, 4) as usize;
        let mut offset = next;
        let mut at = 8;
        if flags & 1 != 0 {
            offset = base.saturating_add_signed(i64::from(field(run, at) as i32));
            at += 4;
        }
        at += if flags & 4 != 0 { 4 } else { 0 };
        let width = 4 * (flags >> 8 & 15).count_ones() as usize;
        let size_at = if flags & 0x100 != 0 { 4 } else { 0 };
        for _ in 0..count {
            if at + width > run.len() || self.packets.len() > MOST_PACKETS {
                return Err(Fault::damaged("damaged: a fragment's index is wrong"));
            }
            let length = match flags & 0x200 {
                0 => size,
                _ => field(run, at + size_at),
            };
            self.packets.push_back(Place { offset, length });
            offset = offset.saturating_add(u64::from(length));
            at += width;
        }
        Ok(offset)
    }
}
