//! BLAKE3 of bytes and of rows.

use distill_index::checksum_rows;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};

use crate::convert::{to_python, AnyPath};
use crate::watch::PythonWatch;

/// Below this releasing the GIL costs more than it lets others do: hashing
/// 64 KiB takes about 20 µs.
const GIL_BYTES: usize = 64 * 1024;

/// The buffer protocol is in the stable ABI from Python 3.11 on only, so other
/// buffers than `bytes` are copied: piece by piece, to stay in the cache and
/// to need no second copy of a pack.
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
    let watch = PythonWatch::new(progress);
    let hash = py.detach(|| distill_index::hash_file(&path.0, &watch));
    watch.finish(py)?;
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

/// Hands out the bytes of a contiguous buffer, and gives their number. All
/// pieces but the last have `piece_bytes`; a `bytes` object is one piece.
fn in_pieces(
    data: &Bound<PyAny>,
    piece_bytes: usize,
    mut take: impl FnMut(&[u8]) + Send,
) -> PyResult<usize> {
    let py = data.py();
    if let Ok(bytes) = data.cast::<PyBytes>() {
        let bytes = bytes.as_bytes();
        release(py, bytes, &mut take);
        return Ok(bytes.len());
    }
    let view = PyMemoryView::from(data)?;
    let length: usize = view.getattr("nbytes")?.extract()?;
    if length == 0 {
        return Ok(0); // cast refuses shapes with a zero
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
        release(py, piece.cast::<PyBytes>()?.as_bytes(), &mut take);
    }
    Ok(length)
}

fn release(py: Python, bytes: &[u8], take: &mut (impl FnMut(&[u8]) + Send)) {
    match bytes.len() >= GIL_BYTES {
        true => py.detach(|| take(bytes)),
        false => take(bytes),
    }
}
