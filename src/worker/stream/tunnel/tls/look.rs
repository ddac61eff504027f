//! The look at the peers file before the peer's key is judged. Others do it, and may take any time: the
//! handshake waits for them, and nothing else does.

use std::time::Duration;

use crate::limits::PEERS_LOOK_SECS;
use crate::session::Moment;
use crate::tls::settings::Settings;

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker::stream::tunnel) enum Look {
    /// To be asked for when the key comes.
    Due,
    /// Asked for, and waited for until this time.
    Awaited(Moment),
    /// Over, or not within its time. What was received meanwhile waits.
    Ended { in_time: bool },
    /// Nothing is to be looked at, any more.
    Over,
}

impl Look {
    pub(super) fn new(settings: &Settings) -> Look {
        if settings.peers().has_file() { Look::Due } else { Look::Over }
    }

    /// Whether what was received waits.
    #[inline]
    pub(super) fn is_in_the_way(self) -> bool {
        matches!(self, Look::Awaited(_) | Look::Ended { .. })
    }

    /// Until when it is waited for.
    pub(super) fn until(self) -> Option<Moment> {
        match self {
            Look::Awaited(until) => Some(until),
            _ => None,
        }
    }

    /// It is waited for from now on. `false`: it is already.
    pub(in crate::worker::stream::tunnel) fn begin(&mut self, now: Moment) -> bool {
        let is_due = *self == Look::Due;
        if is_due {
            *self = Look::Awaited(now.after(Duration::from_secs(PEERS_LOOK_SECS)));
        }
        is_due
    }

    /// It is over, or is not waited for any longer.
    pub(in crate::worker::stream::tunnel) fn end(&mut self, in_time: bool) {
        if let Look::Awaited(_) = self {
            *self = Look::Ended { in_time };
        }
    }

    pub(super) fn on_time(&mut self, now: Moment) {
        if self.until().is_some_and(|until| until <= now) {
            self.end(false);
        }
    }

    /// Whether the peer may be judged now. If there was no look in time, the file lets nobody in.
    pub(super) fn is_over(&mut self, settings: &Settings) -> bool {
        match self {
            Look::Due | Look::Awaited(_) => return false,
            Look::Ended { in_time: false } => settings.peers().look_is_late(),
            Look::Ended { in_time: true } | Look::Over => {}
        }
        *self = Look::Over;
        true
    }
}
