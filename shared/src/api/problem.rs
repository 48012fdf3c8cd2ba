//! Errors on the wire: RFC 9457 problem details with a code from one list.

use serde::{Deserialize, Serialize};

use crate::{ActionResult, Digest, Scope, Writer};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $status:literal, $title:literal;)*) => {
        /// What went wrong, for programs. Each code has one status and one title.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code there is.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The HTTP status that goes with it.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status),* }
            }

            /// A title that is the same for every occurrence.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title),* }
            }
        }
    };
}

codes! {
    /// A path segment, a header or the query cannot be read as what it must be.
    BadRequest = 400, "the request cannot be understood";
    /// A digest or a key is not 64 lower-case hexadecimal digits.
    BadDigest = 400, "not a SHA-256 name";
    /// The scope's name is not one.
    BadScope = 400, "not a scope name";
    /// The body is not JSON of the declared form.
    BadJson = 400, "the JSON body is not of the declared form";
    /// The body's bytes do not hash to the name they were sent under.
    DigestMismatch = 400, "the body does not match its digest";
    /// The body ended before its declared length.
    ShortBody = 400, "the body is shorter than its declared length";
    /// The client speaks a wire that this server does not.
    WireVersion = 400, "client and server are of versions that do not fit";
    /// There is no credential where one is needed, or the one that came is unknown, expired or revoked.
    Unauthorized = 401, "a valid token is needed";
    /// The scope may be read, and not written.
    ReadOnly = 403, "the scope may only be read";
    /// The credential is good, and not for this.
    Forbidden = 403, "the token does not allow this";
    /// The scope is not there, or not for this client.
    UnknownScope = 404, "no such scope";
    /// No such route.
    NoRoute = 404, "no such resource";
    /// No such blob, or not for this client.
    NoBlob = 404, "no such blob";
    /// No such result, or not for this client.
    NoResult = 404, "no such result";
    /// No such profile, or not for this client.
    NoProfile = 404, "no such profile";
    /// There is no lease on the claim with this fence and secret.
    NoLease = 404, "no such lease";
    /// The resource does not have this method.
    MethodNotAllowed = 405, "the resource has no such method";
    /// The client was too slow to send its request.
    RequestTimeout = 408, "the request took too long";
    /// Another result was published first.
    Winner = 409, "another result was published first";
    /// Someone else holds the lease on the claim.
    LeaseHeld = 409, "someone else holds the lease";
    /// An upload must say its length.
    LengthRequired = 411, "the upload must declare its length";
    /// The body is larger than the server takes.
    TooLarge = 413, "the body is too large";
    /// The body's content type is not the one declared.
    BadContentType = 415, "the content type is not supported";
    /// The range lies outside of the blob.
    BadRange = 416, "the range cannot be satisfied";
    /// Blobs that the result names are not there.
    MissingBlobs = 422, "blobs of the result are missing";
    /// The recipe, include set or result in the body contradict the key or themselves.
    BadResult = 422, "the result contradicts its key";
    /// The client asks more often, or for more at once, than it may; `Retry-After` says when to ask again.
    TooManyRequests = 429, "too many requests";
    /// A fault on the server's side.
    Internal = 500, "the server failed";
    /// The server is full or going down; try again later.
    Unavailable = 503, "the server cannot take this now";
    /// The disk is full.
    StoreFull = 507, "the store is full";
}

/// An error as it travels (`application/problem+json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// `about:blank`: the code says it.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code's title.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong, for programs.
    pub code: Code,
    /// What happened this time, for people.
    pub detail: String,
    /// With [`Code::Winner`]: the result that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub winner: Option<ActionResult>,
    /// With [`Code::Winner`]: the scope it was found in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub winner_scope: Option<Scope>,
    /// With [`Code::Winner`]: who published it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub winner_writers: Vec<Writer>,
    /// With [`Code::MissingBlobs`]: what to upload first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Digest>,
}

impl Problem {
    /// A problem of this code.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank".to_owned(),
            title: code.title().to_owned(),
            status: code.status(),
            code,
            detail: detail.into(),
            winner: None,
            winner_scope: None,
            winner_writers: Vec::new(),
            missing: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_an_error_and_survives_json() {
        for code in Code::ALL {
            assert!((400..600).contains(&code.status()), "{code:?}");
            let json = serde_json::to_string(code).unwrap();
            assert_eq!(serde_json::from_str::<Code>(&json).unwrap(), *code);
        }
    }
}
