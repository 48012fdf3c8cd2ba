//! What to say of an error that another one caused.

use std::error::Error;

/// What something failed by, down to its root: the outermost words alone say next to nothing.
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
