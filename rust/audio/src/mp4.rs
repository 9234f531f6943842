//! MP4 and QuickTime: the first track with sound.

use crate::fault::Fault;
use crate::mp4_config::coding;
use crate::mp4_fragments::Fragments;
use crate::mp4_table::{field, SampleTable};
use crate::packets::{Coding, Packets, Place, Places, Trim};
use crate::window::Window;

/// No table of a file that can be decoded is longer: 16 million packets.
const LONGEST_TABLE: u64 = 64 << 20;
/// Boxes are not nested any deeper.
const DEEPEST: usize = 8;

/// A box: its kind, and where its content is.
#[derive(Clone, Copy)]
pub(crate) struct Atom {
    pub(crate) kind: [u8; 4],
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Where the box itself begins.
    pub(crate) head: u64,
}

/// Returns the box at `offset`, which ends at `end` at the latest.
pub(crate) fn atom_at(window: &mut Window, head: u64, end: u64) -> Result<Option<Atom>, Fault> {
    let Some([a, b, c, d, kind @ ..]) = window.array::<8>(head)? else {
        return Ok(None);
    };
    if head + 8 > end {
        return Ok(None);
    }
    let (length, start) = match u32::from_be_bytes([a, b, c, d]) {
        0 => (end - head, head + 8),
        1 => {
            let long = window.array::<8>(head + 8)?.map(u64::from_be_bytes);
            (long.unwrap_or(0), head + 16)
        }
        short => (u64::from(short), head + 8),
    };
    let stop = head.saturating_add(length);
    if stop < start {
        return Ok(None);
    }
    let end = stop.min(end);
    Ok(Some(Atom {
        kind,
        start: start.min(end),
        end,
        head,
    }))
}

/// Returns the boxes directly inside a range of the file.
fn atoms(window: &mut Window, start: u64, end: u64) -> Result<Vec<Atom>, Fault> {
    const MOST: usize = 1 << 16;
    let (mut found, mut offset) = (Vec::new(), start);
    while let Some(atom) = atom_at(window, offset, end)? {
        offset = atom.end;
        found.push(atom);
        if found.len() > MOST {
            return Err(Fault::damaged("damaged: it has too many boxes"));
        }
    }
    Ok(found)
}

/// Returns the first box at a path of kinds.
fn find(window: &mut Window, from: Atom, path: &[&[u8; 4]]) -> Result<Option<Atom>, Fault> {
    let mut atom = from;
    for kind in path.iter().take(DEEPEST) {
        let inside = atoms(window, atom.start, atom.end)?;
        match inside.into_iter().find(|inner| &inner.kind == *kind) {
            Some(inner) => atom = inner,
            None => return Ok(None),
        }
    }
    Ok(Some(atom))
}

/// Returns the content of the box at a path, or nothing if there is none.
fn content(window: &mut Window, from: Atom, path: &[&[u8; 4]]) -> Result<Vec<u8>, Fault> {
    let Some(atom) = find(window, from, path)? else {
        return Ok(Vec::new());
    };
    bytes_of(window, atom)
}

pub(crate) fn bytes_of(window: &mut Window, atom: Atom) -> Result<Vec<u8>, Fault> {
    let length = atom.end - atom.start;
    if length > LONGEST_TABLE {
        return Err(Fault::damaged("damaged: its header is too long"));
    }
    Ok(window.get(atom.start, length as usize)?.to_vec())
}

pub(crate) fn open(mut window: Window) -> Result<Packets, Fault> {
    let size = window.size();
    let mut offset = 0;
    let mut movie = None;
    while let Some(atom) = atom_at(&mut window, offset, size)? {
        if &atom.kind == b"moov" {
            movie = Some(atom);
            break;
        }
        if offset == 0 && !atom.kind.iter().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(Fault::NotForMe);
        }
        offset = atom.end;
    }
    let Some(movie) = movie else {
        let text = "cut short: it has no index (moov), as a recording that was not finished";
        return Err(Fault::cut_short(text));
    };
    let Some(track) = sound_track(&mut window, movie)? else {
        return Err(Fault::not_decodable("holds no sound"));
    };
    let stbl: [&[u8; 4]; 3] = [b"mdia", b"minf", b"stbl"];
    let Some(table) = find(&mut window, track, &stbl)? else {
        return Err(Fault::damaged("damaged: its index is incomplete"));
    };
    let coding = coding(&content(&mut window, table, &[b"stsd"])?)?;
    let samples = read_table(&mut window, table)?;
    let id = content(&mut window, track, &[b"tkhd"])?;
    let id = field(&id, if id.first() == Some(&1) { 20 } else { 12 });
    let fragments = Fragments::new(&content_of_all(&mut window, movie)?, id, offset);
    let trim = trim(&mut window, movie, track, &samples, &coding, &fragments)?;
    let places = Both { samples, fragments };
    Packets::open(window, Box::new(places), coding, trim)
}

/// The defaults of fragments (`trex`), one after the other.
fn content_of_all(window: &mut Window, movie: Atom) -> Result<Option<Vec<Vec<u8>>>, Fault> {
    let Some(extends) = find(window, movie, &[b"mvex"])? else {
        return Ok(None);
    };
    let mut found = Vec::new();
    for atom in atoms(window, extends.start, extends.end)? {
        if &atom.kind == b"trex" {
            found.push(bytes_of(window, atom)?);
        }
    }
    Ok(Some(found))
}

fn sound_track(window: &mut Window, movie: Atom) -> Result<Option<Atom>, Fault> {
    for atom in atoms(window, movie.start, movie.end)? {
        if &atom.kind == b"trak" {
            let handler = content(window, atom, &[b"mdia", b"hdlr"])?;
            if handler.get(8..12) == Some(b"soun") {
                return Ok(Some(atom));
            }
        }
    }
    Ok(None)
}

fn read_table(window: &mut Window, table: Atom) -> Result<SampleTable, Fault> {
    let chunks = content(window, table, &[b"stco"])?;
    let (offsets, is_long) = match chunks.is_empty() {
        true => (content(window, table, &[b"co64"])?, true),
        false => (chunks, false),
    };
    Ok(SampleTable::new(
        content(window, table, &[b"stsz"])?,
        content(window, table, &[b"stsc"])?,
        content(window, table, &[b"stts"])?,
        offsets,
        is_long,
    ))
}

/// Packets of the index, then those of the fragments.
struct Both {
    samples: SampleTable,
    fragments: Fragments,
}

impl Places for Both {
    fn next(&mut self, window: &mut Window) -> Result<Option<Place>, Fault> {
        match self.samples.next() {
            Some(place) => Ok(Some(place)),
            None => self.fragments.next(window),
        }
    }
}

/// Which frames are the sound: those of the first edit, without what the encoder put before.
fn trim(
    window: &mut Window,
    movie: Atom,
    track: Atom,
    samples: &SampleTable,
    coding: &Coding,
    fragments: &Fragments,
) -> Result<Trim, Fault> {
    let header = content(window, track, &[b"mdia", b"mdhd"])?;
    let timescale = timescale(&header);
    let movie_scale = timescale_of_movie(window, movie)?;
    let edits = content(window, track, &[b"edts", b"elst"])?;
    let edit = first_edit(&edits);
    let rate = match coding {
        Coding::Aac(format) => u64::from(format.sample_rate),
        Coding::Alac(cookie) => u64::from(field(cookie, 20)),
    };
    let scaled = |value: u64, from: u64, to: u64| -> u64 {
        let half = u128::from(from) / 2;
        let value = (u128::from(value) * u128::from(to) + half) / u128::from(from.max(1));
        u64::try_from(value).unwrap_or(u64::MAX)
    };
    let (start, duration) = edit.unwrap_or((0, 0));
    let mut skip = scaled(start, timescale, rate);
    if let Coding::Aac(_) = coding {
        skip = priming(window, movie)?.unwrap_or(skip);
    }
    if fragments.are_any() {
        return Ok(Trim {
            skip,
            ..Trim::default()
        });
    }
    // An edit ends with the packet in which it ends.
    let end = match duration {
        0 => u64::MAX,
        _ => start.saturating_add(scaled(duration, movie_scale, timescale)),
    };
    let frames = match coding {
        Coding::Aac(_) => samples.packets_before(end).saturating_mul(1024),
        Coding::Alac(_) => scaled(samples.duration_before(end), timescale, rate),
    };
    Ok(Trim {
        skip,
        frames: Some(frames.saturating_sub(skip)),
        is_cut: true,
    })
}

fn timescale(header: &[u8]) -> u64 {
    u64::from(field(
        header,
        if header.first() == Some(&1) { 20 } else { 12 },
    ))
}

fn timescale_of_movie(window: &mut Window, movie: Atom) -> Result<u64, Fault> {
    Ok(timescale(&content(window, movie, &[b"mvhd"])?))
}

/// Returns start (in units of the track) and duration (of the movie) of the first edit with sound.
fn first_edit(edits: &[u8]) -> Option<(u64, u64)> {
    let is_long = edits.first() == Some(&1);
    let length = if is_long { 20 } else { 12 };
    edits.get(8..)?.chunks_exact(length).find_map(|edit| {
        let long = |at: usize| u64::from(field(edit, at)) << 32 | u64::from(field(edit, at + 4));
        let (duration, start) = if is_long {
            (long(0), long(8) as i64)
        } else {
            (u64::from(field(edit, 0)), i64::from(field(edit, 4) as i32))
        };
        Some((u64::try_from(start).ok()?, duration))
    })
}

/// Returns the number of samples that iTunes says to leave out at the start.
fn priming(window: &mut Window, movie: Atom) -> Result<Option<u64>, Fault> {
    let Some(meta) = find(window, movie, &[b"udta", b"meta"])? else {
        return Ok(None);
    };
    let inside = Atom {
        start: (meta.start + 4).min(meta.end),
        ..meta
    };
    let Some(list) = find(window, inside, &[b"ilst"])? else {
        return Ok(None);
    };
    for item in atoms(window, list.start, list.end)? {
        if &item.kind != b"----" || content(window, item, &[b"name"])?.get(4..) != Some(b"iTunSMPB")
        {
            continue;
        }
        let data = content(window, item, &[b"data"])?;
        let text = String::from_utf8_lossy(data.get(8..).unwrap_or_default()).into_owned();
        let value = text.split_whitespace().nth(1);
        let value = value.and_then(|word| u64::from_str_radix(word, 16).ok());
        return Ok(value.filter(|value| (1..16_384).contains(value)));
    }
    Ok(None)
}
