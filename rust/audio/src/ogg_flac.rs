//! FLAC in Ogg, also in several streams one after the other.

use crate::decoder::{Format, Stream};
use crate::fault::Fault;
use crate::flac_frame::crc16;
use crate::flac_part::{Part, StreamInfo};
use crate::ogg_packets::Packets;
use crate::window::Window;

/// Before the STREAMINFO block: mark, version, number of packets, `fLaC` and the block's head.
const MAPPING_HEAD: usize = 17;

/// A chain of Ogg streams with FLAC.
pub(crate) struct OggFlac {
    packets: Packets,
    first: Format,
    promised: Option<u64>,
    part: Option<Part>,
    /// What is missing of the parts before.
    fault: Option<Fault>,
}

impl OggFlac {
    pub(crate) fn open(window: Window) -> Result<Self, Fault> {
        let mut packets = Packets::new(window);
        let Some(true) = packets.next()? else {
            return Err(Fault::NotForMe);
        };
        let part = Part::new(read_info(&packets.packet)?);
        Ok(Self {
            packets,
            first: part.info.format,
            promised: part.info.frames,
            part: Some(part),
            fault: None,
        })
    }

    /// Compares a part with what its header promises. If that is nothing, its last page tells.
    fn end_part(&mut self) {
        let Some(part) = &self.part else { return };
        let decoded = part.progress.decoded;
        let missing = match part.progress.end() {
            Err(fault) => Some(fault),
            Ok(()) if part.progress.is_complete() || self.packets.is_finished => None,
            Ok(()) => Some(Fault::cut_short(format!(
                "cut short: the last page of its Ogg stream is missing, {decoded} frames can be decoded"
            ))),
        };
        self.fault = self.fault.take().or(missing);
    }
}

fn read_info(packet: &[u8]) -> Result<StreamInfo, Fault> {
    StreamInfo::parse(packet.get(MAPPING_HEAD..).unwrap_or_default())
}

impl Stream for OggFlac {
    fn format(&self) -> Format {
        self.first
    }

    fn frames(&self) -> Option<u64> {
        self.promised
    }

    fn next(&mut self, samples: &mut Vec<f32>) -> Result<Option<Format>, Fault> {
        match self.packets.next()? {
            None => {
                self.end_part();
                let cut = Fault::cut_short("cut short: its last page is incomplete");
                let fault = self.fault.take().or(self.packets.is_cut.then_some(cut));
                return fault.map_or(Ok(None), Err);
            }
            Some(true) => {
                self.end_part();
                let info = read_info(&self.packets.packet)?;
                self.part = Some(match &mut self.part {
                    Some(before) => Part::behind(before, info),
                    None => Part::new(info),
                });
            }
            Some(false) => {}
        }
        let (packet, Some(part)) = (&self.packets.packet, &mut self.part) else {
            return Ok(None);
        };
        // Other packets hold metadata.
        if packet.first() == Some(&0xFF) {
            let decoded = part.progress.decoded;
            let header = part.header(packet).filter(|_| crc16(0, packet) == 0);
            let Some(header) = header else {
                return Err(Fault::damaged_after(decoded, "the checksum is wrong"));
            };
            // What was cut from another stream begins later, but without a gap.
            if decoded == 0 && header.number > 0 && self.packets.has_gap {
                return Err(Fault::damaged("damaged: its first frames are missing"));
            }
            part.decode(&header, packet, samples)?;
        }
        Ok(Some(part.info.format))
    }
}
