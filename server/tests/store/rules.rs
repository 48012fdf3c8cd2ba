//! The rules of the cache.

mod damage;
mod leases;
mod publish;
mod restart;
mod sets;
mod sweep;
mod uploads;
