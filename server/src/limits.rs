//! How much one client may ask for: requests a second, requests at once, waits at once.
//!
//! Who is counted is a [`Who`]: a token's name where there is one, else the address that the request came from. A claim
//! that is waited for or held is an open request for minutes, so these have a bound of their own: a host that waits for
//! hundreds of modules may still fetch what is there.
//!
//! Memory is bounded: of clients that ask nothing now, nothing is kept but when they may ask again, and of more than
//! [`MOST_ACCOUNTS`] the newcomers share one account. A denied request costs a lock and a look-up.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Moment};

/// For how long the rate may be exceeded: so many seconds' worth of requests may come at once.
const BURST: Duration = Duration::from_secs(2);
/// The clients that are told apart.
const MOST_ACCOUNTS: usize = 100_000;
/// How often it is looked for accounts that can be forgotten, when there are too many.
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// After which a client that has too much under way may ask again: nobody knows when it will have less.
const SOON: Duration = Duration::from_secs(1);

/// Whom a request is counted for. A request's extension.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Who(Arc<str>);

impl Who {
    /// A client that is known by this name, which is no address.
    pub fn named(name: &str) -> Self {
        Self(format!("name {name}").into())
    }

    /// A client of which nothing is known but where it is. Of IPv6 that is the network, within which a host takes what
    /// address it likes.
    pub fn at(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.to_string().into(),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                format!("{a:x}:{b:x}:{c:x}:{d:x}::/64").into()
            }
        })
    }

    /// Who shares the one account that is left.
    fn anyone() -> Self {
        Self("anyone".into())
    }
}

/// How much each client may ask for; none where it is 0.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Requests a second, for longer than a burst.
    pub rate: u32,
    /// Requests under way at the same time, but for those that wait or hold.
    pub concurrency: usize,
    /// Requests at the same time that wait or hold.
    pub waits: usize,
}

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It ends soon.
    Brief,
    /// It may wait for a build, and then hold the right to one.
    Wait,
}

/// A request that is too much, and when it may be asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{} of this client; ask again in {} s", .excess.words(), .after_s)]
pub struct TooMuch {
    /// Of what.
    pub excess: Excess,
    /// In whole seconds, and at least one.
    pub after_s: u64,
}

/// What there is too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// Requests a second.
    Rate,
    /// Requests at once.
    Concurrency,
    /// Waits and holds at once.
    Waits,
}

impl Excess {
    const fn words(self) -> &'static str {
        match self {
            Self::Rate => "too many requests a second",
            Self::Concurrency => "too many requests under way",
            Self::Waits => "too many waits and holds",
        }
    }
}

/// Keeps the accounts.
#[derive(Debug)]
pub struct Limiter {
    bounds: Bounds,
    clock: Arc<dyn Clock>,
    ledger: Mutex<Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    accounts: HashMap<Who, Account>,
    tidied: Moment,
}

/// One client's.
#[derive(Debug, Default)]
struct Account {
    /// When the requests so far would have come at the rate that is allowed.
    due: Moment,
    brief: usize,
    waits: usize,
}

impl Account {
    const fn is_at_rest(&self) -> bool {
        self.brief == 0 && self.waits == 0
    }

    fn count(&mut self, kind: Kind) -> &mut usize {
        match kind {
            Kind::Brief => &mut self.brief,
            Kind::Wait => &mut self.waits,
        }
    }
}

impl Limiter {
    /// Nobody has asked for anything yet.
    pub fn new(bounds: Bounds, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { bounds, clock, ledger: Mutex::default() })
    }

    /// Counts a request in, until what this returns is dropped.
    ///
    /// # Errors
    /// [`TooMuch`] if it must not be done now; then nothing is counted.
    pub fn admit(self: &Arc<Self>, who: &Who, kind: Kind) -> Result<Admitted, TooMuch> {
        let mut ledger = self.ledger();
        // Not before: who waited for the ledger would take those that came after for requests far ahead of their time.
        let now = self.clock.now();
        let who = ledger.account_of(who, now);
        let account = ledger.accounts.entry(who.clone()).or_default();
        let (most, excess) = match kind {
            Kind::Brief => (self.bounds.concurrency, Excess::Concurrency),
            Kind::Wait => (self.bounds.waits, Excess::Waits),
        };
        if most > 0 && *account.count(kind) >= most {
            return Err(TooMuch { excess, after_s: SOON.as_secs() });
        }
        if let Some(apart) = Duration::from_secs(1).checked_div(self.bounds.rate) {
            let due = account.due.max(now);
            let ahead = due.since(now);
            if ahead > BURST {
                return Err(TooMuch { excess: Excess::Rate, after_s: (ahead - BURST).as_secs() + 1 });
            }
            account.due = due + apart;
        }
        *account.count(kind) += 1;
        drop(ledger);
        Ok(Admitted { limiter: Arc::clone(self), who, kind })
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    /// Whose account it is: the client's own, as long as there is room for one.
    fn account_of(&mut self, who: &Who, now: Moment) -> Who {
        if self.accounts.len() < MOST_ACCOUNTS || self.accounts.contains_key(who) {
            return who.clone();
        }
        if now.since(self.tidied) >= TIDY_EVERY {
            self.tidied = now;
            self.accounts.retain(|_, account| !account.is_at_rest() || account.due > now);
        }
        if self.accounts.len() < MOST_ACCOUNTS { who.clone() } else { Who::anyone() }
    }
}

/// A request that was let in.
#[derive(Debug)]
pub struct Admitted {
    limiter: Arc<Limiter>,
    who: Who,
    kind: Kind,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(account) = self.limiter.ledger().accounts.get_mut(&self.who) {
            let count = account.count(self.kind);
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::clock::ManualClock;

    const BOUNDS: Bounds = Bounds { rate: 10, concurrency: 2, waits: 3 };

    fn limiter(bounds: Bounds) -> (Arc<Limiter>, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::default());
        (Limiter::new(bounds, Arc::clone(&clock) as _), clock)
    }

    #[test]
    fn a_burst_is_let_in_and_then_the_rate() {
        let (limiter, clock) = limiter(BOUNDS);
        let ask = |who: &str| limiter.admit(&Who::named(who), Kind::Brief).map(drop);
        let burst = (0..100).take_while(|_| ask("ada").is_ok()).count();
        assert_eq!(burst, 21);
        assert_eq!(ask("ada"), Err(TooMuch { excess: Excess::Rate, after_s: 1 }));
        assert_eq!(ask("bob"), Ok(()), "another's requests are another's");
        clock.advance(Duration::from_secs(1));
        assert_eq!((0..100).take_while(|_| ask("ada").is_ok()).count(), 10);
        clock.advance(Duration::from_secs(3600));
        assert_eq!(
            (0..100).take_while(|_| ask("ada").is_ok()).count(),
            21,
            "and no more for having been quiet"
        );
    }

    #[test]
    fn what_is_under_way_is_bounded_and_waits_apart() {
        let (limiter, _) = limiter(BOUNDS);
        let who = Who::named("ada");
        let ask = |kind| limiter.admit(&who, kind);
        let brief: Vec<_> = (0..2).map(|_| ask(Kind::Brief).unwrap()).collect();
        assert_eq!(ask(Kind::Brief).unwrap_err().excess, Excess::Concurrency);
        let waits: Vec<_> = (0..3).map(|_| ask(Kind::Wait).unwrap()).collect();
        assert_eq!(ask(Kind::Wait).unwrap_err().excess, Excess::Waits);
        drop(brief);
        assert!(ask(Kind::Brief).is_ok());
        assert!(ask(Kind::Wait).is_err());
        drop(waits);
        assert!(ask(Kind::Wait).is_ok());
    }

    #[test]
    fn nothing_is_bounded_where_the_bound_is_0() {
        let (limiter, _) = limiter(Bounds { rate: 0, concurrency: 0, waits: 0 });
        let all: Vec<_> = (0..1000).map(|_| limiter.admit(&Who::named("ada"), Kind::Wait)).collect();
        assert!(all.iter().all(Result::is_ok));
    }

    #[test]
    fn a_host_is_one_client_whatever_address_it_takes() {
        let at = |text: &str| Who::at(text.parse().unwrap());
        assert_eq!(at("2001:db8:1:2::3"), at("2001:db8:1:2:ffff::9"));
        assert_ne!(at("2001:db8:1:2::3"), at("2001:db8:1:3::3"));
        assert_eq!(at("::ffff:10.0.0.1"), at("10.0.0.1"));
        assert_ne!(at("10.0.0.1"), at("10.0.0.2"));
        assert_ne!(at("10.0.0.1"), Who::named("10.0.0.1"));
    }

    #[test]
    fn of_too_many_clients_the_newcomers_share_an_account_until_others_left() {
        let (limiter, clock) = limiter(BOUNDS);
        let client = |number: u32| Who::at(Ipv4Addr::from_bits(number).into());
        let most = u32::try_from(MOST_ACCOUNTS).unwrap();
        let held: Vec<_> =
            (0..most).map(|number| limiter.admit(&client(number), Kind::Brief).unwrap()).collect();
        clock.advance(Duration::from_secs(10));
        let shared: Vec<_> =
            (most..most + 2).map(|number| limiter.admit(&client(number), Kind::Brief)).collect();
        assert!(shared.iter().all(Result::is_ok));
        assert!(limiter.admit(&client(most + 3), Kind::Brief).is_err(), "two are under way in that account");
        assert!(limiter.admit(&client(7), Kind::Brief).is_ok(), "who was there has its own");
        assert!(limiter.ledger().accounts.len() <= MOST_ACCOUNTS + 1);
        drop(held);
        clock.advance(Duration::from_secs(10));
        assert!(limiter.admit(&client(most + 3), Kind::Brief).is_ok());
        assert!(limiter.ledger().accounts.len() < 10);
    }
}
