//! Names and numbers as people and programs spell them: what is taken is spelled back as it was, or, where there are several
//! spellings, to one that means the same; and JSON takes the same as text does.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use pcmcache::signing::TrustedKeys;
use pcmcache::size::ByteSize;
use pcmcache_server::config::{Quota, Span};
use pcmcache_shared::{
    ActionKey, Claim, Digest, ProfileName, PublicKey, Scope, Signature, UnitKey, Writer, api,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) fn run(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    name::<Digest>(text, 64);
    name::<ActionKey>(text, 64);
    name::<UnitKey>(text, 64);
    name::<Claim>(text, 64);
    name::<Scope>(text, 64);
    name::<ProfileName>(text, 64);
    name::<Writer>(text, 64);
    name::<PublicKey>(text, 44);
    name::<Signature>(text, 88);
    if let Ok(scope) = text.parse::<Scope>() {
        let path = api::actions::path(&scope, ActionKey::of(text));
        assert_eq!(path.split('/').count(), 6, "a scope is one segment of a path: {path}");
        assert!(!path.contains([' ', '%', '?', '#', '"']));
    }
    // Beyond that they are rounded up to what is too large.
    if let Some(size) = text.parse::<ByteSize>().ok().filter(|size| size.0 < 1 << 63) {
        let shown = size.to_string();
        // What is shown is rounded to a tenth.
        let again: ByteSize = shown.parse().unwrap_or_else(|_| panic!("{text} is shown as {shown}"));
        assert!(again.0.abs_diff(size.0) <= size.0 / 10 + 1, "{text} is shown as {shown}");
    }
    let _ = text.parse::<pcmcache_server::config::ByteSize>();
    let _ = (text.parse::<Span>(), text.parse::<Quota>());
    // A word with `@` names a file, and which there are is not this target's.
    if let Some(keys) = (!text.contains('@')).then(|| TrustedKeys::parse(text).ok()).flatten() {
        assert_eq!(TrustedKeys::parse(&keys.spelled().join(" ")), Ok(keys));
    }
}

fn name<T>(text: &str, longest: usize)
where
    T: FromStr + Display + Debug + PartialEq + Serialize + DeserializeOwned,
{
    let json = serde_json::to_string(text).expect("a string");
    let by_json = serde_json::from_str::<T>(&json).ok();
    let parsed = text.parse::<T>().ok();
    assert_eq!(parsed, by_json);
    let Some(parsed) = parsed else { return };
    assert!(text.len() <= longest);
    assert_eq!(parsed.to_string(), text);
    assert_eq!(serde_json::to_string(&parsed).ok(), Some(json));
}
