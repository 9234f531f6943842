//! The manifest file: read whole, replaced whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::OFlags;

use super::Manifest;
use crate::{Error, Result};

/// Ten million files need about 5 GB. A larger file is none of ours.
const MAX_BYTES: u64 = 16 << 30;

impl Manifest {
    /// Reads and checks the manifest at `path`.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = read_regular(path)?;
        Manifest::from_bytes(&bytes)
    }

    /// Replaces the manifest at `path`, durably and at once: whoever reads it,
    /// now or after a crash, gets the old one or the new one.
    pub fn save(&self, path: &Path) -> Result<()> {
        let bytes = self.to_bytes()?;
        let temporary = beside(path)?;
        let result = write_durably(&temporary, &bytes).and_then(|()| replace(&temporary, path));
        if result.is_err() {
            // The first error tells more than one from this would.
            let _ = fs::remove_file(&temporary);
        }
        result
    }
}

fn read_regular(path: &Path) -> Result<Vec<u8>> {
    let failed = |error: io::Error| Error::io(path, error);
    let mut options = OpenOptions::new();
    // Without waiting, should a FIFO stand there.
    let options = options
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32);
    let mut file = options.open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Error::Manifest("it is not a regular file".into()));
    }
    if metadata.len() > MAX_BYTES {
        return Err(Error::Manifest(format!(
            "its {} bytes exceed {MAX_BYTES}",
            metadata.len()
        )));
    }
    let mut bytes = Vec::new();
    let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    bytes
        .try_reserve_exact(size)
        .map_err(|_| Error::Manifest("it does not fit into memory".into()))?;
    file.read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// A name in the same folder that no other writer uses: `.NAME.PID-N.tmp`.
/// What a killed writer leaves behind may be removed by whoever holds the lock.
fn beside(path: &Path) -> Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        return Err(Error::Invalid(format!("{} names no file", path.display())));
    };
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    temporary.push(format!(".{}-{next}.tmp", std::process::id()));
    Ok(path.with_file_name(temporary))
}

fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        // Never through a link that someone planted under that name.
        let options = options
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32);
        let mut file = options.open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| Error::io(path, error))
}

/// The commit is the rename; the folder's fsync makes it last.
fn replace(temporary: &Path, path: &Path) -> Result<()> {
    let failed = |error| Error::io(path, error);
    fs::rename(temporary, path).map_err(failed)?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let folder = File::open(parent.unwrap_or(Path::new("."))).map_err(failed)?;
    folder.sync_all().map_err(failed)
}
