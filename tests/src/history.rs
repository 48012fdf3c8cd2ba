//! Histories: what many clients asked a real server while it was killed, stopped and cut off, what each was told and when; and
//! whether any order of events explains all of it.
//!
//! A history is a list of [`Line`]s: how it was set up, each operation with the times between which it took effect, each
//! fault. [`run`] makes one from a seed, [`check`] judges one and knows nothing of how it was made, so a history that was kept in
//! a file can be judged again. All times are of the test's monotonic clock: what ended before another thing began came before it.
//!
//! An operation that was cut off is *unknown*: it took effect at some time after it began, or never.

pub mod client;
pub mod contents;
pub mod line;
pub mod nemesis;
pub mod road;
pub mod rules;
pub mod run;
pub mod wire;

pub use line::{Act, End, Fault, Line, Op, Recorder, Setting};
pub use rules::{Violation, check};
pub use run::{Kind, run};
