//! Buckets of time, and what they add up to.
//!
//! A bucket has the number of its minute or hour since 1970, so a clock that is set only decides where things are counted:
//! nothing is lost or counted twice, and what lies in the future is kept, and shown when its time has come. The oldest
//! go when there are too many, by their number, not by the clock, so that a leap of it throws nothing away.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::cache::Snapshot;

/// Minutes that are kept: a day and the part of one that a span may begin in.
const MINUTES: usize = 24 * 60 + 10;
/// Hours that are kept: a year, and a day.
const HOURS: usize = 366 * 24;

macro_rules! bucket {
    ($($(#[doc = $doc:literal])* $name:ident: $from:ident,)*) => {
        /// What happened in a minute, an hour, a span.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(default)]
        pub struct Bucket {
            $($(#[doc = $doc])* pub $name: u64,)*
            /// The most bytes that the store took.
            pub stored_bytes: u64,
        }

        /// The same of many spans, a list for each count.
        #[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, utoipa::ToSchema)]
        pub struct Columns {
            $($(#[doc = $doc])* pub $name: Vec<u64>,)*
            /// The most bytes that the store took.
            pub stored_bytes: Vec<u64>,
        }

        impl Bucket {
            /// What happened between two moments of one process.
            pub(super) fn between(before: &Snapshot, after: &Snapshot, stored_bytes: u64) -> Self {
                Self { $($name: after.$from.saturating_sub(before.$from),)* stored_bytes }
            }

            fn add(&mut self, other: &Self) {
                $(self.$name = self.$name.saturating_add(other.$name);)*
                self.stored_bytes = self.stored_bytes.max(other.stored_bytes);
            }
        }

        impl Columns {
            fn push(&mut self, bucket: &Bucket) {
                $(self.$name.push(bucket.$name);)*
                self.stored_bytes.push(bucket.stored_bytes);
            }
        }
    };
}

bucket! {
    /// Results that clients took.
    hits: hits,
    /// Acquires and reads that found no result.
    misses: misses,
    /// Acquires that waited for someone else's build.
    waited: waited,
    /// Results published.
    published: published,
    /// Results that differed from the one that was there.
    diverged: diverged,
    /// Leases granted after another ran out.
    taken_over: taken_over,
    /// Bytes of blobs served.
    served_bytes: served_bytes,
    /// Bytes of blobs uploaded.
    uploaded_bytes: uploaded_bytes,
    /// Compiler time of the results that clients took, in milliseconds.
    saved_ms: saved_ms,
    /// Compiler time of the results that were published, in milliseconds.
    built_ms: built_ms,
    /// Blobs that were found damaged.
    damaged: damaged_blobs,
    /// Results removed to make room, or because nobody used them.
    evicted: evicted_results,
    /// Bytes that removing results freed.
    evicted_bytes: evicted_bytes,
}

/// A span of time that ends now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Span {
    /// By the minute.
    Hour,
    /// By a quarter of an hour.
    #[default]
    Day,
    /// Thirty days, by eight hours.
    Month,
    /// Fifty-two weeks.
    Year,
}

impl Span {
    /// How many points it has, and how many seconds each is long.
    fn steps(self) -> (u64, u64) {
        match self {
            Self::Hour => (60, 60),
            Self::Day => (96, 15 * 60),
            Self::Month => (90, 8 * 3600),
            Self::Year => (52, 7 * 24 * 3600),
        }
    }
}

/// What happened over a span of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Over {
    /// Which span.
    pub span: Span,
    /// How long each of its steps is, in seconds.
    pub step_s: u64,
    /// In how many seconds the last step is over.
    pub ends_in_s: u64,
    /// What happened in each step, the oldest first.
    pub steps: Columns,
    /// What happened in all of them.
    pub total: Bucket,
}

/// The buckets.
#[derive(Debug, Default)]
pub(super) struct Series {
    minutes: Buckets,
    hours: Buckets,
}

#[derive(Debug, Default)]
struct Buckets {
    at: BTreeMap<u64, Bucket>,
    /// Those that are not yet written down as they are now.
    changed: BTreeSet<u64>,
}

impl Buckets {
    fn add(&mut self, number: u64, happened: &Bucket, at_most: usize) {
        self.at.entry(number).or_default().add(happened);
        self.changed.insert(number);
        while self.at.len() > at_most
            && let Some((oldest, _)) = self.at.pop_first()
        {
            self.changed.insert(oldest);
        }
    }

    /// What changed, with what it is now: nothing where it is gone.
    fn take_changes(&mut self) -> Vec<(u64, Option<Bucket>)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|number| (number, self.at.get(&number).copied())).collect()
    }
}

/// What is to be written down.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) minutes: Vec<(u64, Option<Bucket>)>,
    pub(super) hours: Vec<(u64, Option<Bucket>)>,
}

impl Series {
    pub(super) fn of(minutes: BTreeMap<u64, Bucket>, hours: BTreeMap<u64, Bucket>) -> Self {
        let buckets = |at| Buckets { at, changed: BTreeSet::new() };
        Self { minutes: buckets(minutes), hours: buckets(hours) }
    }

    /// This happened just now.
    pub(super) fn add(&mut self, now_s: u64, happened: &Bucket) {
        if *happened != Bucket::default() {
            self.minutes.add(now_s / 60, happened, MINUTES);
            self.hours.add(now_s / 3600, happened, HOURS);
        }
    }

    pub(super) fn take_changes(&mut self) -> Changes {
        Changes { minutes: self.minutes.take_changes(), hours: self.hours.take_changes() }
    }

    /// These could not be written down.
    pub(super) fn changed(&mut self, changes: Changes) {
        self.minutes.changed.extend(changes.minutes.into_iter().map(|(number, _)| number));
        self.hours.changed.extend(changes.hours.into_iter().map(|(number, _)| number));
    }

    pub(super) fn over(&self, span: Span, now_s: u64) -> Over {
        let (count, step_s) = span.steps();
        let (buckets, unit) = if step_s < 3600 { (&self.minutes, 60) } else { (&self.hours, 3600) };
        let end = (now_s / step_s + 1) * step_s;
        let (mut steps, mut total) = (Columns::default(), Bucket::default());
        for index in (1..=count).rev() {
            let mut step = Bucket::default();
            if let Some(from) = end.checked_sub(index * step_s) {
                let inside = buckets.at.range(from / unit..(from + step_s) / unit);
                inside.for_each(|(_, bucket)| step.add(bucket));
            }
            total.add(&step);
            steps.push(&step);
        }
        Over { span, step_s, ends_in_s: end.saturating_sub(now_s), steps, total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 2_000_000_000;
    const YEAR: u64 = 365 * 24 * 3600;

    fn hits(hits: u64) -> Bucket {
        Bucket { hits, ..Bucket::default() }
    }

    #[test]
    fn each_span_shows_what_lies_in_it() {
        let mut series = Series::default();
        let ago = [0, 30 * 60, 20 * 3600, 20 * 24 * 3600, 300 * 24 * 3600];
        for (index, ago) in ago.into_iter().rev().enumerate() {
            series.add(NOW - ago, &hits(10_u64.pow(4 - index as u32)));
        }
        for (span, total, points) in
            [(Span::Hour, 11, 60), (Span::Day, 111, 96), (Span::Month, 1111, 90), (Span::Year, 11111, 52)]
        {
            let over = series.over(span, NOW);
            assert_eq!((over.total.hits, over.steps.hits.len()), (total, points), "{span:?}");
            assert_eq!(over.steps.hits.iter().sum::<u64>(), total);
            assert!(over.ends_in_s > 0 && over.ends_in_s <= over.step_s);
        }
        assert_eq!(series.over(Span::Hour, NOW).steps.hits.last(), Some(&1), "the last step is now");
    }

    #[test]
    fn a_clock_that_is_set_loses_nothing() {
        let mut series = Series::default();
        series.add(NOW, &hits(1));
        series.add(NOW + 10 * YEAR, &hits(2));
        series.add(0, &hits(4));
        series.add(NOW + 60, &hits(8));
        assert_eq!(series.over(Span::Hour, NOW + 60).total.hits, 9);
        assert_eq!(series.over(Span::Hour, NOW + 10 * YEAR).total.hits, 2);
        assert_eq!(series.over(Span::Year, 0).total.hits, 4);
    }

    #[test]
    fn it_is_bounded_and_what_went_is_taken_from_the_file() {
        let mut series = Series::default();
        for minute in 0..MINUTES as u64 + 5 {
            series.add(NOW + minute * 60, &hits(1));
        }
        assert_eq!(series.minutes.at.len(), MINUTES);
        let changes = series.take_changes();
        let gone = changes.minutes.iter().filter(|(_, now)| now.is_none()).count();
        assert_eq!((gone, changes.minutes.len()), (5, MINUTES + 5));
        assert!(series.take_changes().minutes.is_empty());
        series.changed(changes);
        assert_eq!(series.take_changes().minutes.len(), MINUTES + 5);
    }

    #[test]
    fn a_row_of_another_version_is_read_as_far_as_it_is_known() {
        let bucket: Bucket = serde_json::from_str("{\"hits\":3,\"new\":4}").unwrap();
        assert_eq!(bucket, hits(3));
    }
}
