//! Sealed files: what was written is read, and whatever happens to the file, no other value ever is.
//!
//! The first part is the body; each line of the second is a harm that is done to the file.

use std::path::PathBuf;
use std::sync::OnceLock;

use pcmcache::local::sealed::{self, Sealed};

use crate::{parts, scratch};

/// No body of the input is as large.
const LIMIT: u64 = 1024 * 1024;

pub(crate) fn run(input: &[u8]) {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    let path = FILE.get_or_init(|| scratch::directory("sealed").join("file"));
    let parts = parts::of(input);
    let body = parts[0];
    sealed::write(path, body).expect("a file");
    assert_eq!(sealed::read(path, LIMIT), Sealed::Whole(body.to_vec()));
    let mut bytes = fs_err::read(path).expect("it is there");
    if bytes.len() > 1 {
        assert_eq!(sealed::peek(path, bytes.len() as u64 - 1), Sealed::Damaged, "longer than the limit");
    }
    let whole = bytes.clone();
    for harm in parts.get(1).copied().unwrap_or_default().split(|byte| *byte == b'\n') {
        do_harm(harm, &mut bytes);
    }
    fs_err::write(path, &bytes).expect("a file");
    let expected = if bytes == whole { Sealed::Whole(body.to_vec()) } else { Sealed::Damaged };
    assert_eq!(sealed::peek(path, LIMIT), expected);
    // Any bytes at all, without a seal of ours.
    fs_err::write(path, input).expect("a file");
    if let Sealed::Whole(body) = sealed::peek(path, LIMIT) {
        sealed::write(path, &body).expect("a file");
        assert_eq!(fs_err::read(path).expect("it is there"), input);
    }
}

/// `xN..`: flips bits of a byte; `cN`: cuts there; `aTEXT`: goes on with this; `zN`: zeros from there on; `dN`: drops a byte.
fn do_harm(harm: &[u8], bytes: &mut Vec<u8>) {
    let Some((kind, rest)) = harm.split_first() else { return };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).take(6);
    let number = digits.fold(0, |number, digit| 10 * number + usize::from(digit - b'0'));
    let at = number % (bytes.len() + 1);
    match kind {
        b'x' => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (number % 8);
            }
        }
        b'c' => bytes.truncate(at),
        b'a' => bytes.extend_from_slice(rest),
        b'z' => bytes[at..].fill(0),
        b'd' if at < bytes.len() => drop(bytes.remove(at)),
        _ => {}
    }
}
