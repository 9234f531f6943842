//! `distill._native.Live`.

use distill_index::{Hash, Live};
use numpy::{PyArray1, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyList};

type Column = Py<PyArray1<i64>>;

#[pyclass(name = "Live", module = "distill._native", frozen)]
pub(crate) struct PyLive {
    hashes: Vec<Hash>,
    /// `hashes` for Python, once they are used there: a comparison needs none.
    content_hashes: PyOnceLock<Py<PyList>>,
    #[pyo3(get)]
    silent: Column,
    #[pyo3(get)]
    content: Column,
    #[pyo3(get)]
    pack: Column,
    #[pyo3(get)]
    first: Column,
    #[pyo3(get)]
    rows: Column,
}

#[pymethods]
impl PyLive {
    #[getter]
    fn content_hashes(&self, py: Python) -> PyResult<Py<PyList>> {
        let list = self.content_hashes.get_or_try_init(py, || {
            let hashes = self.hashes.iter().map(|hash| PyBytes::new(py, hash));
            PyList::new(py, hashes).map(Bound::unbind)
        });
        list.map(|list| list.clone_ref(py))
    }

    fn __eq__(&self, py: Python, other: &PyLive) -> PyResult<bool> {
        for (one, other) in self.columns().into_iter().zip(other.columns()) {
            let (one, other) = (one.bind(py).try_readonly()?, other.bind(py).try_readonly()?);
            if one.as_slice()? != other.as_slice()? {
                return Ok(false);
            }
        }
        Ok(self.hashes == other.hashes)
    }
}

impl PyLive {
    pub(crate) fn new(py: Python, live: Live) -> PyResult<Self> {
        Ok(PyLive {
            hashes: live.hashes,
            content_hashes: PyOnceLock::new(),
            silent: column(py, live.silent)?,
            content: column(py, live.content)?,
            pack: column(py, live.pack)?,
            first: column(py, live.first)?,
            rows: column(py, live.rows)?,
        })
    }

    fn columns(&self) -> [&Column; 5] {
        [
            &self.silent,
            &self.content,
            &self.pack,
            &self.first,
            &self.rows,
        ]
    }
}

/// A read-only array that owns `values`.
fn column(py: Python, values: Vec<i64>) -> PyResult<Column> {
    let array = PyArray1::from_vec(py, values);
    array.try_readwrite()?.make_nonwriteable();
    Ok(array.unbind())
}
