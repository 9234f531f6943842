//! The codecs of symphonia, fed with packets.

use symphonia::core::audio::{layouts, Channels};
use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_AAC, CODEC_ID_ALAC, CODEC_ID_FLAC, CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3,
};
use symphonia::core::codecs::audio::{
    AudioCodecId, AudioCodecParameters, AudioDecoder, AudioDecoderOptions,
};
use symphonia::core::errors::Error;
use symphonia::core::packet::PacketRef;
use symphonia::core::units::{Duration, Timestamp};
use symphonia::default::codecs::{AacDecoder, AlacDecoder, FlacDecoder, MpaDecoder};

use crate::decoder::Format;
use crate::fault::Fault;

/// A codec of symphonia with its state.
pub(crate) struct Codec {
    decoder: Box<dyn AudioDecoder>,
    scratch: Vec<f32>,
}

impl Codec {
    /// MPEG audio of a layer, 1 to 3.
    pub(crate) fn mpeg(layer: u8) -> Result<Self, Fault> {
        let id = [CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3][usize::from(layer).clamp(1, 3) - 1];
        let params = parameters(id, None);
        Self::new(MpaDecoder::try_new(&params, &options()))
    }

    /// AAC-LC of one or two channels.
    pub(crate) fn aac(format: Format) -> Result<Self, Fault> {
        let mut params = parameters(CODEC_ID_AAC, None);
        let channels = match format.channels {
            1 => layouts::CHANNEL_LAYOUT_MONO,
            2 => layouts::CHANNEL_LAYOUT_STEREO,
            count => {
                let codec = format!("AAC with {count} channels");
                return Err(Fault::needs_ffmpeg(&codec));
            }
        };
        params
            .with_channels(channels)
            .with_sample_rate(format.sample_rate);
        Self::new(AacDecoder::try_new(&params, &options()))
    }

    /// ALAC; `cookie` is its configuration.
    pub(crate) fn alac(cookie: &[u8]) -> Result<Self, Fault> {
        Self::new(AlacDecoder::try_new(
            &parameters(CODEC_ID_ALAC, Some(cookie)),
            &options(),
        ))
    }

    /// FLAC; `info` is the STREAMINFO block.
    pub(crate) fn flac(info: &[u8]) -> Result<Self, Fault> {
        Self::new(FlacDecoder::try_new(
            &parameters(CODEC_ID_FLAC, Some(info)),
            &options(),
        ))
    }

    fn new<D: AudioDecoder + 'static>(
        decoder: symphonia::core::errors::Result<D>,
    ) -> Result<Self, Fault> {
        match decoder {
            Ok(decoder) => Ok(Self {
                decoder: Box::new(decoder),
                scratch: Vec::new(),
            }),
            Err(error) => Err(Fault::not_decodable(format!(
                "cannot be decoded: {}",
                words(&error)
            ))),
        }
    }

    /// Format that the configuration states, if it does.
    pub(crate) fn format(&self) -> Option<Format> {
        let params = self.decoder.codec_params();
        Some(Format {
            sample_rate: params.sample_rate?,
            channels: params.channels.as_ref().map(Channels::count)?,
        })
    }

    /// Decodes a packet to interleaved samples, which stay until the next call.
    pub(crate) fn decode(&mut self, packet: &[u8]) -> Result<(&[f32], Format), Error> {
        let packet = PacketRef::new(0, Timestamp::ZERO, Duration::ZERO, packet);
        let buffer = self.decoder.decode_ref(&packet)?;
        let format = Format {
            sample_rate: buffer.spec().rate(),
            channels: buffer.spec().channels().count(),
        };
        buffer.copy_to_vec_interleaved(&mut self.scratch);
        Ok((&self.scratch, format))
    }
}

/// The codecs of a file whose format changes, one for each: to make one takes longer than to
/// decode a second of sound, and a file may have thousands of parts.
pub(crate) struct Codecs<Key> {
    /// The last one is in use.
    all: Vec<(Key, Codec)>,
}

impl<Key: PartialEq> Codecs<Key> {
    pub(crate) fn new() -> Self {
        Self { all: Vec::new() }
    }

    /// Returns the codec for `key`, without state if another one was used last.
    pub(crate) fn get(
        &mut self,
        key: Key,
        make: impl FnOnce() -> Result<Codec, Fault>,
    ) -> Result<&mut Codec, Fault> {
        let found = self.all.iter().position(|(other, _)| *other == key);
        let entry = match found {
            Some(at) if at + 1 == self.all.len() => self.all.swap_remove(at),
            Some(at) => {
                let mut entry = self.all.swap_remove(at);
                entry.1.decoder.reset();
                entry
            }
            None => (key, make()?),
        };
        self.all.push(entry);
        let last = self.all.len() - 1;
        Ok(&mut self.all[last].1)
    }

    /// Takes the state of the codec in use, because another part begins.
    pub(crate) fn reset(&mut self) {
        if let Some((_, codec)) = self.all.last_mut() {
            codec.decoder.reset();
        }
    }
}

fn options() -> AudioDecoderOptions {
    AudioDecoderOptions::default().gapless(false)
}

fn parameters(codec: AudioCodecId, extra: Option<&[u8]>) -> AudioCodecParameters {
    let mut params = AudioCodecParameters::new();
    params.for_codec(codec);
    if let Some(extra) = extra {
        params.with_extra_data(extra.into());
    }
    params
}

/// What symphonia says, without the name of its module.
pub(crate) fn words(error: &Error) -> String {
    match error {
        Error::DecodeError(text) | Error::Unsupported(text) => {
            text.split_once(": ").map_or(*text, |(_, rest)| rest).into()
        }
        Error::IoError(_) => "a packet ends too early".into(),
        other => other.to_string(),
    }
}
