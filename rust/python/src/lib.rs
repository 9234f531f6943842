//! The extension module `distill._native`: a thin edge over `distill-index` and
//! `distill-features`.
//!
//! Here types are converted, errors become Python's own, and the GIL is
//! released around work. What the module offers is documented in `_native.pyi`.

mod checksum;
mod convert;
mod features;
mod manifest;
mod scan;
mod watch;

#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use crate::checksum::{hash_bytes, hash_file, row_checksums};
    #[pymodule_export]
    use crate::convert::ManifestError;
    #[pymodule_export]
    use crate::features::PyMelKernel;
    #[pymodule_export]
    use crate::manifest::{PyManifest, PyTotals};
    #[pymodule_export]
    use crate::scan::PyScan;
}
