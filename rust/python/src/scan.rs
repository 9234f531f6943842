//! `distill._native.Scan`.

use std::collections::BTreeMap;

use distill_index::{Paths, Scan, SkipReason, StatKey, Todo};
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};

use crate::convert::{fsdecode, to_reason};

#[pyclass(name = "Scan", module = "distill._native", frozen)]
pub(crate) struct PyScan(pub(crate) Scan);

type Text<'py> = Bound<'py, PyString>;
type Bytes<'py> = Bound<'py, PyBytes>;
type TodoAt<'py> = (Bytes<'py>, Option<Bytes<'py>>, Stamps);
/// Size, mtime, ctime, inode number, and whether the file was young.
type Stamps = (u64, i64, i64, u64, bool);

#[pymethods]
impl PyScan {
    #[getter]
    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counts = &self.0.counts;
        let dict = PyDict::new(py);
        dict.set_item("unchanged", counts.unchanged)?;
        dict.set_item("added", counts.added)?;
        dict.set_item("changed", counts.changed)?;
        dict.set_item("renamed", counts.renamed)?;
        dict.set_item("removed", counts.removed)?;
        dict.set_item("skipped", counts.skipped)?;
        Ok(dict)
    }

    #[getter]
    fn unchanged(&self) -> u64 {
        self.0.counts.unchanged
    }

    #[getter]
    fn refreshed(&self) -> u64 {
        self.0.counts.refreshed
    }

    #[getter]
    fn n_files(&self) -> u64 {
        self.0.n_files
    }

    #[getter]
    fn total_bytes(&self) -> u64 {
        self.0.total_bytes
    }

    #[getter]
    fn added<'py>(&self, py: Python<'py>) -> PyResult<Vec<Text<'py>>> {
        paths(py, &self.0.added)
    }

    #[getter]
    fn changed<'py>(&self, py: Python<'py>) -> PyResult<Vec<Text<'py>>> {
        paths(py, &self.0.changed)
    }

    #[getter]
    fn removed<'py>(&self, py: Python<'py>) -> PyResult<Vec<Text<'py>>> {
        paths(py, &self.0.removed)
    }

    #[getter]
    fn renamed<'py>(&self, py: Python<'py>) -> PyResult<Vec<(Text<'py>, Text<'py>)>> {
        let (from, to) = &self.0.renamed;
        from.iter()
            .zip(to.iter())
            .map(|(old, new)| Ok((fsdecode(py, old)?, fsdecode(py, new)?)))
            .collect()
    }

    #[getter]
    fn todo<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let todo = self.0.todo().map(|todo| {
            let (path, hash) = path_and_hash(py, &todo);
            (path, hash, todo.key.size).into_pyobject(py)
        });
        todo.collect()
    }

    #[getter]
    fn n_todo(&self) -> usize {
        self.0.n_todo()
    }

    fn todo_at<'py>(&self, py: Python<'py>, index: usize) -> PyResult<TodoAt<'py>> {
        let todo = self.0.todo_at(index);
        let todo =
            todo.ok_or_else(|| PyIndexError::new_err(format!("no content {index} to do")))?;
        let (path, hash) = path_and_hash(py, &todo);
        Ok((path, hash, stamps(todo.key, todo.racy)))
    }

    fn stamps(&self, path: &[u8]) -> Option<Stamps> {
        let file = self.0.file(path)?;
        Some(stamps(file.key, file.racy))
    }

    #[getter]
    fn skipped<'py>(&self, py: Python<'py>) -> PyResult<Vec<(Text<'py>, Bound<'py, PyAny>)>> {
        reasons(py, &self.0.skipped)
    }

    #[getter]
    fn faults<'py>(&self, py: Python<'py>) -> PyResult<Vec<(Text<'py>, Bound<'py, PyAny>)>> {
        reasons(py, &self.0.faults)
    }

    #[getter]
    fn left_out<'py>(&self, py: Python<'py>) -> PyResult<Vec<Text<'py>>> {
        let folders = self.0.left_out.iter();
        folders.map(|path| fsdecode(py, path)).collect()
    }

    #[getter]
    fn unread(&self) -> BTreeMap<&str, u64> {
        let unread = self.0.unread.iter();
        unread.map(|(kind, count)| (&**kind, *count)).collect()
    }

    fn __repr__(&self) -> String {
        let counts = &self.0.counts;
        format!(
            "<Scan of {} files: {} unchanged, {} added, {} changed, {} renamed, {} removed, \
             {} skipped>",
            self.0.n_files,
            counts.unchanged,
            counts.added,
            counts.changed,
            counts.renamed,
            counts.removed,
            counts.skipped
        )
    }
}

fn path_and_hash<'py>(py: Python<'py>, todo: &Todo) -> (Bytes<'py>, Option<Bytes<'py>>) {
    let hash = todo.hash.map(|hash| PyBytes::new(py, &hash));
    (PyBytes::new(py, todo.path), hash)
}

/// Paths as `str`.
fn paths<'py>(py: Python<'py>, paths: &Paths) -> PyResult<Vec<Text<'py>>> {
    paths.iter().map(|path| fsdecode(py, path)).collect()
}

/// Paths as `str`, each with its reason.
fn reasons<'py>(
    py: Python<'py>,
    reasons: &[(Box<[u8]>, SkipReason)],
) -> PyResult<Vec<(Text<'py>, Bound<'py, PyAny>)>> {
    let reasons = reasons.iter();
    reasons
        .map(|(path, reason)| Ok((fsdecode(py, path)?, to_reason(py, reason)?)))
        .collect()
}

fn stamps(key: StatKey, racy: bool) -> Stamps {
    (key.size, key.mtime_ns, key.ctime_ns, key.inode, racy)
}
