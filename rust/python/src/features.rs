//! `distill._native.MelKernel`.

use std::f32::consts::LOG10_E;

use distill_features::{Band, Compression, Error, Kernel, Shape, Sum};
use numpy::{PyReadonlyArray1, PyReadonlyArray2, PyReadwriteArray4, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

#[pyclass(frozen, name = "MelKernel", module = "distill._native")]
pub(crate) struct PyMelKernel(Kernel);

#[pymethods]
impl PyMelKernel {
    #[new]
    #[pyo3(signature = (*, n_fft, hop_length, first, width, filterbank, centre, half_support, if_masking_threshold, center, power, compression, floor))]
    #[allow(clippy::too_many_arguments)] // keyword-only in Python
    fn new(
        n_fft: usize,
        hop_length: usize,
        first: PyReadonlyArray1<i64>,
        width: PyReadonlyArray1<i64>,
        filterbank: PyReadonlyArray2<f64>,
        centre: PyReadonlyArray1<f64>,
        half_support: PyReadonlyArray1<f64>,
        if_masking_threshold: Option<f32>,
        center: bool,
        power: u32,
        compression: &str,
        floor: f32,
    ) -> PyResult<Self> {
        let filterbank = filterbank.as_array();
        let (first, width) = (first.as_array(), width.as_array());
        let (centre, half_support) = (centre.as_array(), half_support.as_array());
        let counts = [first.len(), width.len(), centre.len(), half_support.len()];
        if counts.iter().any(|&count| count != filterbank.ncols()) {
            return Err(PyValueError::new_err(format!(
                "first, width, centre and half_support have {counts:?} bands; filterbank has {}",
                filterbank.ncols()
            )));
        }
        let mut bands = Vec::with_capacity(first.len());
        for m in 0..first.len() {
            let (first, width) = (usize::try_from(first[m])?, usize::try_from(width[m])?);
            let column = filterbank.column(m);
            bands.push(Band {
                first,
                weights: column.iter().skip(first).take(width).copied().collect(),
                centre: centre[m],
                half_support: half_support[m],
            });
        }
        let shape = Shape {
            n_fft,
            hop_length,
            center,
            sum: sum(power)?,
            compression: compression_of(compression, power, floor)?,
            if_masking_threshold,
        };
        Kernel::new(shape, &bands)
            .map(PyMelKernel)
            .map_err(to_python)
    }

    fn compute(
        &self,
        py: Python,
        waveform: PyReadonlyArray2<f32>,
        mut out: PyReadwriteArray4<f32>,
        threads: usize,
    ) -> PyResult<()> {
        let (clips, samples) = (waveform.shape()[0], waveform.shape()[1]);
        let [channels, bands, frames] = self.0.row_shape(samples);
        let expected = [clips, channels, bands, frames];
        if out.shape() != expected {
            return Err(PyValueError::new_err(format!(
                "out has shape {:?}; the features have shape {expected:?}",
                out.shape()
            )));
        }
        let (clips, out) = (waveform.as_slice()?, out.as_slice_mut()?);
        py.detach(|| self.0.compute(clips, samples, out, threads))
            .map_err(to_python)
    }
}

fn sum(power: u32) -> PyResult<Sum> {
    match power {
        1 => Ok(Sum::Magnitude),
        2 => Ok(Sum::Power),
        _ => Err(PyValueError::new_err(format!(
            "power={power} must be 1 or 2"
        ))),
    }
}

fn compression_of(name: &str, power: u32, floor: f32) -> PyResult<Compression> {
    let decibels = 20.0 / power as f32;
    let factor = match name {
        "none" => return Ok(Compression::None),
        "log1p" => return Ok(Compression::Log1p),
        "log" => 1.0,
        "log10" => LOG10_E,
        "db" => decibels * LOG10_E,
        _ => {
            return Err(PyValueError::new_err(format!(
                "compression={name:?} must be log1p, log, log10, db or none"
            )))
        }
    };
    Ok(Compression::Log { floor, factor })
}

pub(crate) fn to_python(error: Error) -> PyErr {
    PyValueError::new_err(error.to_string())
}
