//! The rules of the cache.

mod damage;
mod evict;
mod kill;
mod leases;
mod migrate;
mod publish;
mod race;
mod restart;
mod room;
mod seen;
mod sets;
mod sweep;
mod trust;
mod uploads;
