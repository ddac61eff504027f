//! What a service manager is told, as sd_notify(3) has it: datagrams to the Unix socket that the
//! environment names. Nothing waits for that: a message that finds no room is given back to the caller.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::limits::WATCHDOG_MILLIS_MIN;

/// The service manager cannot be told anything. The process runs all the same.
#[derive(Debug, thiserror::Error)]
#[error("NOTIFY_SOCKET={}: {error}", .name.to_string_lossy().escape_debug())]
pub struct NotifyError {
    name: OsString,
    error: io::Error,
}

/// A service manager that wants to be told.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// The one of `NOTIFY_SOCKET`, if that is set.
    ///
    /// # Errors
    /// Nobody can be reached there.
    pub fn from_environment() -> Result<Option<Notifier>, NotifyError> {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        match Notifier::at(name.as_bytes(), watchdog()) {
            Ok(notifier) => Ok(Some(notifier)),
            Err(error) => Err(NotifyError { name, error }),
        }
    }

    fn at(name: &[u8], watchdog: Option<Duration>) -> io::Result<Notifier> {
        let address = match name {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
            _ => {
                let what = "it is neither an absolute path nor an abstract name (@...)";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        // Now, since the sandbox lets the process begin with no abstract socket of another one.
        socket.connect_addr(&address)?;
        Ok(Notifier { socket, address, watchdog })
    }

    /// How long the loop may stand still, if that is watched.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Sends one message, lines of `NAME=VALUE`. `false`: it was not taken.
    pub(crate) fn send(&self, message: &str) -> bool {
        match self.send_now(message) {
            Ok(_) => true,
            Err(Errno::AGAIN | Errno::NOBUFS) => false,
            // The manager may have been started anew, with another socket of that name.
            Err(_) => {
                self.socket.connect_addr(&self.address).is_ok() && self.send_now(message).is_ok()
            }
        }
    }

    fn send_now(&self, message: &str) -> Result<usize, Errno> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        rustix::net::send(&self.socket, message.as_bytes(), flags)
    }
}

/// `WATCHDOG_USEC`, unless `WATCHDOG_PID` says that another process is meant.
fn watchdog() -> Option<Duration> {
    let said = |name: &str| env::var(name).ok().filter(|text| !text.is_empty());
    let is_ours = said("WATCHDOG_PID").is_none_or(|pid| pid == process::id().to_string());
    let micros = said("WATCHDOG_USEC").filter(|_| is_ours)?.parse().ok()?;
    (micros > 0)
        .then(|| Duration::from_micros(micros).max(Duration::from_millis(WATCHDOG_MILLIS_MIN)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reaches_paths_and_abstract_names_and_waits_for_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("sockmux-uring-{}", process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        for (name, manager) in [
            (path.to_string_lossy().into_owned(), UnixDatagram::bind(&path).unwrap()),
            (format!("@{name}"), UnixDatagram::bind_addr(&abstract_name).unwrap()),
        ] {
            let notifier = Notifier::at(name.as_bytes(), None).unwrap();
            let sent = (0..100_000).take_while(|_| notifier.send("READY=1")).count();
            assert!((1..100_000).contains(&sent), "{sent}");
            let mut message = [0; 64];
            for _ in 0..sent {
                let bytes = manager.recv(&mut message).unwrap();
                assert_eq!(&message[..bytes], b"READY=1");
            }
            assert!(notifier.send("STATUS=1"));
        }
        for name in ["", "relative", "vsock:2:1", "/nowhere/at/all"] {
            assert!(Notifier::at(name.as_bytes(), None).is_err(), "{name}");
        }
    }

    #[test]
    fn a_manager_that_was_started_anew_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        drop(UnixDatagram::bind(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        let first = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::at(path.as_os_str().as_bytes(), None).unwrap();
        drop(first);
        assert!(!notifier.send("READY=1"));
        std::fs::remove_file(&path).unwrap();
        let second = UnixDatagram::bind(&path).unwrap();
        assert!(notifier.send("READY=1"));
        assert_eq!(second.recv(&mut [0; 64]).unwrap(), 7);
    }
}
