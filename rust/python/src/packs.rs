//! `distill._native.PackFile`, `Checksums` and `read_rows`.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use distill_packs::{
    read_floats, read_stored, Algorithm, Checksums, Fault, Layout, Normalization, PackFile, Row,
    Stored, CHECKSUM_BYTES,
};
use numpy::{PyArray1, PyReadonlyArray1, PyReadwriteArray2};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustix::io::Errno;

use crate::convert::{io_to_python, AnyPath};

#[pyclass(frozen, name = "PackFile", module = "distill._native")]
pub(crate) struct PyPackFile {
    file: PackFile,
    path: PathBuf,
}

#[pymethods]
impl PyPackFile {
    #[new]
    fn new(py: Python, path: AnyPath) -> PyResult<Self> {
        let path = path.0;
        match py.detach(|| PackFile::open(&path)) {
            Ok(file) => Ok(Self { file, path }),
            Err(error) => Err(error_of_opening(error, path)),
        }
    }

    #[getter]
    fn stamps(&self, py: Python) -> PyResult<(u64, u64, u64, i128, i128)> {
        let found = py.detach(|| self.file.metadata());
        let found = found.map_err(|error| io_to_python(error, &self.path))?;
        let nanoseconds =
            |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Ok((
            found.dev(),
            found.ino(),
            found.size(),
            nanoseconds(found.mtime(), found.mtime_nsec()),
            nanoseconds(found.ctime(), found.ctime_nsec()),
        ))
    }

    fn read<'py>(
        &self,
        py: Python<'py>,
        offset: u64,
        length: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let mut bytes = vec![0; length];
        let count = py.detach(|| self.file.read_at(&mut bytes, offset));
        let count = count.map_err(|error| io_to_python(error, &self.path))?;
        Ok(PyBytes::new(py, &bytes[..count]))
    }

    fn will_need(&self, py: Python, offset: u64, length: u64) {
        py.detach(|| self.file.will_need(offset, length));
    }

    fn damaged_rows<'py>(
        &self,
        py: Python<'py>,
        checksums: &PyChecksums,
        start: u64,
        row_bytes: usize,
        first: usize,
        stop: usize,
    ) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let found = py.detach(|| {
            let layout = Layout { start, row_bytes };
            self.file.damaged_rows(&checksums.0, layout, first..stop)
        });
        let found = found.map_err(|error| io_to_python(error, &self.path))?;
        Ok(PyArray1::from_iter(
            py,
            found.into_iter().map(|row| row as i64),
        ))
    }
}

#[pyclass(frozen, name = "Checksums", module = "distill._native")]
pub(crate) struct PyChecksums(Checksums);

#[pymethods]
impl PyChecksums {
    #[new]
    fn new(algorithm: &str, sums: &[u8]) -> PyResult<Self> {
        Ok(Self(Checksums::new(algorithm_of(algorithm)?, sums)))
    }
}

#[pyfunction]
pub(crate) fn pack_checksums<'py>(
    py: Python<'py>,
    algorithm: &str,
    data: PyReadonlyArray1<u8>,
    row_bytes: usize,
) -> PyResult<Bound<'py, PyBytes>> {
    let (algorithm, data) = (algorithm_of(algorithm)?, data.as_slice()?);
    if row_bytes == 0 || data.len() % row_bytes != 0 {
        return Err(PyValueError::new_err(format!(
            "the length of data, {}, must be a multiple of row_bytes={row_bytes}, above 0",
            data.len()
        )));
    }
    let sums: Vec<[u8; CHECKSUM_BYTES]> = py.detach(|| {
        let rows = data.chunks_exact(row_bytes);
        rows.map(|row| algorithm.checksum(row)).collect()
    });
    Ok(PyBytes::new(py, sums.as_flattened()))
}

/// Open packs, each with the checksums of its rows.
type PyPacks = Vec<(Py<PyPackFile>, Py<PyChecksums>)>;

/// The place of a row in the batch, and an OSError or a reason.
type PyFault = Option<(usize, Py<PyAny>)>;

#[pyfunction]
pub(crate) fn read_stored_rows(
    py: Python,
    packs: PyPacks,
    pack: PyReadonlyArray1<i64>,
    number: PyReadonlyArray1<i64>,
    start: u64,
    mut out: PyReadwriteArray2<u8>,
) -> PyResult<PyFault> {
    let rows = rows_of(&packs, &pack, &number)?;
    let row_bytes = out.as_array().ncols();
    let out = out.as_slice_mut()?;
    let result = py.detach(|| read_stored(&rows, Layout { start, row_bytes }, out));
    fault_of(py, result, &packs, &pack)
}

#[pyfunction]
#[pyo3(signature = (packs, pack, number, place, start, out, dtype, mean, scale))]
#[allow(clippy::too_many_arguments)]
pub(crate) fn read_rows(
    py: Python,
    packs: PyPacks,
    pack: PyReadonlyArray1<i64>,
    number: PyReadonlyArray1<i64>,
    place: PyReadonlyArray1<i64>,
    start: u64,
    mut out: PyReadwriteArray2<f32>,
    dtype: &str,
    mean: Option<PyReadonlyArray1<f32>>,
    scale: Option<PyReadonlyArray1<f32>>,
) -> PyResult<PyFault> {
    let rows = rows_of(&packs, &pack, &number)?;
    let values = out.as_array().ncols();
    let (stored, size) = match dtype {
        "float16" => (Stored::F16, 2),
        "float32" => (Stored::F32, 4),
        _ => return Err(PyValueError::new_err(format!("dtype={dtype:?} is unknown"))),
    };
    let mut free: Vec<_> = out
        .as_slice_mut()?
        .chunks_exact_mut(values.max(1))
        .map(Some)
        .collect();
    let mut places = Vec::with_capacity(rows.len());
    for &place in place.as_slice()? {
        let row = usize::try_from(place)
            .ok()
            .and_then(|place| free.get_mut(place)?.take());
        places.push(row.ok_or_else(|| {
            PyValueError::new_err(format!("place {place} is taken, or not in out"))
        })?);
    }
    let normalization = match (&mean, &scale) {
        (Some(mean), Some(scale)) => Some(Normalization {
            mean: mean.as_slice()?,
            scale: scale.as_slice()?,
        }),
        _ => None,
    };
    let layout = Layout {
        start,
        row_bytes: values * size,
    };
    let result = py.detach(|| read_floats(&rows, layout, stored, normalization, places));
    fault_of(py, result, &packs, &pack)
}

fn rows_of<'a>(
    packs: &'a PyPacks,
    pack: &PyReadonlyArray1<i64>,
    number: &PyReadonlyArray1<i64>,
) -> PyResult<Vec<Row<'a>>> {
    let (pack, number) = (pack.as_slice()?, number.as_slice()?);
    let mut rows = Vec::with_capacity(number.len());
    for (&pack, &number) in pack.iter().zip(number) {
        let Some((file, checksums)) = packs.get(usize::try_from(pack)?) else {
            return Err(PyValueError::new_err(format!("there is no pack {pack}")));
        };
        rows.push(Row {
            file: &file.get().file,
            checksums: &checksums.get().0,
            number: usize::try_from(number)?,
        });
    }
    Ok(rows)
}

fn fault_of(
    py: Python,
    result: Result<(), (usize, Fault)>,
    packs: &PyPacks,
    pack: &PyReadonlyArray1<i64>,
) -> PyResult<PyFault> {
    let Err((place, fault)) = result else {
        return Ok(None);
    };
    let what = match fault {
        Fault::Io(error) => {
            let (file, _) = &packs[usize::try_from(pack.as_slice()?[place])?];
            io_to_python(error, &file.get().path)
                .into_value(py)
                .into_any()
        }
        Fault::Short => "short".into_pyobject(py)?.into_any().unbind(),
        Fault::Mismatch => "mismatch".into_pyobject(py)?.into_any().unbind(),
    };
    Ok(Some((place, what)))
}

/// The error of a link or of something else than a file says so, with an errno.
fn error_of_opening(error: std::io::Error, path: PathBuf) -> PyErr {
    let link = Errno::LOOP.raw_os_error();
    let (errno, reason) = match (error.raw_os_error(), error.kind()) {
        (Some(errno), _) if errno == link => (link, "a symbolic link, which is not followed"),
        (None, ErrorKind::InvalidInput) => (Errno::INVAL.raw_os_error(), "not a regular file"),
        _ => return io_to_python(error, &path),
    };
    PyOSError::new_err((errno, reason, path.into_os_string()))
}

fn algorithm_of(name: &str) -> PyResult<Algorithm> {
    match name {
        "BLAKE3" => Ok(Algorithm::Blake3),
        "CRC-64/NVME" => Ok(Algorithm::Crc64),
        _ => Err(PyValueError::new_err(format!(
            "algorithm={name:?} is unknown"
        ))),
    }
}
