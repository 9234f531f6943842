//! `distill._native.MelInverse`.

use distill_features::{FitTables, FrequencyTables, Inverse, Matrices, Sparse};
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
    #[pyo3(signature = (*, n_fft, hop_length, bins, atoms, lobes, centre, half_support))]
    #[allow(clippy::too_many_arguments)] // keyword-only in Python
    fn new(
        n_fft: usize,
        hop_length: usize,
        bins: [Bags; 3],
        atoms: Option<[Bags; 3]>,
        lobes: Option<Bags>,
        centre: PyReadonlyArray1<f32>,
        half_support: PyReadonlyArray1<f32>,
    ) -> PyResult<Self> {
        let bands = centre.len();
        let frequency = match (atoms, lobes) {
            (Some(atoms), Some(lobes)) => Some(FrequencyTables {
                lobes: matrix(&lobes, rows(&atoms[1]))?,
                atoms: matrices(&atoms, bands)?,
                centre: centre.as_slice()?.to_vec(),
                half_support: half_support.as_slice()?.to_vec(),
            }),
            _ => None,
        };
        let tables = FitTables {
            bins: matrices(&bins, bands)?,
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

/// The matrices of a fit: atoms to targets, targets to atoms, bands to atoms.
fn matrices([to_targets, from_targets, spread]: &[Bags; 3], bands: usize) -> PyResult<Matrices> {
    Ok(Matrices {
        to_targets: matrix(to_targets, rows(from_targets))?,
        from_targets: matrix(from_targets, rows(to_targets))?,
        spread: matrix(spread, bands)?,
    })
}

fn rows((_, offsets, _): &Bags) -> usize {
    offsets.len().saturating_sub(1)
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
