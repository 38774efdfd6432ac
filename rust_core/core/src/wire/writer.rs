//! Protobuf bytes written straight from borrowed data: an answer is small and goes out once, so building
//! owned messages first would cost more than all the rest of it.

use prost::encoding::{WireType, encode_key, encode_varint};

/// Most bytes of a varint.
const MAX_VARINT_BYTES: usize = 10;

/// Bytes of one message, written front to back.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes back everything after `len`.
    pub(super) fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn varint(&mut self, tag: u32, value: u64) {
        encode_key(tag, WireType::Varint, &mut self.0);
        encode_varint(value, &mut self.0);
    }

    pub(super) fn double(&mut self, tag: u32, value: f64) {
        encode_key(tag, WireType::SixtyFourBit, &mut self.0);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn text(&mut self, tag: u32, text: &str) {
        encode_key(tag, WireType::LengthDelimited, &mut self.0);
        encode_varint(text.len() as u64, &mut self.0);
        self.0.extend_from_slice(text.as_bytes());
    }

    /// Like [`Self::text`], in ASCII lower case.
    pub(super) fn lower(&mut self, tag: u32, text: &str) {
        self.text(tag, text);
        let start = self.0.len() - text.len();
        if let Some(written) = self.0.get_mut(start..) {
            written.make_ascii_lowercase();
        }
    }

    /// A nested message. Its length is written afterwards: most lengths fit the one byte kept for them.
    pub(super) fn message<T>(&mut self, tag: u32, write: impl FnOnce(&mut Self) -> T) -> T {
        encode_key(tag, WireType::LengthDelimited, &mut self.0);
        let at = self.0.len();
        self.0.push(0);
        let outcome = write(self);
        let length = self.0.len() - at - 1;
        if let Ok(short @ 0..0x80) = u8::try_from(length) {
            if let Some(byte) = self.0.get_mut(at) {
                *byte = short;
            }
        } else {
            self.lengthen(at, length);
        }
        outcome
    }

    /// Writes a length that takes more than the byte that is there for it at `at`.
    fn lengthen(&mut self, at: usize, length: usize) {
        let mut prefix = [0; MAX_VARINT_BYTES];
        let mut free = prefix.as_mut_slice();
        encode_varint(length as u64, &mut free);
        let taken = MAX_VARINT_BYTES - free.len();
        let end = self.0.len();
        self.0.resize(end + taken - 1, 0);
        self.0.copy_within(at + 1..end, at + taken);
        for (byte, written) in self.0.iter_mut().skip(at).zip(prefix).take(taken) {
            *byte = written;
        }
    }
}
