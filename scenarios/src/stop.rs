//! The wish that a run ends: Ctrl-C (SIGINT) or SIGTERM is noted, and the run stops at the next place where it can.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;

/// How often whoever waits for something else looks.
pub const LOOK: Duration = Duration::from_millis(50);
/// Whoever ends this process may end its workers first: a worker's death is a failure only when no wish follows so soon.
const GRACE: Duration = Duration::from_millis(300);

/// Whether the run should end. Copies share the wish; one that nobody listens for never comes.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicUsize>);

/// Why something was left unfinished: the run is to end.
#[derive(Debug, thiserror::Error)]
#[error("the run was stopped by {}", signal_word(*.0))]
pub struct Stopped(pub u8);

impl Stop {
    /// Listens for Ctrl-C and SIGTERM. The second one ends the process at once.
    #[cfg(unix)]
    pub fn listen() -> Result<Stop> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        use signal_hook::flag;
        use std::sync::atomic::AtomicBool;

        let (stop, again) = (Stop::default(), Arc::new(AtomicBool::new(false)));
        for signal in [SIGINT, SIGTERM] {
            // in this order: the first signal finds the condition false, and makes it true
            flag::register_conditional_shutdown(signal, 128 + signal, again.clone())?;
            flag::register_usize(signal, stop.0.clone(), signal as usize)?;
            flag::register(signal, again.clone())?;
        }
        Ok(stop)
    }

    /// Without signals a process ends where it is, and its run is continued as after a kill.
    #[cfg(not(unix))]
    pub fn listen() -> Result<Stop> {
        Ok(Stop::default())
    }

    /// The signal that asked for the end.
    pub fn asked(&self) -> Option<u8> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(signal as u8),
        }
    }

    /// An error when the run should end.
    pub fn check(&self) -> Result<(), Stopped> {
        self.asked().map_or(Ok(()), |signal| Err(Stopped(signal)))
    }

    /// The same for whoever has just seen a worker die.
    pub fn check_after_a_death(&self) -> Result<(), Stopped> {
        let mut waited = Duration::ZERO;
        while self.asked().is_none() && waited < GRACE {
            std::thread::sleep(LOOK);
            waited += LOOK;
        }
        self.check()
    }
}

/// A signal as a person calls it.
pub fn signal_word(signal: u8) -> String {
    match signal {
        2 => "Ctrl-C".into(),
        15 => "SIGTERM".into(),
        other => format!("signal {other}"),
    }
}
