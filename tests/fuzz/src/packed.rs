//! Blobs that travel packed: any bytes are taken apart a bounded step at a time, and what was packed comes out as it was.

use pcmcache_shared::digest::CHUNK;
use pcmcache_shared::packed::{Packing, Unpacking, most};

/// As much is unpacked of what nobody said the size of.
const ENOUGH: usize = 4 * 1024 * 1024;

pub(crate) fn run(input: &[u8]) {
    // In pieces as a network gives them. libzstd refuses more of what comes at once (a compressed block of no bytes), so one
    // may be no frame; two are the same.
    let whole = unpack(input, input.len().max(1));
    let in_pieces = unpack(input, input.first().map_or(1, |first| usize::from(*first) + 1));
    if let (Some(whole), Some(in_pieces)) = (whole, in_pieces) {
        assert!(whole == in_pieces, "how it is cut into pieces makes a difference");
    }
    let mut packing = Packing::new(input.len() as u64).expect("memory");
    let mut packed = Vec::new();
    for piece in input.chunks(100) {
        packed.extend(packing.pack(piece).expect("as much as was said"));
    }
    packed.extend(packing.finish().expect("as much as was said"));
    assert!(packed.len() as u64 <= most(input.len() as u64));
    assert!(unpack(&packed, 77).as_deref() == Some(input), "it came out as something else");
}

/// What the frame holds, if it is one and not too long.
fn unpack(packed: &[u8], piece: usize) -> Option<Vec<u8>> {
    let mut unpacking = Unpacking::new().expect("memory");
    let mut blob = Vec::new();
    for mut piece in packed.chunks(piece) {
        loop {
            let before = piece.len();
            match unpacking.step(&mut piece) {
                Ok([]) => break,
                Ok(bytes) => {
                    assert!(bytes.len() <= CHUNK && piece.len() <= before);
                    blob.extend_from_slice(bytes);
                }
                Err(_) => return None,
            }
            if blob.len() > ENOUGH {
                return None;
            }
        }
        assert!(piece.is_empty(), "once nothing comes any more, all of it is used up");
    }
    unpacking.is_whole().then_some(blob)
}
