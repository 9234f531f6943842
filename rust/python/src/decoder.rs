//! Decoding of a file without the GIL.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use distill_audio::{Decoder, Fault, Kind};
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;

use crate::convert::io_to_python;
use crate::source::PyByteSource;

create_exception!(distill._native, DecodeError, PyException);

/// The kinds by their names in the table of readers.
const KINDS: [(&str, Kind); 6] = [
    ("mpeg", Kind::Mpeg),
    ("adts", Kind::Adts),
    ("mp4", Kind::Mp4),
    ("flac", Kind::Flac),
    ("ogg-flac", Kind::OggFlac),
    ("caf", Kind::Caf),
];

#[pyclass(name = "Decoder", module = "distill._native", frozen)]
pub(crate) struct PyDecoder {
    path: PathBuf,
    #[pyo3(get)]
    sample_rate: u32,
    #[pyo3(get)]
    channels: usize,
    #[pyo3(get)]
    frames: Option<u64>,
    decoder: Mutex<Decoder>,
}

#[pymethods]
impl PyDecoder {
    #[new]
    fn new(py: Python<'_>, source: &PyByteSource, kind: &str) -> PyResult<Self> {
        let Some(&(_, kind)) = KINDS.iter().find(|(name, _)| *name == kind) else {
            return Err(PyValueError::new_err(format!("unknown kind \"{kind}\"")));
        };
        let shared = source.source.clone();
        let decoder = py
            .detach(|| Decoder::open(Box::new(shared), kind))
            .map_err(|fault| to_python(fault, &source.path))?;
        let format = decoder.format();
        Ok(Self {
            path: source.path.clone(),
            sample_rate: format.sample_rate,
            channels: format.channels,
            frames: decoder.frames(),
            decoder: Mutex::new(decoder),
        })
    }

    fn next_block<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<Option<(Bound<'py, PyArray2<f32>>, u32)>> {
        let block = py
            .detach(|| {
                let mut decoder = self.decoder.lock().unwrap_or_else(PoisonError::into_inner);
                decoder.next_block()
            })
            .map_err(|fault| to_python(fault, &self.path))?;
        let Some(block) = block else {
            return Ok(None);
        };
        let shape = [
            block.samples.len() / block.format.channels,
            block.format.channels,
        ];
        let samples = PyArray1::from_vec(py, block.samples).reshape(shape)?;
        Ok(Some((samples, block.format.sample_rate)))
    }
}

fn to_python(fault: Fault, path: &std::path::Path) -> PyErr {
    match fault {
        Fault::Io(error) => io_to_python(error, path),
        Fault::Bad { code, text } => DecodeError::new_err((text, code)),
        Fault::NotForMe => DecodeError::new_err(("is of another kind", None::<&str>)),
    }
}
