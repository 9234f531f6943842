//! Reads and decodes audio files.
//!
//! [`ByteSource`] is an open file. [`Decoder`] decodes one: containers and frames
//! are found by the code here, because what other people's files get wrong is
//! mostly there; the samples are decoded by symphonia.
#![forbid(unsafe_code)]

mod aac;
mod adts;
mod caf;
mod codec;
mod decoder;
mod fault;
mod flac;
mod flac_frame;
mod flac_part;
mod frames;
mod mp4;
mod mp4_config;
mod mp4_fragments;
mod mp4_table;
mod mpeg;
mod ogg_flac;
mod ogg_packets;
mod packets;
mod pcm;
mod source;
mod tags;
mod window;

pub use decoder::{Block, Decoder, Format, Kind};
pub use fault::Fault;
pub use pcm::{read_samples, Encoding, Form};
pub use source::ByteSource;
pub use window::Input;
