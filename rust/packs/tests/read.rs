//! Rows of a file that is written here, read and checked.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;

use distill_packs::{
    read_floats, read_stored, Algorithm, Checksums, Fault, Layout, Normalization, PackFile, Row,
    Stored,
};

const START: u64 = 10;
const VALUES: usize = 6;
const ROWS: usize = 100_000;
const LAYOUT: Layout = Layout {
    start: START,
    row_bytes: 4 * VALUES,
};

fn value(row: usize, at: usize) -> f32 {
    (row * VALUES + at) as f32 * 0.37 - 5.0
}

/// A file of rows, and their checksums.
fn written(algorithm: Algorithm) -> (tempfile::TempDir, PackFile, Checksums) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pack");
    let rows: Vec<Vec<u8>> = (0..ROWS)
        .map(|row| {
            (0..VALUES)
                .flat_map(|at| value(row, at).to_le_bytes())
                .collect()
        })
        .collect();
    let sums: Vec<u8> = rows
        .iter()
        .flat_map(|row| algorithm.checksum(row))
        .collect();
    fs::write(&path, [vec![0; START as usize], rows.concat()].concat()).unwrap();
    (
        folder,
        PackFile::open(&path).unwrap(),
        Checksums::new(algorithm, &sums),
    )
}

#[test]
fn rows_come_to_their_places() {
    for algorithm in [Algorithm::Blake3, Algorithm::Crc64] {
        let (_folder, file, checksums) = written(algorithm);
        let numbers: Vec<usize> = (0..ROWS).map(|row| row * 7919 % ROWS).collect();
        let rows: Vec<Row> = numbers
            .iter()
            .map(|&number| Row {
                file: &file,
                checksums: &checksums,
                number,
            })
            .collect();
        let mut out = vec![0.0; ROWS * VALUES];
        let normalization = Normalization {
            mean: &[1.5, -2.0],
            scale: &[0.5, 3.0],
        };
        let places = out.chunks_exact_mut(VALUES).collect();
        read_floats(&rows, LAYOUT, Stored::F32, Some(normalization), places).unwrap();
        for (&number, row) in numbers.iter().zip(out.chunks(VALUES)) {
            let expected: Vec<f32> = (0..VALUES)
                .map(|at| match at < VALUES / 2 {
                    true => (value(number, at) - 1.5) * 0.5,
                    false => (value(number, at) + 2.0) * 3.0,
                })
                .collect();
            assert_eq!(row, expected);
        }
    }
}

#[test]
fn a_damaged_row_is_found_whatever_was_read_before() {
    let (folder, file, checksums) = written(Algorithm::Crc64);
    let path = folder.path().join("pack");
    let mut content = fs::read(&path).unwrap();
    content[START as usize + 4 * VALUES * 5 + 3] ^= 1;
    fs::write(&path, &content[..content.len() - 1]).unwrap();
    let row = |number| Row {
        file: &file,
        checksums: &checksums,
        number,
    };
    let mut out = vec![0; 2 * LAYOUT.row_bytes];
    let mut read = |numbers: [usize; 2]| read_stored(&numbers.map(row), LAYOUT, &mut out);
    assert!(read([4, 6]).is_ok());
    assert!(matches!(read([4, 5]), Err((1, Fault::Mismatch))));
    assert!(matches!(read([5, 4]), Err((0, Fault::Mismatch))));
    assert!(matches!(read([4, ROWS - 1]), Err((1, Fault::Short))));
    assert_eq!(file.damaged_rows(&checksums, LAYOUT, 0..10).unwrap(), [5]);
    let end = ROWS - 3..ROWS;
    assert_eq!(
        file.damaged_rows(&checksums, LAYOUT, end).unwrap(),
        [ROWS - 1]
    );
}

#[test]
fn only_regular_files_are_opened() {
    let (folder, ..) = written(Algorithm::Crc64);
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(folder.path().join("pack"), &link).unwrap();
    assert!(PackFile::open(&link).is_err());
    assert!(PackFile::open(folder.path()).is_err());
}
