//! The rules of the cache.

mod backup;
mod check;
mod damage;
mod evict;
#[cfg(feature = "failpoints")]
mod io;
mod kill;
#[cfg(feature = "failpoints")]
mod killed_upkeep;
mod leases;
mod migrate;
mod near;
#[cfg(feature = "failpoints")]
mod power;
mod pressure;
mod profiles;
mod publish;
mod race;
mod rebuild;
mod restart;
mod room;
mod scrub;
mod seen;
mod sets;
mod sweep;
mod trust;
mod uploads;
