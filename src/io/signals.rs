#![allow(unsafe_code)]
//! Signals: which of them are heard, and how they get to the worker.
//!
//! Each that is heard comes as a byte of its own number on the worker's wake channel. No signal that
//! anybody could send by mistake ends the process without a word: those that mean nothing are heard
//! as well, and logged. The rest is left as it is: what tells of a fault of the program (SIGSEGV,
//! SIGABRT and the like), SIGTSTP and SIGTTIN, by which a shell stops it, and what does nothing.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use libc::c_int;
use rustix::net::SendFlags;

use crate::narrow::to_u8;

/// Heard, beside the real-time signals. All of them would end the process otherwise, but for SIGCHLD.
const HEARD: [c_int; 14] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGXCPU,
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSTKFLT,
    libc::SIGCHLD,
];

/// These end the process by default until it is ready to drain: nothing is under way.
const ENDING: [c_int; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGXCPU];

fn heard() -> impl Iterator<Item = c_int> {
    HEARD.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX())
}

/// Lets the process survive all signals but those that are to end it, from now on.
///
/// # Errors
/// What the system says.
pub fn survive() -> io::Result<()> {
    // A handler that does next to nothing. A write beyond the largest file that the process may make
    // (SIGXFSZ) then fails, as one to a pipe that nobody reads does: Rust ignores SIGPIPE itself.
    for signal in heard().filter(|signal| !ENDING.contains(signal)).chain([libc::SIGXFSZ]) {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    // Only ignored does it let a process in the background write to its terminal (`stty tostop`).
    // SAFETY: no handler is set, and no other thread has been started to depend on the signal.
    unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
    Ok(())
}

/// From now on each signal that is heard sends its number as a byte.
///
/// # Errors
/// What the system says.
pub(crate) fn send_to(wake: UnixStream) -> io::Result<()> {
    let wake = Arc::new(wake);
    for signal in heard() {
        let (wake, byte) = (Arc::clone(&wake), to_u8(signal));
        let send = move || {
            // A channel that is full of bytes wakes the worker already.
            let _ = rustix::net::send(&*wake, &[byte], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        };
        // SAFETY: the handler makes one system call, allocates nothing, takes no lock and does not
        // panic. signal-hook keeps the error number as it was.
        unsafe { signal_hook::low_level::register(signal, send)? };
    }
    Ok(())
}

/// Its name, for the log.
pub(crate) fn name(signal: c_int) -> String {
    match signal_hook::low_level::signal_name(signal) {
        Some(name) => name.to_owned(),
        None if signal == libc::SIGPWR => "SIGPWR".to_owned(),
        None if signal == libc::SIGSTKFLT => "SIGSTKFLT".to_owned(),
        None if signal >= libc::SIGRTMIN() => format!("SIGRTMIN+{}", signal - libc::SIGRTMIN()),
        None => format!("signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_no_other_bytes_of_the_wake_channel() {
        let desks = [super::super::takeover::desk::WAKE, super::super::control::desk::WAKE];
        let others = [b'r', b's', desks[0], desks[1]].map(c_int::from);
        assert!(heard().all(|signal| (1..128).contains(&signal) && !others.contains(&signal)));
        assert_eq!(name(libc::SIGHUP), "SIGHUP");
        assert_eq!(name(libc::SIGRTMIN() + 3), "SIGRTMIN+3");
    }
}
