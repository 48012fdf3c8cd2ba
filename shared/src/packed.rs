//! Blobs that travel packed: one zstd frame (RFC 8878), named `zstd` in `Content-Encoding`.
//!
//! Invariant: nothing is made before it is wanted. A step of [`Unpacking`] makes at most [`CHUNK`] bytes, and whoever asks for
//! steps knows how many there should be in all, so a bomb bursts at its first byte too many. A frame gets no more memory than
//! RFC 9659 has senders need, and no dictionary; after it nothing may follow.

use std::io::{self, Write as _};

use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation as _, OutBuffer};
use zstd::stream::write::Encoder;

use crate::digest::CHUNK;

/// How it is called.
pub const CODING: &str = "zstd";
/// The smallest blob that is worth it; what is smaller hardly takes longer.
pub const LEAST: u64 = 16 * 1024;
/// Higher ones make BMIs a few hundredths smaller, and take twice as long and more.
const LEVEL: i32 = 1;
/// How far back a frame may refer, as a power of two: 8 MiB, the most that a sender may expect (RFC 9659).
const WINDOW: u32 = 23;

/// The most bytes that a frame of so many takes: those that cannot be packed are sent as they are, with a word here and there.
pub fn most(size: u64) -> u64 {
    size.saturating_add(size / 128).saturating_add(1024)
}

/// A frame in the making.
pub struct Packing(Encoder<'static, Vec<u8>>);

impl Packing {
    /// Of so many bytes in all.
    ///
    /// # Errors
    /// No memory.
    pub fn new(size: u64) -> io::Result<Self> {
        let mut encoder = Encoder::new(Vec::new(), LEVEL)?;
        encoder.set_pledged_src_size(Some(size))?;
        Ok(Self(encoder))
    }

    /// Takes more bytes in, and gives what is packed by now; perhaps nothing.
    ///
    /// # Errors
    /// More came than was said.
    pub fn pack(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        self.0.write_all(bytes)?;
        Ok(std::mem::take(self.0.get_mut()))
    }

    /// The rest of it.
    ///
    /// # Errors
    /// Less came than was said.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        self.0.finish()
    }
}

/// A frame that is taken apart.
pub struct Unpacking {
    decoder: Decoder<'static>,
    made: Vec<u8>,
    is_whole: bool,
}

impl Unpacking {
    /// Of which nothing came yet.
    ///
    /// # Errors
    /// No memory.
    pub fn new() -> io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW))?;
        Ok(Self { decoder, made: vec![0; CHUNK], is_whole: false })
    }

    /// Some more bytes of the blob. What of `packed` is used up is cut off; once nothing comes any more, all of it is.
    ///
    /// # Errors
    /// It is no such frame, or not of that frame.
    pub fn step(&mut self, packed: &mut &[u8]) -> io::Result<&[u8]> {
        loop {
            if self.is_whole {
                let ended = packed.is_empty().then_some(&[][..]);
                return ended.ok_or_else(|| io::Error::other("there is more behind the end of the frame"));
            }
            let mut from = InBuffer::around(packed);
            let mut to = OutBuffer::around(&mut self.made);
            let left = self.decoder.run(&mut from, &mut to)?;
            let (used, made) = (from.pos(), to.pos());
            *packed = packed.get(used..).unwrap_or_default();
            self.is_whole = left == 0;
            if made > 0 || packed.is_empty() {
                return Ok(self.made.get(..made).unwrap_or_default());
            }
        }
    }

    /// Whether the frame came to its end.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut packing = Packing::new(bytes.len() as u64).unwrap();
        let mut all = Vec::new();
        for piece in bytes.chunks(100_000) {
            all.extend(packing.pack(piece).unwrap());
        }
        all.extend(packing.finish().unwrap());
        all
    }

    /// What comes of a frame that itself comes in pieces of this size, up to `most` bytes of it.
    fn unpacked(packed: &[u8], piece: usize, most: usize) -> io::Result<(Vec<u8>, bool)> {
        let (mut unpacking, mut all) = (Unpacking::new().unwrap(), Vec::new());
        for mut piece in packed.chunks(piece) {
            loop {
                let made = unpacking.step(&mut piece)?;
                if made.is_empty() {
                    break;
                }
                assert!(made.len() <= CHUNK);
                all.extend_from_slice(made);
                if all.len() > most {
                    return Ok((all, false));
                }
            }
        }
        Ok((all, unpacking.is_whole()))
    }

    /// Neither noise nor all the same.
    fn some(size: usize) -> Vec<u8> {
        (0..size as u32).map(|i| (i.wrapping_mul(i) >> 11) as u8).collect()
    }

    #[test]
    fn what_was_packed_comes_out_again_in_whatever_pieces_it_comes() {
        for size in [0, 1, 1000, CHUNK, 3 * CHUNK + 17] {
            let bytes = some(size);
            let frame = packed(&bytes);
            for piece in [1, 7, 4096, usize::MAX] {
                let (all, is_whole) = unpacked(&frame, piece, usize::MAX).unwrap();
                assert!(all == bytes && is_whole, "{size} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_frame_has_the_bytes_that_were_said() {
        for size in [3, 5] {
            let mut packing = Packing::new(4).unwrap();
            assert!(packing.pack(&vec![0; size]).and_then(|_| packing.finish()).is_err(), "{size}");
        }
    }

    #[test]
    fn what_cannot_be_packed_hardly_grows() {
        for size in [0, 1, 1000, 1 << 20] {
            let noise = (0_u64..).flat_map(|i| *Digest::of(i.to_le_bytes()).as_bytes());
            let noise: Vec<u8> = noise.take(size).collect();
            assert!(packed(&noise).len() as u64 <= most(size as u64), "{size}");
        }
    }

    #[test]
    fn a_bomb_comes_a_step_at_a_time() {
        // 30 GB of zeros in less than a megabyte: blocks of one byte that is repeated 128 Ki times.
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x58];
        frame.extend([2, 0, 0x10, 0].repeat(30_000_000_000 >> 17));
        assert!(frame.len() < 1 << 20);
        let (all, _) = unpacked(&frame, usize::MAX, 1 << 20).unwrap();
        assert!(all.len() <= (1 << 20) + CHUNK);
    }

    #[test]
    fn what_is_no_frame_and_what_follows_one_is_refused() {
        let frame = packed(&some(5000));
        for (what, bytes) in [
            ("nonsense", b"not a frame at all".to_vec()),
            ("a byte more", [&frame[..], b"!"].concat()),
            ("another frame", [&frame[..], &frame[..]].concat()),
            ("a frame to skip behind it", [&frame[..], &[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]].concat()),
            ("a frame to skip before it", [&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0], &frame[..]].concat()),
        ] {
            for piece in [1, usize::MAX] {
                assert!(unpacked(&bytes, piece, usize::MAX).is_err(), "{what}");
            }
        }
        let (all, is_whole) = unpacked(&frame[..frame.len() - 1], usize::MAX, usize::MAX).unwrap();
        assert!(!is_whole && all.len() <= 5000, "a frame that was cut");
    }

    #[test]
    fn a_frame_gets_no_more_memory_than_it_should_need_and_no_dictionary() {
        let with = |window: u32| {
            let mut encoder = Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(window).unwrap();
            encoder.write_all(&some(100_000)).unwrap();
            unpacked(&encoder.finish().unwrap(), usize::MAX, usize::MAX)
        };
        assert!(with(WINDOW).is_ok());
        let error = with(WINDOW + 1).unwrap_err();
        assert!(error.to_string().contains("memory"), "{error}");
        // The magic number, "a dictionary's name of one byte follows, one segment", that name, a size, an empty last block.
        let named = [0x28, 0xb5, 0x2f, 0xfd, 0b0010_0001, 7, 0, 1, 0, 0];
        assert!(unpacked(&named, usize::MAX, usize::MAX).is_err());
    }
}
