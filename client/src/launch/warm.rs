//! Bringing what profiles name into the local store, before a build needs it.
//!
//! The rules are a launch's own: a result is judged by whose it is, who signed it and what its server took back before
//! anything of it is used; each byte is verified while it comes; a result is written down last, when all that a local
//! hit of it needs is there. What the command line would tell (which command made it) is not known, so `explain` knows
//! less of what was warmed.
//!
//! Beside running builds: nothing that is here is replaced or removed. Where a trim would begin to make room, this ends.
//! Crash story: killed at any moment, whole results are here, and blobs that none names, which the next warm start uses and a
//! trim removes.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pcmcache_shared::api::{Inline, KeyedResult};
use pcmcache_shared::recipe::{Learnt, MAX_TEXT};
use pcmcache_shared::{ActionKey, Digest, IncludeSet, ProfileName, Recipe, Role, Scope, failpoint};

use super::look::recipe_of;
use super::offer::{MAX_LEARNT, MAX_READ};
use super::session::Session;
use super::turn::{MAX_QUESTIONS, bring, damaged, embedded};
use crate::interrupt::Interrupt;
use crate::local::Store;
use crate::local::origin::{Fetched, Kept, Origin, ServerId, ServerNotes};
use crate::profile;
use crate::remote::{Remote, RemoteError};
use crate::settings::Settings;
use crate::size::ByteSize;

/// How many results are brought at a time.
const AT_ONCE: usize = 8;
/// How many are looked up with one question: the small ones of their blobs come along.
const BATCH: usize = 100;
/// The first question is a small one, so that something is under way.
const FIRST_BATCH: usize = 16;
/// How often a server is asked again that has too much to do, or that was not reached.
const BUSY_TRIES: u32 = 30;
const LOST_TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// What a warm start came to, or has come to so far.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// The profiles that were found.
    pub found: Vec<ProfileName>,
    /// Those that were not.
    pub missing: Vec<ProfileName>,
    /// How many results they name.
    pub named: u64,
    /// How many of them were here.
    pub here: u64,
    /// How many were fetched.
    pub fetched: u64,
    /// How many the server has no more.
    pub gone: u64,
    /// How many were not taken: damaged, taken back, not signed by a pinned key.
    pub refused: u64,
    /// Why not, the first of them.
    pub refusal: Option<String>,
    /// The local store is full.
    pub is_full: bool,
    /// What ended it before its end.
    pub failure: Option<String>,
    /// What the results take that were fetched, in bytes of outputs.
    pub bytes: u64,
}

impl Tally {
    /// How many results are dealt with.
    pub fn done(&self) -> u64 {
        self.here + self.fetched + self.gone + self.refused
    }

    fn refuse(&mut self, why: &RemoteError) {
        self.refused += 1;
        self.refusal.get_or_insert_with(|| why.to_string());
    }
}

/// Brings what these profiles name into the local store, the most urgent first. `tell` hears how far it is.
pub fn warm(
    settings: Settings,
    remote: Remote,
    names: &[ProfileName],
    tell: &(dyn Fn(&Tally) + Sync),
) -> Tally {
    let mut session = Session::open(settings);
    session.remote = Some(remote);
    let tally = session
        .warm(names, tell)
        .unwrap_or_else(|error| Tally { failure: Some(error.to_string()), ..Tally::default() });
    session.disconnect();
    if let Some(store) = &session.store {
        let _ = store.count(&session.counts);
        // What was stored is written down; the right to trim is left to whoever builds.
        drop(store.is_full(session.settings.max_size));
    }
    tally
}

impl Session {
    fn warm(&self, names: &[ProfileName], tell: &(dyn Fn(&Tally) + Sync)) -> Result<Tally, RemoteError> {
        let (Some(store), Some(remote)) = (&self.store, &self.remote) else { return Err(RemoteError::Gone) };
        let interrupted = || self.interrupt.came();
        let named =
            profile::resolve(names, |name| patiently(&interrupted, || remote.profile(name, &interrupted)))?;
        let tally = Tally {
            found: named.found,
            missing: named.missing,
            named: named.actions.len() as u64,
            ..Tally::default()
        };
        let filling = Filling {
            store,
            remote,
            interrupt: &self.interrupt,
            max_size: self.settings.max_size,
            writing: Mutex::default(),
            tally: Mutex::new(tally),
            tell,
        };
        let (queue, waiting) = sync_channel(BATCH);
        let waiting = Mutex::new(waiting);
        std::thread::scope(|threads| {
            for _ in 0..AT_ONCE {
                threads.spawn(|| filling.work(&waiting));
            }
            let (first, rest) = named.actions.split_at(FIRST_BATCH.min(named.actions.len()));
            for batch in [first].into_iter().chain(rest.chunks(BATCH)) {
                if filling.has_ended() {
                    break;
                }
                match self.offers(&filling, batch) {
                    Ok(offers) => offers.into_iter().for_each(|offer| drop(queue.send(offer))),
                    Err(error) => filling.end(&error),
                }
            }
            // The workers end when nothing more can come.
            drop(queue);
        });
        Ok(filling.tally.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the server has of those actions that are not here, as far as it may be used.
    fn offers(&self, filling: &Filling<'_>, actions: &[ActionKey]) -> Result<Vec<Offer>, RemoteError> {
        let interrupted = || self.interrupt.came();
        let is_wanted = |action: &ActionKey| !self.is_here(filling.store, *action);
        let wanted: Vec<_> = actions.iter().copied().filter(is_wanted).collect();
        filling.note(|tally| tally.here += (actions.len() - wanted.len()) as u64);
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        for _ in 0..MAX_QUESTIONS {
            let look_up = || filling.remote.look_up(&wanted, &interrupted);
            let found = patiently(&interrupted, look_up)?;
            let scopes: Vec<&Scope> = found.iter().map(|keyed| &keyed.scope).collect();
            let Some(notes) = self.catch_up(&scopes)? else { continue };
            let mut found: HashMap<_, _> = found.into_iter().map(|keyed| (keyed.action, keyed)).collect();
            let mut offers = Vec::new();
            for action in &wanted {
                match found.remove(action).map(|keyed| self.judged(keyed, &notes)) {
                    Some(Ok(offer)) => offers.push(offer),
                    Some(Err(why)) => filling.note(|tally| tally.refuse(&why)),
                    None => filling.note(|tally| tally.gone += 1),
                }
            }
            return Ok(offers);
        }
        Err(damaged(&"the server takes back as fast as it gives"))
    }

    /// What was offered, if a launch would use it too.
    fn judged(&self, keyed: KeyedResult, notes: &ServerNotes) -> Result<Offer, RemoteError> {
        let Some(url) = &self.settings.remote else { return Err(RemoteError::Gone) };
        self.refuse_outlandish(&keyed.result)?;
        self.refuse_unsigned(&keyed.scope, keyed.action, &keyed.result)?;
        let KeyedResult { action, result, scope, writers, blobs } = keyed;
        let from = Fetched { server: ServerId::of(url), scope, writers, generation: notes.generation };
        match notes.allow(&from) {
            true => Ok(Offer { action, kept: Kept { result, origin: Origin::Fetched(from) }, blobs }),
            false => Err(damaged(&"its server has taken it back")),
        }
    }

    /// Whether all that a local hit needs is here. To look is to use: it stays for the build that is to come.
    fn is_here(&self, store: &Store, action: ActionKey) -> bool {
        let Some(kept) = store.result(action) else { return false };
        let has_blobs = kept.result.outputs.iter().all(|output| store.has_blob(output.digest, output.size));
        if !has_blobs || self.distrust(store, action, &kept).is_some() {
            return false;
        }
        let recipe = recipe_of(store, action).and_then(|text| Recipe::parse(text).ok());
        let set = recipe.as_ref().and_then(|recipe| recipe.include_set().ok());
        let knows_set =
            recipe.zip(set).is_some_and(|(recipe, set)| store.include_sets(recipe.unit_key()).contains(&set));
        let bmi = kept.result.output(Role::Bmi);
        knows_set && bmi.is_none_or(|bmi| store.embedded(bmi.digest).is_some())
    }
}

/// A result that may be used, and what came along with it.
struct Offer {
    action: ActionKey,
    kept: Kept,
    blobs: BTreeMap<Digest, Inline>,
}

/// What those who bring results share.
struct Filling<'a> {
    store: &'a Store,
    remote: &'a Remote,
    interrupt: &'a Interrupt,
    max_size: Option<ByteSize>,
    /// Two results of one unit must not write its sets at the same time.
    writing: Mutex<()>,
    tally: Mutex<Tally>,
    tell: &'a (dyn Fn(&Tally) + Sync),
}

/// What became of an offer that was looked at.
enum Brought {
    /// It is here.
    Whole,
    /// There is no room for it.
    NoRoom,
}

impl Filling<'_> {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, change: impl FnOnce(&mut Tally)) {
        let mut tally = self.tally();
        change(&mut tally);
        (self.tell)(&tally);
    }

    fn end(&self, why: &RemoteError) {
        self.note(|tally| {
            tally.failure.get_or_insert_with(|| why.to_string());
        });
    }

    fn has_ended(&self) -> bool {
        let tally = self.tally();
        tally.is_full || tally.failure.is_some()
    }

    /// Brings one offer after the other. Once it ended, they are passed over: whoever sends them must not wait for ever.
    fn work(&self, waiting: &Mutex<Receiver<Offer>>) {
        loop {
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(offer) = next else { return };
            if self.has_ended() {
                continue;
            }
            match patiently(&|| self.interrupt.came(), || self.bring(&offer)) {
                Ok(Brought::Whole) => self.note(|tally| {
                    let outputs = &offer.kept.result.outputs;
                    tally.bytes += outputs.iter().map(|output| output.size).sum::<u64>();
                    tally.fetched += 1;
                }),
                Ok(Brought::NoRoom) => self.note(|tally| tally.is_full = true),
                Err(RemoteError::Gone) => self.note(|tally| tally.gone += 1),
                Err(why @ (RemoteError::Damaged { .. } | RemoteError::Unsigned(_))) => {
                    self.note(|tally| tally.refuse(&why));
                }
                Err(
                    why @ (RemoteError::Unreachable { .. }
                    | RemoteError::Refused { .. }
                    | RemoteError::Local(_)
                    | RemoteError::Interrupted
                    | RemoteError::Misconfigured(_)),
                ) => self.end(&why),
            }
        }
    }

    fn bring(&self, offer: &Offer) -> Result<Brought, RemoteError> {
        let recipe = self.recipe(offer)?;
        let set = recipe.include_set().map_err(|error| damaged(&error))?;
        refuse_endless(&set)?;
        let outputs = &offer.kept.result.outputs;
        let sizes = outputs.iter().map(|output| output.size).chain([recipe.text().len() as u64]);
        let Some(_room) = self.store.room_to_spare(sizes, self.max_size) else { return Ok(Brought::NoRoom) };
        for output in outputs {
            bring(self.store, Some(self.remote), self.interrupt, output, &offer.blobs)?;
            failpoint!("warm.blob");
        }
        self.remember(offer, &recipe, &set).map_err(RemoteError::Local)?;
        failpoint!("warm.stored");
        Ok(Brought::Whole)
    }

    /// The text that the result's key is the digest of.
    fn recipe(&self, offer: &Offer) -> Result<Recipe, RemoteError> {
        let text = match (recipe_of(self.store, offer.action), offer.blobs.get(&offer.action.recipe())) {
            (Some(text), _) => text.into_bytes(),
            (None, Some(inline)) => inline.0.clone(),
            (None, None) => {
                let interrupted = || self.interrupt.came();
                self.remote.fetch_text(offer.action.recipe(), MAX_TEXT as u64, &interrupted)?
            }
        };
        let text = String::from_utf8(text).map_err(|error| damaged(&error))?;
        let recipe = Recipe::parse(text).map_err(|error| damaged(&error))?;
        if recipe.action_key() != offer.action {
            return Err(damaged(&"its recipe is of another action"));
        }
        Ok(recipe)
    }

    /// Writes down what a local hit needs, the result last. What is known here already is left as it is.
    fn remember(&self, offer: &Offer, recipe: &Recipe, set: &IncludeSet) -> io::Result<()> {
        let Offer { action, kept, .. } = offer;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.store.put_blob(recipe.text().as_bytes())?;
        if let Some(bmi) = kept.result.output(Role::Bmi)
            && self.store.embedded(bmi.digest).is_none()
        {
            self.store.mark_embedded(bmi.digest, &embedded(recipe.unit_text(), set))?;
        }
        self.store.add_older_set(recipe.unit_key(), set)?;
        failpoint!("warm.set");
        self.store.put_result(*action, kept)
    }
}

/// Refuses a set that no launch would follow. Where its relative names lead is known to the launch only.
fn refuse_endless(set: &IncludeSet) -> Result<(), RemoteError> {
    let files = set.iter().filter_map(Learnt::file).filter(|file| file.is_absolute());
    let sizes = files.filter_map(|file| Some(fs_err::metadata(file).ok()?.len()));
    match set.iter().count() <= MAX_LEARNT && sizes.fold(0, u64::saturating_add) <= MAX_READ {
        true => Ok(()),
        false => Err(damaged(&"its include set names too much")),
    }
}

/// Asks again where the server has too much to do just now, or was not reached: nobody waits for this.
fn patiently<T>(
    interrupted: &dyn Fn() -> bool,
    mut ask: impl FnMut() -> Result<T, RemoteError>,
) -> Result<T, RemoteError> {
    let mut tries = 0;
    loop {
        let error = match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        tries += 1;
        let most = match &error {
            RemoteError::Refused { status: 429 | 503, .. } => BUSY_TRIES,
            RemoteError::Unreachable { .. } => LOST_TRIES,
            RemoteError::Refused { .. }
            | RemoteError::Damaged { .. }
            | RemoteError::Unsigned(_)
            | RemoteError::Gone
            | RemoteError::Local(_)
            | RemoteError::Interrupted
            | RemoteError::Misconfigured(_) => 0,
        };
        if tries >= most {
            return Err(error);
        }
        std::thread::sleep(PAUSE);
        if interrupted() {
            return Err(RemoteError::Interrupted);
        }
    }
}
