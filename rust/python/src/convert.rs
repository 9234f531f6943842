//! Conversion of paths, hashes and errors between Rust and Python.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use distill_index::{Error, Hash, SkipReason, UNUSABLE};
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyKeyboardInterrupt, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString, PyType};

create_exception!(distill._native, ManifestError, PyValueError);
create_exception!(distill._native, NewerFormatError, PyException);

/// A path given as `str`, `bytes` or `os.PathLike`, converted by `os.fsencode`.
pub(crate) struct AnyPath(pub(crate) PathBuf);

impl<'a, 'py> FromPyObject<'a, 'py> for AnyPath {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let os = object.py().import("os")?;
        let bytes = os.call_method1("fsencode", (object,))?;
        let bytes = bytes.cast::<PyBytes>()?.as_bytes().to_vec();
        Ok(AnyPath(OsString::from_vec(bytes).into()))
    }
}

/// A path as `str`, converted as by `os.fsdecode`.
pub(crate) fn fsdecode<'py>(py: Python<'py>, path: &[u8]) -> PyResult<Bound<'py, PyString>> {
    Ok(OsStr::from_bytes(path).into_pyobject(py)?)
}

/// A reason as `distill.types.Reason`: a `str` with its code.
pub(crate) fn to_reason<'py>(py: Python<'py>, reason: &SkipReason) -> PyResult<Bound<'py, PyAny>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = CLASS.import(py, "distill.types", "Reason")?;
    class.call1((&*reason.text, &*reason.code))
}

/// A reason from a `str`, with its code if it has one.
pub(crate) fn reason_from(reason: &Bound<'_, PyString>) -> PyResult<SkipReason> {
    let code = match reason.getattr_opt("code")? {
        Some(code) => code.extract()?,
        None => UNUSABLE.to_owned(),
    };
    Ok(SkipReason::new(code, reason.extract()?))
}

pub(crate) fn hash_from(bytes: &[u8]) -> PyResult<Hash> {
    bytes.try_into().map_err(|_| {
        let length = bytes.len();
        PyValueError::new_err(format!("hash must have 32 bytes, not {length}"))
    })
}

/// The Python exception for an error. An I/O error with an errno becomes
/// `FileNotFoundError`, `PermissionError` and so on, with the path.
pub(crate) fn to_python(error: Error) -> PyErr {
    match error {
        Error::Io { path, source } => match source.raw_os_error() {
            Some(errno) => PyOSError::new_err((errno, strerror(&source), path.into_os_string())),
            None => PyOSError::new_err(format!("{}: {source}", path.display())),
        },
        Error::Manifest(reason) => ManifestError::new_err(reason),
        Error::Newer { .. } => NewerFormatError::new_err(error.to_string()),
        Error::Invalid(reason) => PyValueError::new_err(reason),
        Error::Interrupted => PyKeyboardInterrupt::new_err(()),
    }
}

/// The Python exception for an I/O error of the file at `path`.
pub(crate) fn io_to_python(source: std::io::Error, path: &std::path::Path) -> PyErr {
    to_python(Error::Io {
        path: path.to_owned(),
        source,
    })
}

/// The message of an I/O error, without the number that Rust appends.
fn strerror(source: &std::io::Error) -> String {
    let text = source.to_string();
    let bare = text.split(" (os error").next().map(str::to_owned);
    bare.unwrap_or(text)
}
