//! How many connections come from where: one host cannot have them all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::Who;

/// The connections that are open, by where they come from. It holds no more than there are.
#[derive(Debug)]
pub(super) struct Crowd {
    /// From one address; 0: no bound.
    most: usize,
    open: Mutex<HashMap<Who, usize>>,
}

impl Crowd {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, open: Mutex::default() })
    }

    /// A place for one more from there, as long as what this returns is kept; none if there are too many.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let who = Who::at(address);
        let mut open = self.open();
        let count = open.get(&who).copied().unwrap_or_default();
        if self.most > 0 && count >= self.most {
            return None;
        }
        open.insert(who.clone(), count + 1);
        drop(open);
        Some(Place { crowd: Arc::clone(self), who })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Who, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Arc<Crowd>,
    who: Who,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.crowd.open();
        match open.get_mut(&self.who) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(open.remove(&self.who)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_so_many_places_and_what_is_left_is_forgotten() {
        let [here, there]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse().unwrap());
        let crowd = Crowd::new(2);
        let places: Vec<_> = (0..3).map(|_| crowd.enter(here)).collect();
        assert_eq!(places.iter().filter(|place| place.is_some()).count(), 2);
        let other = crowd.enter(there);
        assert!(other.is_some());
        drop(places);
        assert!(crowd.enter(here).is_some());
        drop(other);
        assert!(crowd.open().is_empty());
        let all: Vec<_> = (0..1000).map(|_| Crowd::new(0).enter(here)).collect();
        assert!(all.iter().all(Option::is_some));
    }
}
