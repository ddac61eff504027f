//! One file both ways as a link (`comm@`, `-X`): a socket of this machine, or a device.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use socket2::{Domain, SockAddr, Socket, Type};

use super::link::{Link, LinkError, NotYet};
use super::serial::{OpenError, SerialPort};
use crate::cli::plan::{Checked, LineOptions};

/// How messages call it.
const WHAT: &str = "device (comm@, -X)";

/// A device by name.
#[derive(Debug)]
pub(crate) struct Device {
    path: PathBuf,
    line: LineOptions,
    /// Opened already, when it was looked at.
    open: Option<Link>,
}

/// What has that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Socket,
    Character,
}

impl Device {
    /// Looks at it, and opens it if it can be.
    ///
    /// # Errors
    /// It is missing, nothing that can be both ways, or another process has it.
    pub(crate) fn new(path: PathBuf, line: LineOptions) -> Result<Device, LinkError> {
        let mut device = Device { path, line, open: None };
        match NotYet::patiently(|| device.open()) {
            Ok(link) => device.open = Some(link),
            Err(NotYet::Waits(_)) => {}
            Err(NotYet::Taken(error) | NotYet::Fails(error)) => return Err(error),
        }
        Ok(device)
    }

    /// Its name for the log.
    pub(crate) fn name(&self) -> String {
        format!("comm@{}", self.path.display())
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`NotYet`]: ask again after a while.
    pub(crate) fn open(&mut self) -> Result<Link, NotYet> {
        if let Some(link) = self.open.take() {
            return Ok(link);
        }
        match look(&self.path)? {
            Found::Socket => match connect(&self.path) {
                Ok(fd) => Ok(Link::socket(Rc::new(fd), self.name())),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    Err(NotYet::Waits("nobody listens on the socket"))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    Err(NotYet::Waits("too many wait at the socket"))
                }
                Err(error) => Err(refused(&self.path, &error).into()),
            },
            Found::Character => match SerialPort::open(&self.path, &self.line) {
                Ok(port) => {
                    let checked = self.line.checked == Checked::Auto;
                    Ok(Link::serial(port, checked, self.name()))
                }
                // Whatever it is: it is said to be both ways.
                Err(OpenError::NotSerial { .. }) => {
                    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
                    let mut options = std::fs::OpenOptions::new();
                    let opened =
                        options.read(true).write(true).custom_flags(flags).open(&self.path);
                    let file = opened.map_err(|error| refused(&self.path, &error))?;
                    Ok(Link::device(Rc::new(OwnedFd::from(file)), self.name()))
                }
                Err(error @ OpenError::Busy { .. }) => Err(NotYet::Taken(error.into())),
                Err(error) => Err(NotYet::Fails(error.into())),
            },
        }
    }
}

/// Unlike the connect of the standard library, this does not wait where the queue is full.
fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}

fn look(path: &Path) -> Result<Found, LinkError> {
    let metadata = std::fs::metadata(path).map_err(|error| refused(path, &error))?;
    let kind = metadata.file_type();
    let (why, remedy) = if kind.is_socket() {
        return Ok(Found::Socket);
    } else if kind.is_char_device() {
        return Ok(Found::Character);
    } else if kind.is_fifo() {
        ("is a FIFO, which is one way", "give two of them, as commin@ and commout@ (-I and -O)")
    } else if kind.is_dir() {
        ("is a directory", "give a device, such as /dev/ttyUSB0")
    } else {
        ("is an ordinary file", "give a device, such as /dev/ttyUSB0")
    };
    Err(LinkError::new(WHAT, path, why, remedy))
}

fn refused(path: &Path, error: &io::Error) -> LinkError {
    match error.kind() {
        io::ErrorKind::NotFound => OpenError::Missing { path: path.to_owned() }.into(),
        io::ErrorKind::PermissionDenied => OpenError::Denied { path: path.to_owned() }.into(),
        _ => LinkError::new(WHAT, path, &error.to_string(), "see the message of the system"),
    }
}
