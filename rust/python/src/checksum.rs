//! BLAKE3 of buffers, files and rows.

use distill_index::checksum_rows;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};

use crate::convert::{to_python, AnyPath};
use crate::progress::PythonProgress;

/// For fewer bytes the GIL is not released: hashing 64 KiB takes about 20 µs.
const GIL_BYTES: usize = 64 * 1024;

/// Buffers other than `bytes` are copied in pieces of this size, because the
/// buffer protocol is in the stable ABI only from Python 3.11 on.
const PIECE_BYTES: usize = 1 << 20;

#[pyfunction]
pub(crate) fn hash_bytes<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let mut hasher = blake3::Hasher::new();
    in_pieces(data, PIECE_BYTES, |piece| {
        hasher.update(piece);
    })?;
    Ok(PyBytes::new(data.py(), hasher.finalize().as_bytes()))
}

#[pyfunction]
#[pyo3(signature = (path, progress = None))]
pub(crate) fn hash_file<'py>(
    py: Python<'py>,
    path: AnyPath,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let progress = PythonProgress::new(progress);
    let hash = py.detach(|| distill_index::hash_file(&path.0, &progress));
    progress.finish(py)?;
    Ok(PyBytes::new(py, &hash.map_err(to_python)?))
}

#[pyfunction]
pub(crate) fn row_checksums<'py>(
    data: &Bound<'py, PyAny>,
    row_bytes: usize,
) -> PyResult<Bound<'py, PyBytes>> {
    if row_bytes == 0 {
        return Err(PyValueError::new_err("row_bytes=0 must be at least 1"));
    }
    let rows = (PIECE_BYTES / row_bytes).max(1);
    let mut sums = Vec::new();
    let length = in_pieces(data, rows.saturating_mul(row_bytes), |piece| {
        sums.extend(checksum_rows(piece, row_bytes));
    })?;
    match length % row_bytes {
        0 => Ok(PyBytes::new(data.py(), &sums)),
        _ => Err(PyValueError::new_err(format!(
            "the length of data, {length}, must be a multiple of row_bytes={row_bytes}"
        ))),
    }
}

/// Passes the bytes of a contiguous buffer to `take` and returns their number.
/// All pieces but the last have `piece_bytes` bytes; a `bytes` object is one
/// piece.
fn in_pieces(
    data: &Bound<PyAny>,
    piece_bytes: usize,
    mut take: impl FnMut(&[u8]) + Send,
) -> PyResult<usize> {
    let py = data.py();
    if let Ok(bytes) = data.cast::<PyBytes>() {
        let bytes = bytes.as_bytes();
        without_gil(py, bytes, &mut take);
        return Ok(bytes.len());
    }
    let view = PyMemoryView::from(data)?;
    let length: usize = view.getattr("nbytes")?.extract()?;
    if length == 0 {
        return Ok(0); // memoryview.cast rejects shapes with a zero
    }
    let view = view.call_method1("cast", ("B",))?;
    for start in (0..length).step_by(piece_bytes) {
        let slice = pyo3::types::PySlice::new(
            py,
            isize::try_from(start)?,
            isize::try_from(length.min(start.saturating_add(piece_bytes)))?,
            1,
        );
        let piece = view.get_item(slice)?.call_method0("tobytes")?;
        without_gil(py, piece.cast::<PyBytes>()?.as_bytes(), &mut take);
    }
    Ok(length)
}

/// Calls `take`, without the GIL if the piece is large.
fn without_gil(py: Python, bytes: &[u8], take: &mut (impl FnMut(&[u8]) + Send)) {
    match bytes.len() >= GIL_BYTES {
        true => py.detach(|| take(bytes)),
        false => take(bytes),
    }
}
