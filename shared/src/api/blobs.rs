//! `GET|HEAD|PUT /v1/scopes/{scope}/blobs/{digest}`: raw bytes by their digest.
//!
//! `GET` knows Range, If-Range, a strong ETag (the digest, quoted) and Repr-Digest (RFC 9530), and sends a larger blob
//! packed to who accepts `zstd` (see [`packed`](crate::packed); the ETag is weak then). `PUT` needs
//! Content-Length; 201 stored, 200 it was there (the body is read and hashed all the same); the answer comes once
//! the blob is durable.

use crate::{Digest, Scope};

/// The endpoint's path.
pub fn path(scope: &Scope, digest: Digest) -> String {
    format!("/v1/scopes/{scope}/blobs/{digest}")
}
