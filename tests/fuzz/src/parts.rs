//! Inputs of several parts: their bytes are text that a person can read and write, so that a mutation of a part stays one.

/// What stands between two parts, on a line of its own.
const BETWEEN: &[u8] = b"\n===\n";

/// The parts of an input, at least one.
pub(crate) fn of(input: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut rest = input;
    while let Some(at) = rest.windows(BETWEEN.len()).position(|window| window == BETWEEN) {
        parts.push(&rest[..at]);
        rest = &rest[at + BETWEEN.len()..];
    }
    parts.push(rest);
    parts
}

/// The first line, and what follows.
pub(crate) fn first_line(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (input, &[]),
    }
}
