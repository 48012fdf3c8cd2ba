//! One suite for each contract; every back end runs all of it.

mod blobs;
mod leases;
mod profiles;
mod results;
mod spent;

/// Makes a test of each function for each back end.
macro_rules! every_back_end {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test] async fn $name() { super::$name(super::memory()).await; })*
        }
        mod embedded {
            $(#[tokio::test] async fn $name() {
                let scratch = crate::bench::Scratch::new();
                super::$name(super::embedded(scratch.path())).await;
            })*
        }
    };
}
use every_back_end;
