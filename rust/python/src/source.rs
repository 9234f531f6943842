//! The bytes of a file that is decoded.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use distill_audio::{read_samples, ByteSource, Encoding, Form};
use distill_index::{Progress, Stage};
use numpy::PyArray1;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::convert::{io_to_python, AnyPath};
use crate::progress::PythonProgress;

/// Shared with the decoders in Rust, which read without the GIL.
pub(crate) type SharedSource = Arc<Mutex<ByteSource>>;

#[pyclass(name = "ByteSource", module = "distill._native", frozen)]
pub(crate) struct PyByteSource {
    pub(crate) path: PathBuf,
    pub(crate) source: SharedSource,
}

impl PyByteSource {
    fn lock(&self) -> MutexGuard<'_, ByteSource> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl PyByteSource {
    #[new]
    fn new(py: Python<'_>, path: AnyPath) -> PyResult<Self> {
        let source = py
            .detach(|| ByteSource::open(&path.0))
            .map_err(|error| io_to_python(error, &path.0))?;
        Ok(Self {
            path: path.0,
            source: Arc::new(Mutex::new(source)),
        })
    }

    #[getter]
    fn size(&self, py: Python<'_>) -> u64 {
        py.detach(|| self.lock().size())
    }

    #[getter]
    fn bytes_read(&self, py: Python<'_>) -> u64 {
        py.detach(|| self.lock().bytes_read())
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.lock().close());
    }

    fn read_at<'py>(
        &self,
        py: Python<'py>,
        offset: u64,
        length: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let rest = py.detach(|| self.lock().size()).saturating_sub(offset);
        let length = length.min(usize::try_from(rest).unwrap_or(usize::MAX));
        let mut count = 0;
        let bytes = PyBytes::new_with(py, length, |to| {
            count = py
                .detach(|| self.lock().read_into(offset, to))
                .map_err(|error| io_to_python(error, &self.path))?;
            Ok(())
        })?;
        if count < length {
            // The file is shorter than it was when it was opened.
            return Ok(PyBytes::new(py, &bytes.as_bytes()[..count]));
        }
        Ok(bytes)
    }

    #[allow(clippy::too_many_arguments)]
    fn read_samples<'py>(
        &self,
        py: Python<'py>,
        offset: u64,
        length: usize,
        form: &str,
        width: usize,
        big_endian: bool,
        full_scale: f32,
    ) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let encoding = Encoding {
            form: form_of(form, width)?,
            big_endian,
            full_scale,
        };
        let rest = py.detach(|| self.lock().size()).saturating_sub(offset);
        let length = length.min(usize::try_from(rest).unwrap_or(usize::MAX));
        let samples = py
            .detach(|| read_samples(&mut self.lock(), offset, length, encoding))
            .map_err(|error| io_to_python(error, &self.path))?;
        Ok(PyArray1::from_vec(py, samples))
    }

    #[pyo3(signature = (on_block = None))]
    fn digest<'py>(
        &self,
        py: Python<'py>,
        on_block: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let progress = PythonProgress::new(on_block);
        let digest = py.detach(|| {
            self.lock().digest(&|| {
                progress.report(Stage::Hash, 0, 0);
                progress.should_stop()
            })
        });
        progress.finish(py)?;
        let digest = digest.map_err(|error| io_to_python(error, &self.path))?;
        Ok(PyBytes::new(py, &digest))
    }
}

fn form_of(form: &str, width: usize) -> PyResult<Form> {
    Ok(match (form, width) {
        ("signed", 1) => Form::Signed8,
        ("signed", 2) => Form::Signed16,
        ("signed", 3) => Form::Signed24,
        ("signed", 4) => Form::Signed32,
        ("unsigned", 1) => Form::Unsigned8,
        ("float", 4) => Form::Float32,
        ("float", 8) => Form::Float64,
        ("mulaw", 1) => Form::MuLaw,
        ("alaw", 1) => Form::ALaw,
        _ => {
            let message = format!("no samples of {width} bytes: {form}");
            return Err(PyValueError::new_err(message));
        }
    })
}
