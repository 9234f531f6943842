//! Passes over samples and rows in one go each, without the GIL.

use numpy::{PyArray1, PyReadonlyArray1, PyReadonlyArray2, PyReadonlyArray3, PyReadonlyArrayDyn};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Sums that are added up side by side, so that the additions need not wait for
/// each other.
const LANES: usize = 32;

#[pyfunction]
pub(crate) fn mix_stereo<'py>(
    py: Python<'py>,
    samples: PyReadonlyArray2<f32>,
) -> PyResult<Bound<'py, PyArray1<f32>>> {
    let (pairs, rest) = samples.as_slice()?.as_chunks::<2>();
    if samples.as_array().ncols() != 2 || !rest.is_empty() {
        return Err(PyValueError::new_err("samples must have two channels"));
    }
    // Halved before they are added, because the sum of two floats near the limit
    // overflows. Halving is exact.
    let mix = |&[left, right]: &[f32; 2]| left * 0.5 + right * 0.5;
    let mono = py.detach(|| pairs.iter().map(mix).collect());
    Ok(PyArray1::from_vec(py, mono))
}

#[pyfunction]
pub(crate) fn sample_range(py: Python, samples: PyReadonlyArrayDyn<f32>) -> PyResult<(f32, f32)> {
    let samples = samples.as_slice()?;
    if samples.is_empty() {
        return Err(PyValueError::new_err("there are no samples"));
    }
    Ok(py.detach(|| range(samples)))
}

#[pyfunction]
pub(crate) fn sample_sum(py: Python, samples: PyReadonlyArray1<f32>) -> PyResult<f64> {
    let samples = samples.as_slice()?;
    Ok(py.detach(|| sums(samples).0))
}

#[pyfunction]
pub(crate) fn row_sums(py: Python, rows: PyReadonlyArray3<f32>) -> PyResult<Vec<(f64, f64)>> {
    let [_, channels, values] = *rows.as_array().shape() else {
        return Ok(Vec::new());
    };
    let rows = rows.as_slice()?;
    if channels * values == 0 {
        return Ok(vec![(0.0, 0.0); channels]);
    }
    Ok(py.detach(|| {
        let mut found = vec![(0.0, 0.0); channels];
        for row in rows.chunks_exact(channels * values) {
            for (total, values) in found.iter_mut().zip(row.chunks_exact(values)) {
                let (sum, squares) = sums(values);
                *total = (total.0 + sum, total.1 + squares);
            }
        }
        found
    }))
}

/// The smallest and the largest value; NaN if any of them is NaN.
fn range(values: &[f32]) -> (f32, f32) {
    let (lanes, rest) = values.as_chunks::<LANES>();
    let mut low = [f32::INFINITY; LANES];
    let mut high = [f32::NEG_INFINITY; LANES];
    let mut has_nan = false;
    let mut add = |lane: usize, value: f32| {
        low[lane] = if value < low[lane] { value } else { low[lane] };
        high[lane] = if value > high[lane] {
            value
        } else {
            high[lane]
        };
        has_nan |= value.is_nan();
    };
    for values in lanes {
        for (lane, &value) in values.iter().enumerate() {
            add(lane, value);
        }
    }
    for (lane, &value) in rest.iter().enumerate() {
        add(lane, value);
    }
    if has_nan {
        return (f32::NAN, f32::NAN);
    }
    (
        low.into_iter().fold(f32::INFINITY, f32::min),
        high.into_iter().fold(f32::NEG_INFINITY, f32::max),
    )
}

/// The sums of the values and of their squares.
fn sums(values: &[f32]) -> (f64, f64) {
    let (lanes, rest) = values.as_chunks::<LANES>();
    let (mut sums, mut squares) = ([0.0; LANES], [0.0; LANES]);
    for values in lanes {
        for (lane, &value) in values.iter().enumerate() {
            let value = f64::from(value);
            sums[lane] += value;
            squares[lane] += value * value;
        }
    }
    for (lane, &value) in rest.iter().enumerate() {
        let value = f64::from(value);
        sums[lane] += value;
        squares[lane] += value * value;
    }
    (sums.iter().sum(), squares.iter().sum())
}
