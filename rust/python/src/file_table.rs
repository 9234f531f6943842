//! `distill._native.FileTable`.

use distill_index::FileTable;
use pyo3::prelude::*;

use crate::convert::{hash_from, to_python, AnyPath};
use crate::progress::PythonProgress;
use crate::scan::PyScan;

#[pyclass(name = "FileTable", module = "distill._native")]
pub(crate) struct PyFileTable(pub(crate) FileTable);

#[pymethods]
impl PyFileTable {
    #[new]
    fn new() -> Self {
        PyFileTable(FileTable::default())
    }

    #[staticmethod]
    #[pyo3(signature = (path, progress = None))]
    fn load(py: Python, path: AnyPath, progress: Option<Py<PyAny>>) -> PyResult<Self> {
        let progress = PythonProgress::new(progress);
        let table = py.detach(|| FileTable::load(&path.0, &progress));
        progress.finish(py)?;
        table.map(PyFileTable).map_err(to_python)
    }

    fn save(&self, py: Python, path: AnyPath) -> PyResult<()> {
        py.detach(|| self.0.save(&path.0)).map_err(to_python)
    }

    fn save_copy(&self, py: Python, path: AnyPath) -> PyResult<()> {
        py.detach(|| self.0.save_copy(&path.0)).map_err(to_python)
    }

    fn apply(&mut self, py: Python, scan: &PyScan) -> bool {
        py.detach(|| self.0.apply(&scan.0))
    }

    fn adopt(&mut self, py: Python, other: &PyFileTable) {
        py.detach(|| self.0.adopt(&other.0));
    }

    fn set_hash(&mut self, path: &[u8], content_hash: &[u8]) -> PyResult<bool> {
        Ok(self.0.set_hash(path, hash_from(content_hash)?))
    }

    fn __len__(&self) -> usize {
        self.0.files().len()
    }
}
