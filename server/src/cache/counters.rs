//! What happened since the start, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use pcmcache_shared::Cost;

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// The live counters.
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $($(#[doc = $doc])* pub(crate) $name: Counter,)* }

        /// The counters at one moment.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Snapshot { $($(#[doc = $doc])* pub $name: u64,)* }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Snapshot {
                Snapshot { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }

        impl Snapshot {
            /// Each counter's name, what it counts, and its value.
            pub fn table(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), concat!($($doc),*).trim_ascii(), self.$name),)*]
            }
        }
    };
}

/// A number that only rises.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }
}

impl Counters {
    /// A result of this cost was taken.
    pub(crate) fn hit(&self, cost: Cost) {
        self.hits.one();
        self.saved_ms.add(cost.wall_ms);
    }
}

counters! {
    /// Results that clients took: by an acquire's answer, by a read, or from among those offered with include sets.
    hits,
    /// Acquires and reads of a result that found none, so that someone compiles.
    misses,
    /// Compiler time of the results that clients took, which nobody spent again.
    saved_ms,
    /// Compiler time of the results that were published.
    built_ms,
    /// Acquires answered with include sets that the client did not know.
    sets,
    /// Leases granted.
    granted,
    /// Acquires that got the grant that their request had already.
    resumed,
    /// Leases granted after another on the same claim ran out.
    taken_over,
    /// Leases that ended because their time was over.
    expired,
    /// Acquires that waited for someone else's build.
    waited,
    /// Acquires told to compile alone.
    alone,
    /// Streams that broke while they held a lease.
    dropped_holds,
    /// Leases given back without a result.
    released,
    /// Results published.
    published,
    /// Results published that were there already, byte for byte.
    published_same,
    /// Results published that differed from the one that was there.
    diverged,
    /// Publishes that took the place of a result whose blobs were lost.
    replaced,
    /// Publishes refused because someone else held the lease.
    lease_held,
    /// Blobs uploaded.
    uploads,
    /// Bytes of the blobs uploaded.
    uploaded_bytes,
    /// Uploads whose bytes did not have the digest they were sent under.
    digest_mismatches,
    /// Uploads and publishes refused because there was no room.
    store_full,
    /// Bytes of blobs served.
    served_bytes,
    /// Blobs that were found damaged and moved aside.
    damaged_blobs,
    /// Blobs that the scrub read again.
    scrubbed_blobs,
    /// Bytes that the scrub read again.
    scrubbed_bytes,
    /// How often the scrub has read all there is.
    scrub_rounds,
    /// Blobs that no result needed and that were removed.
    swept_blobs,
    /// Results removed to make room, or because nobody used them.
    evicted_results,
    /// Bytes that removing results freed.
    evicted_bytes,
    /// Results removed because nobody used them for so long.
    aged_results,
}
