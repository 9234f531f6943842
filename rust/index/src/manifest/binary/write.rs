//! Writing a copy.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::super::contents::{Contents, NO_CONTENT};
use super::super::file::{open_sealed, replace_by};
use super::super::file_table::FileTable;
use super::super::sealed::TextId;
use super::super::tables::Manifest;
use super::super::write::{file_table, text_id, Writer};
use super::head::{copy_of, Head, BLOCK_BYTES};
use super::read::{is_there, Tables};
use crate::files::Files;
use crate::{Error, Result};

impl Manifest {
    /// Writes the binary copy of the manifest at `path`, from which [`Manifest::load`] reads the same tables
    /// faster. Does nothing if there is one, or if these are not the tables of that file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be written. A copy that was there is then unchanged.
    pub fn save_copy(&self, path: &Path) -> Result<()> {
        let text = |out: &mut Writer| self.write(out);
        save::<Self>(path, text, |out, text| self.write_copy(out, text))
    }

    fn write_copy(&self, out: &mut dyn Write, text: TextId) -> io::Result<()> {
        let sorted = self.contents.sorted();
        let mut places = vec![NO_CONTENT; sorted.len()];
        for (place, &number) in (0..).zip(&sorted) {
            places[number as usize] = place;
        }
        let number_of = self.contents.of(&self.files);
        let files: Vec<usize> = self.saved_files().map(|(index, _)| index).collect();
        let mut contents = Contents::default();
        for &number in &sorted {
            if let Some(content) = self.contents.other(number as usize) {
                contents.push(*self.contents.hash(number as usize), content.clone());
            }
        }
        let rare = Manifest {
            header: self.header.clone(),
            packs: self.packs.clone(),
            contents,
            files: Arc::new(with_reasons(&self.files, &files)),
        };
        let rare = rare.to_bytes().map_err(io::Error::other)?;
        let mut out = Output::begin(out, text, &rare, sorted.len(), &self.files, &files)?;
        let numbers = || sorted.iter().map(|&number| number as usize);
        out.column(numbers().map(|number| *self.contents.hash(number)))?;
        out.column(numbers().map(|number| self.contents.placed(number).to_bytes()))?;
        out.column(numbers().map(|number| sums(self.contents.sums(number))))?;
        out.files(&self.files, &files)?;
        out.column(files.iter().map(|&index| {
            let place = number_of(index).map_or(NO_CONTENT, |number| places[number]);
            place.to_le_bytes()
        }))?;
        out.end()
    }
}

impl FileTable {
    /// Writes the binary copy of the table at `path`; see [`Manifest::save_copy`].
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be written. A copy that was there is then unchanged.
    pub fn save_copy(&self, path: &Path) -> Result<()> {
        let text = |out: &mut Writer| file_table(&self.files, out);
        save::<Self>(path, text, |out, text| self.write_copy(out, text))
    }

    fn write_copy(&self, out: &mut dyn Write, text: TextId) -> io::Result<()> {
        let is_saved = |&index: &usize| !self.files.get(index).is_pending();
        let files: Vec<usize> = (0..self.files.len()).filter(is_saved).collect();
        let rare = FileTable::from(Arc::new(with_reasons(&self.files, &files))).to_bytes();
        let mut out = Output::begin(out, text, &rare, 0, &self.files, &files)?;
        out.files(&self.files, &files)?;
        let hash = |&index: &usize| self.files.content(index).unwrap_or_default();
        out.column(files.iter().map(hash))?;
        out.end()
    }
}

/// Writes the copy of a JSON file if its text is the given one, and there is no copy.
fn save<T: Tables>(
    path: &Path,
    text: impl FnOnce(&mut Writer),
    write: impl FnOnce(&mut dyn Write, TextId) -> io::Result<()>,
) -> Result<()> {
    let sealed = match open_sealed(path) {
        Err(Error::Manifest(_)) => return Ok(()), // it is damaged
        opened => opened?,
    };
    if is_there::<T>(path, &sealed) {
        return Ok(());
    }
    let text = text_id(text);
    if sealed.id() != Some(text) {
        return Ok(());
    }
    replace_by(&copy_of(path), |file| write(file, text))
}

/// Those of some files that are skipped, each for a reason.
fn with_reasons(files: &Files, numbers: &[usize]) -> Files {
    let mut rare = Files::default();
    for &index in numbers {
        let file = files.get(index);
        if file.skipped.is_some() {
            rare.push(file);
        }
    }
    rare
}

fn sums(sums: [f64; 5]) -> [u8; 40] {
    let mut bytes = [0; 40];
    for (place, sum) in bytes.chunks_exact_mut(8).zip(sums) {
        place.copy_from_slice(&sum.to_le_bytes());
    }
    bytes
}

struct Output<'a> {
    out: &'a mut dyn Write,
    hasher: blake3::Hasher,
    bytes: Vec<u8>,
}

impl<'a> Output<'a> {
    /// Writes head and rare records of a copy with so many contents and some of the files.
    fn begin(
        out: &'a mut dyn Write,
        text: TextId,
        rare: &[u8],
        contents: usize,
        files: &Files,
        numbers: &[usize],
    ) -> io::Result<Self> {
        let paths = numbers.iter().map(|&index| files.get(index).path.len());
        let head = Head {
            text,
            rare: rare.len() as u64,
            contents: contents as u64,
            files: numbers.len() as u64,
            paths: paths.sum::<usize>() as u64,
        };
        let mut output = Output {
            out,
            hasher: blake3::Hasher::new(),
            bytes: Vec::with_capacity(2 * BLOCK_BYTES),
        };
        output.put(&head.to_bytes())?;
        output.put(rare)?;
        Ok(output)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        match self.bytes.len() < BLOCK_BYTES {
            true => Ok(()),
            false => self.write_block(),
        }
    }

    fn write_block(&mut self) -> io::Result<()> {
        self.hasher.update(&self.bytes);
        self.out.write_all(&self.bytes)?;
        self.bytes.clear();
        Ok(())
    }

    fn column<const N: usize>(
        &mut self,
        mut items: impl Iterator<Item = [u8; N]>,
    ) -> io::Result<()> {
        items.try_for_each(|item| self.put(&item))
    }

    /// Writes the columns of files that both kinds of tables have.
    fn files(&mut self, files: &Files, numbers: &[usize]) -> io::Result<()> {
        let of = |&index: &usize| files.get(index);
        let length = |index| (of(index).path.len() as u32).to_le_bytes();
        self.column(numbers.iter().map(length))?;
        for index in numbers {
            self.put(of(index).path)?;
        }
        self.column(numbers.iter().map(|index| of(index).key.to_bytes()))?;
        self.column(numbers.iter().map(|&index| [files.flags(index)]))
    }

    fn end(mut self) -> io::Result<()> {
        self.write_block()?;
        self.out.write_all(self.hasher.finalize().as_bytes())
    }
}
