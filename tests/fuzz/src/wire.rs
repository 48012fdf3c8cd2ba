//! The JSON of each endpoint: what is read is written, and read again as the same. Neither side takes what is too much.

use std::fmt::Debug;

use pcmcache_shared::api::acquire::{AcquireLine, AcquireRequest};
use pcmcache_shared::api::actions::PublishRequest;
use pcmcache_shared::api::leases::{Hold, ReleaseRequest, Renewed};
use pcmcache_shared::api::lookup::{LookupAnswer, LookupRequest};
use pcmcache_shared::api::problem::Problem;
use pcmcache_shared::api::profiles::{Profile, PushRequest, Pushed};
use pcmcache_shared::api::revocations::Revocations;
use pcmcache_shared::api::token::{ExchangeRequest, Session, WhoAmI};
use pcmcache_shared::api::{KeyedResult, OfferedSet, limits};
use pcmcache_shared::signature::signed_text;
use pcmcache_shared::{ActionKey, ActionResult, Scope};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) fn run(input: &[u8]) {
    again::<AcquireRequest>(input);
    again::<AcquireLine>(input);
    again::<PublishRequest>(input);
    again::<Hold>(input);
    again::<ReleaseRequest>(input);
    again::<Renewed>(input);
    again::<LookupRequest>(input);
    again::<LookupAnswer>(input);
    again::<Problem>(input);
    again::<Profile>(input);
    again::<PushRequest>(input);
    again::<Pushed>(input);
    again::<Revocations>(input);
    again::<OfferedSet>(input);
    again::<WhoAmI>(input);
    if let Some(keyed) = again::<KeyedResult>(input) {
        assert!(keyed.writers.len() <= limits::MAX_WRITERS);
    }
    if let Some(result) = again::<ActionResult>(input) {
        checked(&result);
    }
    // They are shown to nobody.
    if let Ok(session) = serde_json::from_slice::<Session>(input) {
        assert!(session.token.len() < 8 || !format!("{session:?}").contains(&session.token));
    }
    if let Ok(exchange) = serde_json::from_slice::<ExchangeRequest>(input) {
        assert_eq!(format!("{exchange:?}"), "ExchangeRequest(..)");
    }
}

fn again<T: Serialize + DeserializeOwned + Debug + PartialEq>(input: &[u8]) -> Option<T> {
    let value = serde_json::from_slice::<T>(input).ok()?;
    let text = serde_json::to_vec(&value).expect("what was read can be written");
    assert_eq!(serde_json::from_slice::<T>(&text).expect("and read"), value);
    Some(value)
}

/// What is signed tells any two results apart, and does not depend on their order.
fn checked(result: &ActionResult) {
    if result.check().is_err() {
        return;
    }
    let text = |result: &ActionResult| signed_text(&Scope::default(), ActionKey::of("a"), &result.outputs);
    assert_eq!(text(result).lines().count(), 3 + result.outputs.len());
    let mut turned = result.clone();
    turned.outputs.reverse();
    assert!(turned.same_outputs(result) && text(&turned) == text(result));
    if let Some(first) = turned.outputs.first_mut() {
        first.size ^= 1;
    }
    assert!(!turned.same_outputs(result) && text(&turned) != text(result));
}
