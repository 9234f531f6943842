//! `distill._native.MelInverse`.

use distill_features::{FitTables, FrequencyTables, Inverse, Sparse};
use numpy::{PyReadonlyArray1, PyReadonlyArray4, PyReadwriteArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::features::to_python;

#[pyclass(frozen, name = "MelInverse", module = "distill._native")]
pub(crate) struct PyMelInverse(Inverse);

/// A sparse matrix from Python: columns, offsets and weights.
type Bags<'py> = (
    PyReadonlyArray1<'py, i32>,
    PyReadonlyArray1<'py, i32>,
    PyReadonlyArray1<'py, f32>,
);

#[pymethods]
impl PyMelInverse {
    #[new]
    #[pyo3(signature = (*, n_fft, hop_length, to_targets, from_targets, spread, atoms, centre, half_support, near, lobes))]
    #[allow(clippy::too_many_arguments)] // keyword-only in Python
    fn new(
        n_fft: usize,
        hop_length: usize,
        to_targets: Bags,
        from_targets: Bags,
        spread: Bags,
        atoms: PyReadonlyArray1<f32>,
        centre: PyReadonlyArray1<f32>,
        half_support: PyReadonlyArray1<f32>,
        near: Option<Bags>,
        lobes: Option<Bags>,
    ) -> PyResult<Self> {
        let (count, bands) = (atoms.len(), centre.len());
        let targets = to_targets.1.len().saturating_sub(1);
        let frequency = match (near, lobes) {
            (Some(near), Some(lobes)) => Some(FrequencyTables {
                atoms: atoms.as_slice()?.to_vec(),
                near: matrix(&near, count)?,
                lobes: matrix(&lobes, count)?,
                centre: centre.as_slice()?.to_vec(),
                half_support: half_support.as_slice()?.to_vec(),
            }),
            _ => None,
        };
        let tables = FitTables {
            to_targets: matrix(&to_targets, count)?,
            from_targets: matrix(&from_targets, targets)?,
            spread: matrix(&spread, bands)?,
            frequency,
        };
        Inverse::new(n_fft, hop_length, tables)
            .map(PyMelInverse)
            .map_err(to_python)
    }

    fn compute(
        &self,
        py: Python,
        features: PyReadonlyArray4<f32>,
        mut out: PyReadwriteArray2<f32>,
        n_iter: usize,
        threads: usize,
    ) -> PyResult<()> {
        let [clips, channels, bands, frames] = *features.as_array().shape() else {
            return Err(PyValueError::new_err("features must have four dimensions"));
        };
        let expected = self.0.row_shape();
        if [channels, bands] != expected || out.shape()[0] != clips {
            return Err(PyValueError::new_err(format!(
                "features {:?} must have {expected:?} channels and bands, and as many clips as out {:?}",
                features.shape(),
                out.shape()
            )));
        }
        let samples = out.shape()[1];
        let (features, out) = (features.as_slice()?, out.as_slice_mut()?);
        py.detach(|| {
            self.0
                .compute(features, frames, n_iter, samples, out, threads)
        })
        .map_err(to_python)
    }
}

fn matrix((columns, offsets, weights): &Bags, count: usize) -> PyResult<Sparse> {
    let (columns, weights) = (columns.as_slice()?, weights.as_slice()?);
    if columns.len() != weights.len() {
        return Err(PyValueError::new_err(format!(
            "a matrix has {} columns and {} weights",
            columns.len(),
            weights.len()
        )));
    }
    let mut entries = Vec::with_capacity(columns.len());
    for (&column, &weight) in columns.iter().zip(weights) {
        entries.push((u32::try_from(column)?, weight));
    }
    let offsets = offsets
        .as_slice()?
        .iter()
        .map(|&offset| u32::try_from(offset));
    let offsets = offsets.collect::<Result<Vec<_>, _>>()?;
    Sparse::new(entries, offsets, count).map_err(to_python)
}
