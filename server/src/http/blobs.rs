//! `GET|HEAD|PUT /v1/scopes/{scope}/blobs/{digest}`.

use std::ops::Range;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt as _;
use http::response::Builder;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use pcmcache_shared::Digest;
use pcmcache_shared::api::OCTETS;
use pcmcache_shared::api::problem::Code;
use pcmcache_shared::packed::CODING;

use super::App;
use super::body::Declared;
use super::packing::Incoming;
use super::path::{Named, Reading, Write};
use super::problem::Refused;
use super::range::{self, Selected};
use crate::cache::{BlobRead, CacheError, Piece, Uploaded};
use crate::connection::Direct;

pub(super) const GET_PROBLEMS: &[Code] = &[Code::BadDigest, Code::NoBlob, Code::BadRange];
pub(super) const HEAD_PROBLEMS: &[Code] = &[Code::BadDigest, Code::NoBlob];
pub(super) const PUT_PROBLEMS: &[Code] = &[
    Code::BadDigest,
    Code::DigestMismatch,
    Code::ShortBody,
    Code::RequestTimeout,
    Code::LengthRequired,
    Code::TooLarge,
    Code::BadContentType,
];

/// Raw bytes.
#[derive(utoipa::ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "only its schema is used, by the document")]
pub(super) struct Octets(Vec<u8>);

/// A name's bytes never change.
const FOR_EVER: &str = "max-age=31536000, immutable";
/// What else than the name decides which bytes are sent.
const ACCEPT_ENCODING: &str = "accept-encoding";

/// Read a blob, or one range of it.
///
/// `Range` takes one range of bytes; of several none is served, and the answer is the whole. A blob whose bytes are no
/// longer those of its name is never served whole: the connection breaks before its last byte. The whole of a larger one may
/// come packed to who accepts `zstd`.
#[utoipa::path(
    get,
    path = "/v1/scopes/{scope}/blobs/{digest}",
    operation_id = "read_blob",
    tag = "blobs",
    params(
        ("scope" = pcmcache_shared::Scope, Path, description = "The scope."),
        ("digest" = Digest, Path, description = "The SHA-256 of the bytes."),
        ("Range" = Option<String>, Header, nullable = false, description = "One range of bytes (RFC 9110)."),
        ("If-Range" = Option<String>, Header, nullable = false, description = "A strong ETag under which `Range` holds."),
        ("If-None-Match" = Option<String>, Header, nullable = false, description = "ETags of what the client has."),
        ("Accept-Encoding" = Option<String>, Header, nullable = false, description = "`zstd`, for a slow link."),
    ),
    responses(
        (status = 200, description = "The bytes.", content_type = "application/octet-stream", body = Octets, headers(
            ("ETag" = String, description = "The digest, quoted; strong, but weak where they are packed."),
            ("Repr-Digest" = String, description = "The SHA-256 of the whole blob (RFC 9530); not where it is packed."),
            ("Content-Encoding" = String, description = "`zstd` where they are packed, as one frame (RFC 8878)."),
        )),
        (status = 206, description = "The range.", content_type = "application/octet-stream", body = Octets, headers(
            ("Content-Range" = String, description = "Which bytes of how many."),
        )),
        (status = 304, description = "The client has it."),
    ),
)]
pub(super) async fn get(
    State(app): State<App>,
    Reading(view): Reading,
    Named(digest): Named<Digest>,
    direct: Option<Extension<Direct>>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let direct = direct.map(|Extension(direct)| direct);
    let blob = app.cache.open_blob(&view, digest).await?.ok_or_else(|| no_blob(digest))?;
    let (etag, size) = (etag(digest), blob.size());
    if range::is_known(&headers, &etag) {
        return whole(StatusCode::NOT_MODIFIED, digest, None, Body::empty());
    }
    match range::select(&headers, &etag, size) {
        Selected::Whole => match app.packers.find(&headers, size) {
            Some(packer) => packed(digest, packer.pack(blob).await?),
            None => whole(StatusCode::OK, digest, Some(size), body_of(blob, None, direct).await?),
        },
        Selected::Part(part) => partial(blob, digest, part, direct).await,
        Selected::Unsatisfiable => Ok(unsatisfiable(size)),
    }
}

/// Ask whether a blob is there; if it is, it stays for ten minutes at least.
#[utoipa::path(
    head,
    path = "/v1/scopes/{scope}/blobs/{digest}",
    operation_id = "has_blob",
    tag = "blobs",
    params(
        ("scope" = pcmcache_shared::Scope, Path, description = "The scope."),
        ("digest" = Digest, Path, description = "The SHA-256 of the bytes."),
        ("If-None-Match" = Option<String>, Header, nullable = false, description = "ETags of what the client has."),
    ),
    responses(
        (status = 200, description = "It is there.", headers(
            ("ETag" = String, description = "The digest, quoted; strong."),
            ("Repr-Digest" = String, description = "The SHA-256 of the whole blob (RFC 9530)."),
        )),
        (status = 304, description = "The client has it."),
    ),
)]
pub(super) async fn head(
    State(app): State<App>,
    Reading(view): Reading,
    Named(digest): Named<Digest>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let size = app.cache.has_blob(&view, digest).await?.ok_or_else(|| no_blob(digest))?;
    match range::is_known(&headers, &etag(digest)) {
        true => whole(StatusCode::NOT_MODIFIED, digest, None, Body::empty()),
        false => whole(StatusCode::OK, digest, Some(size), Body::empty()),
    }
}

/// Upload a blob. The answer comes once it is whole, equal to its name, and durable; before, nothing of it is visible.
#[utoipa::path(
    put,
    path = "/v1/scopes/{scope}/blobs/{digest}",
    operation_id = "upload_blob",
    tag = "blobs",
    params(
        ("scope" = pcmcache_shared::Scope, Path, description = "The scope."),
        ("digest" = Digest, Path, description = "The SHA-256 of the bytes, unpacked."),
        ("Content-Encoding" = Option<String>, Header, nullable = false, description = "`zstd` where they come packed, as one frame."),
        ("pcmcache-length" = Option<u64>, Header, nullable = false, description = "How many bytes the blob has, where it comes packed."),
    ),
    request_body(content = Octets, content_type = "application/octet-stream"),
    responses(
        (status = 201, description = "It is there now."),
        (status = 200, description = "This writer had put it there before; the body was read and hashed all the same."),
    ),
)]
pub(super) async fn put(
    State(app): State<App>,
    Write(writing): Write,
    Named(digest): Named<Digest>,
    declared: Declared,
    body: Body,
) -> Result<StatusCode, Refused> {
    let mut bytes = match declared.is_packed {
        true => Incoming::Packed(app.packers.unpack(body)?),
        false => Incoming::Plain(body),
    };
    let mut upload = app.cache.begin_upload(&writing, digest, declared.length).await?;
    while let Some(piece) = bytes.next().await? {
        upload.write(piece).await?;
    }
    Ok(match upload.finish().await? {
        Uploaded::Stored => StatusCode::CREATED,
        Uploaded::Existed => StatusCode::OK,
    })
}

fn no_blob(digest: Digest) -> Refused {
    Refused::new(Code::NoBlob, format!("there is no blob {digest}"))
}

fn etag(digest: Digest) -> String {
    format!("\"{digest}\"")
}

/// The headers that say which blob it is.
fn naming(status: StatusCode, digest: Digest) -> Builder {
    Response::builder()
        .status(status)
        .header(header::ETAG, etag(digest))
        .header("repr-digest", format!("sha-256=:{}:", STANDARD.encode(digest.as_bytes())))
        .header(header::CACHE_CONTROL, FOR_EVER)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::VARY, ACCEPT_ENCODING)
}

/// The bytes in a frame whose own are not known beforehand: it may be made otherwise the next time.
fn packed(digest: Digest, frame: Body) -> Result<Response, Refused> {
    let answer = Response::builder()
        .header(header::ETAG, format!("W/{}", etag(digest)))
        .header(header::CACHE_CONTROL, FOR_EVER)
        .header(header::VARY, ACCEPT_ENCODING)
        .header(header::CONTENT_TYPE, OCTETS)
        .header(header::CONTENT_ENCODING, CODING);
    answer.body(frame).map_err(unbuilt)
}

fn whole(status: StatusCode, digest: Digest, size: Option<u64>, body: Body) -> Result<Response, Refused> {
    let mut answer = naming(status, digest);
    if let Some(size) = size {
        answer = answer.header(header::CONTENT_TYPE, OCTETS).header(header::CONTENT_LENGTH, size);
    }
    answer.body(body).map_err(unbuilt)
}

/// What a GET gives; what lies in a file goes from there to the socket, where it can.
async fn body_of(
    blob: BlobRead,
    part: Option<Range<u64>>,
    direct: Option<Direct>,
) -> Result<Body, CacheError> {
    if part.is_none()
        && let Some(bytes) = blob.at_hand()
    {
        return Ok(bytes.into());
    }
    let pieces = blob.pieces(part, direct.is_some()).await?;
    let given = move |piece| match piece {
        Piece::Bytes(bytes) => Ok(bytes),
        Piece::InFile { file, range } => direct
            .as_ref()
            .and_then(|direct| direct.stand_in(file, range))
            .ok_or(CacheError::Unavailable { operation: "send a file" }),
    };
    Ok(Body::from_stream(pieces.map(move |piece| -> Result<Bytes, CacheError> { piece.and_then(&given) })))
}

async fn partial(
    blob: BlobRead,
    digest: Digest,
    part: Range<u64>,
    direct: Option<Direct>,
) -> Result<Response, Refused> {
    let size = blob.size();
    let answer = naming(StatusCode::PARTIAL_CONTENT, digest)
        .header(header::CONTENT_TYPE, OCTETS)
        .header(header::CONTENT_LENGTH, part.end.saturating_sub(part.start))
        .header(header::CONTENT_RANGE, format!("bytes {}-{}/{size}", part.start, part.end.saturating_sub(1)));
    answer.body(body_of(blob, Some(part), direct).await?).map_err(unbuilt)
}

fn unsatisfiable(size: u64) -> Response {
    let refused = Refused::new(Code::BadRange, format!("the blob has {size} bytes"));
    let mut response = refused.into_response();
    if let Ok(range) = HeaderValue::try_from(format!("bytes */{size}")) {
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    response
}

fn unbuilt(error: http::Error) -> Refused {
    Refused::new(Code::Internal, error.to_string())
}
