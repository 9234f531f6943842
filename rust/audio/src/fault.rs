//! Why a file cannot be decoded, or not be decoded any further.

use std::io;

/// Why decoding ends before the end of the sound.
#[derive(Debug)]
pub enum Fault {
    /// The system could not read the file. Says nothing about its content.
    Io(io::Error),
    /// The content; in words for those who own the file.
    Bad {
        /// For programs: `cut-short`, `damaged`, `not-decodable` or `needs-ffmpeg`.
        code: &'static str,
        /// For people.
        text: String,
    },
    /// Not what this decoder is for; another one may read it.
    NotForMe,
}

impl Fault {
    pub(crate) fn damaged(text: impl Into<String>) -> Self {
        Self::bad("damaged", text)
    }

    /// Damage behind the frames that could be decoded.
    pub(crate) fn damaged_after(frames: u64, what: &str) -> Self {
        match frames {
            0 => Self::no_frame(),
            _ => Self::damaged(format!("damaged: {what} after {frames} frames")),
        }
    }

    pub(crate) fn no_frame() -> Self {
        Self::damaged("damaged: no frame of it can be decoded")
    }

    pub(crate) fn cut_short(text: impl Into<String>) -> Self {
        Self::bad("cut-short", text)
    }

    pub(crate) fn not_decodable(text: impl Into<String>) -> Self {
        Self::bad("not-decodable", text)
    }

    /// A codec that FFmpeg decodes, and this crate does not.
    pub(crate) fn needs_ffmpeg(codec: &str) -> Self {
        let text =
            format!("holds {codec}, which is read with FFmpeg: pip install 'distill[ffmpeg]'");
        Self::bad("needs-ffmpeg", text)
    }

    /// Fewer frames than a header promises.
    pub(crate) fn missing_frames(promised: u64, decoded: u64) -> Self {
        Self::cut_short(format!(
            "cut short: its header promises {promised} frames, {decoded} can be decoded"
        ))
    }

    fn bad(code: &'static str, text: impl Into<String>) -> Self {
        let text = text.into();
        Self::Bad { code, text }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
