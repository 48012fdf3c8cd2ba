//! What a request carries: JSON within its bounds, or bytes of a declared length.

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use pcmcache_shared::api::limits::MAX_JSON;
use pcmcache_shared::api::problem::Code;
use pcmcache_shared::api::{JSON, LENGTH_HEADER, OCTETS};
use pcmcache_shared::packed::{self, CODING};
use serde::de::DeserializeOwned;

use super::problem::Refused;
use crate::connection::TooSlow;

/// A JSON body of at most `MAX` bytes.
#[derive(Debug)]
pub(super) struct JsonBody<T, const MAX: usize = MAX_JSON>(pub(super) T);

impl<S, T, const MAX: usize> FromRequest<S> for JsonBody<T, MAX>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Refused;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refused> {
        let (parts, body) = request.into_parts();
        if coding(&parts.headers) != Coding::Plain {
            return Err(Refused::new(Code::BadContentType, "send the body without Content-Encoding"));
        }
        if media_type(&parts.headers) != Some(JSON) {
            return Err(Refused::new(Code::BadContentType, format!("this takes {JSON}")));
        }
        let text = read_up_to(body, &parts.headers, MAX).await?;
        // serde would take an array for a struct as well, its fields by position.
        if text.trim_ascii_start().first() != Some(&b'{') {
            return Err(Refused::new(Code::BadJson, "expected a JSON object"));
        }
        let value =
            serde_json::from_slice(&text).map_err(|error| Refused::new(Code::BadJson, error.to_string()))?;
        Ok(Self(value))
    }
}

/// What an upload declares. An upload without a length cannot be refused before it is sent, nor told from one that broke.
#[derive(Debug, Clone, Copy)]
pub(super) struct Declared {
    /// How many bytes the blob has.
    pub(super) length: u64,
    /// Whether they come packed.
    pub(super) is_packed: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Declared {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let headers = &parts.headers;
        let is_packed = match coding(headers) {
            Coding::Plain => false,
            Coding::Packed => true,
            Coding::Unknown => {
                let takes = format!("this takes bytes as they are, or as {CODING}");
                return Err(Refused::new(Code::BadContentType, takes));
            }
        };
        if !matches!(media_type(headers), None | Some(OCTETS)) {
            return Err(Refused::new(Code::BadContentType, format!("this takes {OCTETS}")));
        }
        let chunked = headers.contains_key(header::TRANSFER_ENCODING);
        let sent = declared_length(headers, header::CONTENT_LENGTH.as_str()).filter(|_| !chunked);
        let Some(sent) = sent else {
            return Err(Refused::new(Code::LengthRequired, "send Content-Length, not in chunks"));
        };
        if !is_packed {
            return Ok(Self { length: sent, is_packed });
        }
        let length = declared_length(headers, LENGTH_HEADER).ok_or_else(|| {
            Refused::new(Code::LengthRequired, format!("send {LENGTH_HEADER}: what the blob has unpacked"))
        })?;
        if sent > packed::most(length) {
            return Err(Refused::new(Code::BadRequest, format!("{sent} bytes are none of {length} packed")));
        }
        Ok(Self { length, is_packed })
    }
}

fn declared_length(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// In what form a body comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Plain,
    Packed,
    /// In one, or several, that nobody here reads.
    Unknown,
}

fn coding(headers: &HeaderMap) -> Coding {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Coding::Plain,
        (Some(one), None) if one == "identity" => Coding::Plain,
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(CODING.as_bytes()) => Coding::Packed,
        (Some(_), _) => Coding::Unknown,
    }
}

/// The media type without its parameters.
fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::CONTENT_TYPE)?;
    let text = value.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim();
    // Compared without case, and given back in the spelling that the rest of the program uses.
    let known = [JSON, OCTETS].into_iter().find(|known| essence.eq_ignore_ascii_case(known));
    Some(known.unwrap_or(essence))
}

async fn read_up_to(mut body: Body, headers: &HeaderMap, max: usize) -> Result<Bytes, Refused> {
    let too_large = || Refused::new(Code::TooLarge, format!("this takes at most {max} bytes"));
    if declared_length(headers, header::CONTENT_LENGTH.as_str()).is_some_and(|length| length > max as u64) {
        return Err(too_large());
    }
    let mut text = BytesMut::new();
    while let Some(piece) = next(&mut body).await? {
        if text.len() + piece.len() > max {
            return Err(too_large());
        }
        text.extend_from_slice(&piece);
    }
    Ok(text.freeze())
}

/// The next piece of a body, or `None` at its end.
pub(super) async fn next(body: &mut Body) -> Result<Option<Bytes>, Refused> {
    while let Some(frame) = body.frame().await {
        if let Ok(piece) = frame.map_err(broken)?.into_data() {
            return Ok(Some(piece));
        }
    }
    Ok(None)
}

/// A body that ended other than by its end: the client was too slow, or went away.
fn broken(error: axum::Error) -> Refused {
    let error = error.into_inner();
    match error.downcast_ref::<TooSlow>() {
        Some(slow) => Refused::new(Code::RequestTimeout, slow.to_string()),
        None => Refused::new(Code::ShortBody, error.to_string()),
    }
}
