//! SIGINT, SIGTERM and SIGHUP: noted, passed on to the compiler, obeyed once nothing is left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// The signal that told this launcher to stop, if one did.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// Notes the signals from here on instead of dying of them.
    pub fn listen() -> Self {
        let noted = Self::default();
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            // Without a handler the process simply dies of the signal, as it did before.
            let _ = signal_hook::flag::register_usize(signal, Arc::clone(&noted.0), signal as usize);
        }
        noted
    }

    /// The signal that came, if one did.
    pub fn signal(&self) -> Option<i32> {
        i32::try_from(self.0.load(Ordering::Relaxed)).ok().filter(|signal| *signal != 0)
    }

    /// Whether a signal came.
    pub fn came(&self) -> bool {
        self.signal().is_some()
    }
}

/// Takes the signals and does nothing, so that a process started from here has the default again.
pub fn survive() {
    let _ = Interrupt::listen();
}
