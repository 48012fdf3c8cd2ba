//! Lies in blobs: bytes that are not what their name says, in all lengths.

use std::time::Duration;

use pcmcache_shared::api::Inline;
use pcmcache_shared::packed::Packing;
use pcmcache_tests::liar::{Peer, Request};

use super::Lie;
use super::truth::{Truth, hit};

/// A blob that does not come as it should, of an honest hit.
macro_rules! blob {
    ($name:literal, |$peer:ident, $bytes:ident| $told:expr) => {
        Lie {
            name: $name,
            tell: |request: &Request, $peer: &mut Peer, truth: &Truth| {
                if !request.is("GET", "/blobs/") {
                    hit(request, $peer, truth, |_| ());
                    return false;
                }
                let $bytes = truth.answer(request).body;
                let _ = $told;
                true
            },
        }
    };
}

/// The same to one who takes what is packed, of a frame that is none of the blob's.
macro_rules! packed {
    ($name:literal, |$bytes:ident| $frame:expr) => {
        blob!($name, |peer, $bytes| peer.body_with(200, "Content-Encoding: zstd\r\n", $frame))
    };
}

fn frame(bytes: &[u8]) -> Vec<u8> {
    let mut packing = Packing::new(bytes.len() as u64).expect("memory");
    let mut frame = packing.pack(bytes).expect("its bytes");
    frame.extend(packing.finish().expect("all of them"));
    frame
}

/// The lies.
pub(super) const LIES: &[Lie] = &[
    blob!("another byte in the middle", |peer, bytes| {
        let mut bytes = bytes;
        let half = bytes.len() / 2;
        bytes[half] ^= 1;
        peer.body(200, bytes)
    }),
    blob!("other bytes of the same length", |peer, bytes| peer.body(200, vec![0; bytes.len()])),
    blob!("half the bytes", |peer, bytes| peer.body(200, &bytes[..bytes.len() / 2])),
    blob!("a byte more", |peer, bytes| peer.body(200, [&bytes[..], b"!"].concat())),
    blob!("no bytes", |peer, _bytes| peer.body(200, "")),
    blob!("bytes without end", |peer, bytes| {
        peer.chunked(200);
        while peer.chunk(&bytes) {}
    }),
    blob!("half the bytes, and the end", |peer, bytes| {
        peer.head(200, &format!("Content-Length: {}\r\n", bytes.len()));
        peer.raw(&bytes[..bytes.len() / 2]);
    }),
    blob!("half the bytes, and silence", |peer, bytes| {
        peer.head(200, &format!("Content-Length: {}\r\n", bytes.len()));
        peer.raw(&bytes[..bytes.len() / 2]);
        peer.hang();
    }),
    blob!("a byte a second", |peer, bytes| {
        peer.head(200, &format!("Content-Length: {}\r\n", bytes.len()));
        peer.dribble(bytes, Duration::from_secs(1));
    }),
    blob!("a part that nobody asked for", |peer, bytes| {
        let last = bytes.len() - 1;
        let fields = format!("Content-Range: bytes 0-{last}/{}\r\n", bytes.len());
        peer.body_with(206, &fields, bytes)
    }),
    blob!("bytes that are said to be packed", |peer, bytes| {
        let half = bytes.len() / 2;
        peer.body_with(200, "Content-Encoding: gzip\r\n", &bytes[half..])
    }),
    packed!("a bomb of 30 GB in a megabyte", |_bytes| {
        // Blocks of one byte that is repeated 128 Ki times.
        [&[0x28, 0xb5, 0x2f, 0xfd, 0, 0x58][..], &[2, 0, 0x10, 0].repeat(30_000_000_000 >> 17)].concat()
    }),
    packed!("a frame that wants a gigabyte of memory", |_bytes| {
        vec![0x28, 0xb5, 0x2f, 0xfd, 0, 20 << 3, 1, 0, 0]
    }),
    packed!("no frame", |bytes| bytes),
    packed!("half a frame", |bytes| {
        let frame = frame(&bytes);
        frame[..frame.len() / 2].to_vec()
    }),
    packed!("a frame and a byte", |bytes| [&frame(&bytes)[..], b"!"].concat()),
    packed!("another blob's frame", |bytes| frame(&vec![0; bytes.len()])),
    blob!("nothing new", |peer, _bytes| peer.head(304, "")),
    blob!("it is gone", |peer, _bytes| peer.body(410, "")),
    blob!("it is somewhere else", |peer, _bytes| peer.body_with(302, "Location: file:///etc/passwd\r\n", "")),
    blob!("no answer", |peer, _bytes| peer.hang()),
    Lie {
        name: "other bytes in the hit itself, and nothing elsewhere",
        tell: |request, peer, truth| {
            if request.is("GET", "/blobs/") {
                peer.body(404, "");
                return false;
            }
            hit(request, peer, truth, |keyed| {
                let digests = keyed.result.outputs.iter().map(|output| output.digest);
                keyed.blobs = digests.map(|digest| (digest, Inline(b"other".to_vec()))).collect();
            })
        },
    },
];
