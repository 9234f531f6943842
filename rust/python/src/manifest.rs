//! `distill._native.Manifest`.

use std::fmt::Write;

use distill_index::{
    Content, Hashing, Manifest, NoProgress, Options, Pack, Segment, SkipReason, StatKey, Summary,
    Totals, Trust,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pyo3::types::{PyDict, PyString};

use crate::convert::{fsdecode, hash_from, reason_from, to_python, to_reason, AnyPath};
use crate::file_table::PyFileTable;
use crate::live::PyLive;
use crate::progress::PythonProgress;
use crate::scan::PyScan;

#[pyclass(name = "Manifest", module = "distill._native")]
pub(crate) struct PyManifest(Manifest);

#[pymethods]
impl PyManifest {
    #[new]
    fn new() -> Self {
        PyManifest(Manifest::default())
    }

    #[staticmethod]
    #[pyo3(signature = (path, known = None, progress = None))]
    fn load(
        py: Python,
        path: AnyPath,
        known: Option<&PyFileTable>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let known = known.map(|known| &known.0);
        let progress = PythonProgress::new(progress);
        let manifest = py.detach(|| Manifest::load(&path.0, known, &progress));
        progress.finish(py)?;
        manifest.map(PyManifest).map_err(to_python)
    }

    #[pyo3(signature = (path, progress = None))]
    fn save(&self, py: Python, path: AnyPath, progress: Option<Py<PyAny>>) -> PyResult<()> {
        let Some(callback) = progress else {
            // Not even Ctrl-C ends it.
            return py
                .detach(|| self.0.save(&path.0, &NoProgress))
                .map_err(to_python);
        };
        let progress = PythonProgress::new(Some(callback));
        let saved = py.detach(|| self.0.save(&path.0, &progress));
        progress.finish(py)?;
        saved.map_err(to_python)
    }

    fn save_copy(&self, py: Python, path: AnyPath) -> PyResult<()> {
        py.detach(|| self.0.save_copy(&path.0)).map_err(to_python)
    }

    #[getter]
    fn header(&self) -> &str {
        self.0.header()
    }

    #[setter]
    fn set_header(&mut self, json: &str) -> PyResult<()> {
        self.0.set_header(json).map_err(to_python)
    }

    #[pyo3(signature = (root, *, extensions, unread = Vec::new(), exclude = Vec::new(), files = None,
        known = None, follow_links = false, trust = "stat", max_bytes = 64 << 30, workers = 1,
        hash_added = true, hashing = "all", progress = None))]
    #[allow(clippy::too_many_arguments)] // keyword-only in Python
    fn scan(
        &self,
        py: Python,
        root: AnyPath,
        extensions: Vec<String>,
        unread: Vec<String>,
        exclude: Vec<AnyPath>,
        files: Option<Vec<Vec<u8>>>,
        known: Option<&PyFileTable>,
        follow_links: bool,
        trust: &str,
        max_bytes: u64,
        workers: usize,
        hash_added: bool,
        hashing: &str,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<PyScan> {
        let options = Options {
            extensions,
            unread,
            exclude: exclude.into_iter().map(|path| path.0).collect(),
            files,
            known: known.map(|table| table.0.clone()).unwrap_or_default(),
            follow_links,
            trust: trust_from(trust)?,
            max_bytes,
            workers,
            hash_added,
            hashing: hashing_from(hashing)?,
        };
        let progress = PythonProgress::new(progress);
        let scan = py.detach(|| distill_index::scan(&self.0, &root.0, &options, &progress));
        progress.finish(py)?;
        scan.map(PyScan).map_err(to_python)
    }

    fn apply(&mut self, scan: &PyScan) -> bool {
        self.0.apply(&scan.0)
    }

    fn set_hash(&mut self, path: &[u8], content_hash: &[u8]) -> PyResult<bool> {
        Ok(self.0.set_hash(path, hash_from(content_hash)?))
    }

    fn adopt(&mut self, py: Python, part: &PyManifest) -> PyResult<bool> {
        py.detach(|| self.0.adopt(&part.0)).map_err(to_python)
    }

    fn add_file(
        &mut self,
        path: &[u8],
        stamps: (u64, i64, i64, u64, bool),
        content_hash: &[u8],
    ) -> PyResult<()> {
        let (size, mtime_ns, ctime_ns, inode, racy) = stamps;
        let key = StatKey {
            size,
            mtime_ns,
            ctime_ns,
            inode,
        };
        self.0.add_file(path, key, racy, hash_from(content_hash)?);
        Ok(())
    }

    #[allow(clippy::too_many_arguments)] // the fields of a pack
    fn add_pack(
        &mut self,
        name: String,
        rows: u64,
        size: u64,
        checksum: String,
        backend: String,
        mtime_ns: i64,
        ctime_ns: i64,
    ) -> PyResult<u64> {
        let pack = Pack {
            name,
            rows,
            bytes: size,
            mtime_ns,
            ctime_ns,
            checksum,
            backend,
        };
        self.0.add_pack(pack).map_err(to_python)
    }

    fn set_pack_stamps(&mut self, name: &str, mtime_ns: i64, ctime_ns: i64) -> bool {
        self.0.set_pack_stamps(name, mtime_ns, ctime_ns)
    }

    #[pyo3(signature = (content_hash, segments, silent, sums, skipped = None, partial = None, silent_runs = None))]
    #[allow(clippy::too_many_arguments)] // the fields of a content
    fn set_content(
        &mut self,
        content_hash: &[u8],
        segments: Vec<(u64, u64, u64)>,
        silent: u64,
        sums: Vec<f64>,
        skipped: Option<Bound<'_, PyString>>,
        partial: Option<Bound<'_, PyString>>,
        silent_runs: Option<Vec<(u64, u64)>>,
    ) -> PyResult<()> {
        let sums: [f64; 5] = sums.try_into().map_err(|sums: Vec<f64>| {
            PyValueError::new_err(format!("sums must have 5 numbers, not {}", sums.len()))
        })?;
        let content = Content {
            segments: segments.into_iter().map(segment).collect(),
            silent,
            silent_runs: silent_runs.unwrap_or_default(),
            sums,
            skipped: skipped.as_ref().map(reason_from).transpose()?,
            partial: partial.as_ref().map(reason_from).transpose()?,
        };
        let hash = hash_from(content_hash)?;
        self.0.set_content(hash, content).map_err(to_python)
    }

    fn drop_dead(&mut self) {
        self.0.drop_dead();
    }

    fn drop_pack(&mut self, name: &str) -> bool {
        self.0.drop_pack(name)
    }

    fn drop_rows(&mut self, pack_name: &str, rows: Vec<u64>) -> u64 {
        self.0.drop_rows(pack_name, &rows)
    }

    fn move_content(
        &mut self,
        content_hash: &[u8],
        segments: Vec<(u64, u64, u64)>,
    ) -> PyResult<()> {
        let hash = hash_from(content_hash)?;
        let segments = segments.into_iter().map(segment).collect();
        self.0.move_content(&hash, segments).map_err(to_python)
    }

    fn totals(&self, py: Python) -> PyTotals {
        py.detach(|| self.0.totals()).into()
    }

    fn live(&self, py: Python) -> PyResult<PyLive> {
        let live = py.detach(|| self.0.live());
        PyLive::new(py, live)
    }

    fn kept(&self, py: Python) -> PyResult<PyLive> {
        let kept = py.detach(|| self.0.kept());
        PyLive::new(py, kept)
    }

    fn file_table(&self, py: Python) -> PyFileTable {
        PyFileTable(py.detach(|| self.0.file_table()))
    }

    fn pack_names(&self) -> Vec<&str> {
        self.0.packs().iter().map(|pack| &*pack.name).collect()
    }

    fn packs<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let dict = |pack: &Pack| {
            let dict = PyDict::new(py);
            dict.set_item("name", &pack.name)?;
            dict.set_item("rows", pack.rows)?;
            dict.set_item("bytes", pack.bytes)?;
            dict.set_item("mtime_ns", pack.mtime_ns)?;
            dict.set_item("ctime_ns", pack.ctime_ns)?;
            dict.set_item("checksum", &pack.checksum)?;
            dict.set_item("backend", &pack.backend)?;
            Ok(dict)
        };
        self.0.packs().iter().map(dict).collect()
    }

    fn files<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let dict = |summary: Summary| {
            let file = &summary.file;
            let dict = PyDict::new(py);
            dict.set_item("path", fsdecode(py, file.path)?)?;
            dict.set_item("size", file.key.size)?;
            dict.set_item("mtime_ns", file.key.mtime_ns)?;
            dict.set_item("content_hash", file.content.map(|hash| hex(&hash)))?;
            dict.set_item("rows", summary.rows())?;
            let reason = summary.skipped().map(|reason| to_reason(py, reason));
            dict.set_item("skipped", reason.transpose()?)?;
            let reason = summary.partial().map(|reason| to_reason(py, reason));
            dict.set_item("partial", reason.transpose()?)?;
            Ok(dict)
        };
        self.0.summaries().map(dict).collect()
    }

    fn skipped<'py>(&self, py: Python<'py>) -> PyResult<Vec<PathAndReason<'py>>> {
        self.paths_with(py, |summary| summary.skipped())
    }

    fn partial<'py>(&self, py: Python<'py>) -> PyResult<Vec<PathAndReason<'py>>> {
        self.paths_with(py, |summary| summary.partial())
    }

    fn unused_contents<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        let hashes = self.0.unused_contents();
        hashes.iter().map(|hash| PyBytes::new(py, hash)).collect()
    }

    fn forget_skipped(&mut self, code: &str) -> bool {
        self.0.forget_skipped(code)
    }

    fn partial_reason<'py>(
        &self,
        py: Python<'py>,
        content_hash: &[u8],
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let content = self.0.content(&hash_from(content_hash)?);
        let reason = content
            .as_ref()
            .and_then(|content| content.partial.as_ref());
        reason.map(|reason| to_reason(py, reason)).transpose()
    }

    fn silent_runs(&self, content_hash: &[u8]) -> PyResult<Vec<(u64, u64)>> {
        let content = self.0.content(&hash_from(content_hash)?);
        Ok(content.map_or_else(Vec::new, |content| content.silent_runs.clone()))
    }

    fn __repr__(&self) -> String {
        let (files, packs) = (self.0.files().len(), self.0.packs().len());
        format!("<Manifest of {files} files and {packs} packs>")
    }
}

type PathAndReason<'py> = (Bound<'py, PyString>, Bound<'py, PyAny>);

impl PyManifest {
    /// The files that have a reason of a kind, each with that.
    fn paths_with<'py>(
        &self,
        py: Python<'py>,
        reason: for<'a, 'b> fn(&'b Summary<'a>) -> Option<&'b SkipReason>,
    ) -> PyResult<Vec<PathAndReason<'py>>> {
        let entry = |summary: Summary<'_>| {
            let reason = to_reason(py, reason(&summary)?);
            let path = fsdecode(py, summary.file.path);
            Some(path.and_then(|path| Ok((path, reason?))))
        };
        self.0.with_reasons().filter_map(entry).collect()
    }
}

#[pyclass(name = "Totals", module = "distill._native", frozen, get_all)]
pub(crate) struct PyTotals {
    files: u64,
    contents: u64,
    skipped: u64,
    rows: u64,
    silent: u64,
    sums: [f64; 5],
    dead_rows: u64,
    pack_bytes: u64,
}

impl From<Totals> for PyTotals {
    fn from(totals: Totals) -> Self {
        PyTotals {
            files: totals.files,
            contents: totals.contents,
            skipped: totals.skipped,
            rows: totals.rows,
            silent: totals.silent,
            sums: totals.sums,
            dead_rows: totals.dead_rows,
            pack_bytes: totals.pack_bytes,
        }
    }
}

fn segment((pack, first, rows): (u64, u64, u64)) -> Segment {
    Segment { pack, first, rows }
}

fn trust_from(name: &str) -> PyResult<Trust> {
    match name {
        "stat" => Ok(Trust::Stat),
        "content" => Ok(Trust::Content),
        _ => Err(PyValueError::new_err(format!(
            "trust={name:?} must be \"stat\" or \"content\""
        ))),
    }
}

fn hashing_from(name: &str) -> PyResult<Hashing> {
    match name {
        "all" => Ok(Hashing::All),
        "same-size" => Ok(Hashing::SameSize),
        "none" => Ok(Hashing::None),
        _ => Err(PyValueError::new_err(format!(
            "hashing={name:?} must be \"all\", \"same-size\" or \"none\""
        ))),
    }
}

fn hex(hash: &[u8]) -> String {
    hash.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // cannot fail for a String
        text
    })
}
