//! Small projects of modules and random edits to them: what a developer does all day, a few thousand times.
//!
//! A project is a value: which units there are, what they import and include, which flags they take. Files and commands
//! follow from it. An edit changes the value (or the files beside it), so that a failing sequence can be run again with
//! any of its edits left out.

pub mod edit;
pub mod project;
pub mod replay;

pub use edit::Edit;
pub use project::Project;
pub use replay::{Bench, Failure};
