//! The extension module `distill._native`: Python bindings of the crates of `rust/`.
//!
//! Converts types and errors, and releases the GIL during long operations. The
//! Python interface is documented in `_native.pyi`.

mod checksum;
mod convert;
mod decoder;
mod features;
mod file_table;
mod inverse;
mod live;
mod manifest;
mod packs;
mod progress;
mod samples;
mod scan;
mod source;

#[pyo3::pymodule]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::checksum::{hash_bytes, hash_file, row_checksums};
    #[pymodule_export]
    use crate::convert::{ManifestError, NewerFormatError};
    #[pymodule_export]
    use crate::decoder::{DecodeError, PyDecoder};
    #[pymodule_export]
    use crate::features::PyMelKernel;
    #[pymodule_export]
    use crate::file_table::PyFileTable;
    #[pymodule_export]
    use crate::inverse::PyMelInverse;
    #[pymodule_export]
    use crate::live::PyLive;
    #[pymodule_export]
    use crate::manifest::{PyManifest, PyTotals};
    #[pymodule_export]
    use crate::packs::{pack_checksums, read_rows, read_stored_rows, PyChecksums, PyPackFile};
    #[pymodule_export]
    use crate::samples::{mix_stereo, row_sums, sample_range, sample_sum};
    #[pymodule_export]
    use crate::scan::PyScan;
    #[pymodule_export]
    use crate::source::PyByteSource;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
