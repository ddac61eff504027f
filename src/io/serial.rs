//! A serial device: opened for us alone, set as the line is spoken, and left as it was found.
//!
//! Terminals of any kind will do: UARTs, USB adapters, pseudo terminals.

use std::fs::{self, FileType};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, major, open};
use rustix::io::Errno;
use rustix::termios::{
    ControlModes, InputModes, OptionalActions, QueueSelector, SpecialCodeIndex, Termios,
    ioctl_tiocexcl, ioctl_tiocnxcl, isatty, tcflush, tcgetattr, tcsetattr,
};

use super::driver::Fd;
use super::net;
use crate::cli::plan::{FlowControl, LineOptions, Parity};
use crate::limits::{SERIAL_DRAIN_GLANCE_MILLIS, SERIAL_DRAIN_MILLIS, SERIAL_RATE_PERCENT};

/// Majors of pseudo terminals: Linux, `Documentation/admin-guide/devices.txt`.
const PTY_MAJORS: std::ops::RangeInclusive<u32> = 136..=143;

/// An open serial device.
///
/// At drop it waits a moment ([`SERIAL_DRAIN_MILLIS`]) until what was written is on the line,
/// throws away the rest, and gives the device back with the settings that it had.
#[derive(Debug)]
pub struct SerialPort {
    fd: Fd,
    before: Termios,
    pty: bool,
    bytes_per_second: u32,
}

/// Why a serial device could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing of this name.
    #[error(
        "comm@{}: there is no such device; plug it in or correct the name (/dev/serial/by-id has \
         names that stay when it is plugged in again)", .path.display()
    )]
    Missing {
        /// As given.
        path: PathBuf,
    },
    /// Not ours to open.
    #[error(
        "comm@{}: no permission; run as a user in the device's group, which `ls -l` shows (often \
         dialout: `usermod -aG dialout USER`, then log in anew)", .path.display()
    )]
    Denied {
        /// As given.
        path: PathBuf,
    },
    /// Locked, or in exclusive mode.
    #[error(
        "comm@{}: another program has this device; end that one (`fuser -v {}` shows it)",
        .path.display(), .path.display()
    )]
    Busy {
        /// As given.
        path: PathBuf,
    },
    /// There, but no terminal.
    #[error("comm@{}: this is {kind}, no serial device; {}", .path.display(), .kind.remedy())]
    NotSerial {
        /// As given.
        path: PathBuf,
        /// What it is.
        kind: FileKind,
    },
    /// The device does not take a setting, or silently takes another.
    #[error("comm@{}: the device refuses {setting}; {remedy}", .path.display())]
    Refused {
        /// As given.
        path: PathBuf,
        /// The option as it is written behind `?`.
        setting: String,
        /// What to write instead.
        remedy: String,
    },
    /// The device is there by name only, or something else went wrong.
    #[error(
        "comm@{}: {error}; see what the kernel says of the device (`dmesg`), plug it in again",
        .path.display()
    )]
    Failed {
        /// As given.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

/// What a file is that is no serial device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Named pipe.
    Fifo,
    /// Socket of the local family.
    Socket,
    /// File with data.
    Regular,
    /// Directory.
    Directory,
    /// Disk or the like.
    BlockDevice,
    /// Character device that is no terminal.
    CharacterDevice,
}

impl FileKind {
    fn of(kind: FileType) -> FileKind {
        match kind {
            kind if kind.is_fifo() => FileKind::Fifo,
            kind if kind.is_socket() => FileKind::Socket,
            kind if kind.is_dir() => FileKind::Directory,
            kind if kind.is_block_device() => FileKind::BlockDevice,
            kind if kind.is_char_device() => FileKind::CharacterDevice,
            _ => FileKind::Regular,
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            FileKind::Fifo => "give two of them, one for each way: commin@PATH and commout@PATH",
            FileKind::Socket => "use proc@ with a command that connects to it",
            _ => "name a device like /dev/ttyUSB0 or /dev/ttyS0",
        }
    }
}

impl std::fmt::Display for FileKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            FileKind::Fifo => "a FIFO",
            FileKind::Socket => "a socket",
            FileKind::Regular => "a regular file",
            FileKind::Directory => "a directory",
            FileKind::BlockDevice => "a block device",
            FileKind::CharacterDevice => "a device that is no terminal",
        })
    }
}

impl SerialPort {
    /// Opens a device and sets it as `options` say, raw and without waiting for a carrier. What it
    /// had received before is thrown away: nobody knows at which rate that came.
    ///
    /// # Errors
    /// See [`OpenError`]. A device that was unplugged fails in this way until it is back.
    pub fn open(path: &Path, options: &LineOptions) -> Result<SerialPort, OpenError> {
        let failed = |error| OpenError::of(path, error);
        // Asked before it is opened: no other kind of file shall feel anything.
        let file = fs::metadata(path).map_err(failed)?;
        let kind = FileKind::of(file.file_type());
        let not_serial = || OpenError::NotSerial { path: path.to_owned(), kind };
        if kind != FileKind::CharacterDevice {
            return Err(not_serial());
        }
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = open(path, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        if !isatty(&fd) {
            return Err(not_serial());
        }
        // Two of ours, and all others that ask.
        flock(&fd, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| failed(error.into()))?;
        let before = tcgetattr(&fd).map_err(|error| failed(error.into()))?;
        // From here on, drop undoes what was done.
        let port = SerialPort {
            fd: Rc::new(fd),
            before,
            pty: PTY_MAJORS.contains(&major(file.rdev())),
            bytes_per_second: bytes_per_second(options),
        };
        port.set(path, options)?;
        Ok(port)
    }

    /// The descriptor: non-blocking, read and written.
    pub fn fd(&self) -> &Fd {
        &self.fd
    }

    /// What the line carries each way, in characters a second.
    pub fn bytes_per_second(&self) -> u32 {
        self.bytes_per_second
    }

    /// Bytes written that the device has not sent yet. A pseudo terminal says 0 always.
    ///
    /// # Errors
    /// The device is gone.
    pub fn unsent_bytes(&self) -> io::Result<usize> {
        net::unsent_bytes(&self.fd)
    }

    fn set(&self, path: &Path, options: &LineOptions) -> Result<(), OpenError> {
        let failed = |error: Errno| OpenError::of(path, error.into());
        // Keeps out those who do not ask for the lock. The kernel forgets this when the last one
        // closes the device, but a pseudo terminal lives on with it: after a kill, it could not be
        // opened again as long as its other side is open.
        if !self.pty {
            ioctl_tiocexcl(&self.fd).map_err(failed)?;
        }
        let asked = settings(&self.before, options).map_err(failed)?;
        match tcsetattr(&self.fd, OptionalActions::Now, &asked) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::RANGE) => return Err(refused_rate(path, options.baud, None)),
            Err(error) => return Err(failed(error)),
        }
        // The call succeeds when the device took any of it.
        let taken = tcgetattr(&self.fd).map_err(failed)?;
        compare(path, options, &asked, &taken)?;
        tcflush(&self.fd, QueueSelector::IFlush).map_err(failed)
    }

    /// Whether everything written is with the device, after a short wait.
    fn is_sent(&self) -> io::Result<bool> {
        let end = Instant::now() + Duration::from_millis(SERIAL_DRAIN_MILLIS);
        while self.unsent_bytes()? > 0 {
            if Instant::now() >= end {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(SERIAL_DRAIN_GLANCE_MILLIS));
        }
        Ok(true)
    }

    /// Gives the device back as it was found.
    fn restore(&self) -> io::Result<()> {
        let how = if self.is_sent()? {
            // Waits for what the device holds in its hardware: some characters.
            OptionalActions::Drain
        } else {
            tcflush(&self.fd, QueueSelector::OFlush)?;
            OptionalActions::Now
        };
        tcsetattr(&self.fd, how, &self.before)?;
        if !self.pty {
            ioctl_tiocnxcl(&self.fd)?;
        }
        Ok(())
    }
}

impl Drop for SerialPort {
    fn drop(&mut self) {
        // It fails when the device is gone, and then there is nothing to restore.
        let _ = self.restore();
        // Not left to the close: an operation in flight may hold the descriptor for longer.
        let _ = flock(&self.fd, FlockOperation::NonBlockingUnlock);
    }
}

impl OpenError {
    fn of(path: &Path, error: io::Error) -> OpenError {
        let path = path.to_owned();
        match Errno::from_io_error(&error) {
            // A name whose device is unplugged: the driver is there, the device is not.
            Some(Errno::NOENT | Errno::NOTDIR | Errno::NXIO | Errno::NODEV) => {
                OpenError::Missing { path }
            }
            Some(Errno::ACCESS | Errno::PERM) => OpenError::Denied { path },
            Some(Errno::BUSY | Errno::WOULDBLOCK) => OpenError::Busy { path },
            _ => OpenError::Failed { path, error },
        }
    }
}

/// Characters a second: each has a start bit besides what the options say.
fn bytes_per_second(options: &LineOptions) -> u32 {
    let parity_bits = u32::from(options.parity != Parity::None);
    let bits = 1 + u32::from(options.data_bits) + parity_bits + u32::from(options.stop_bits);
    options.baud / bits
}

/// What is set: nothing between the program and the line, and the modem's wires not looked at.
///
/// HUPCL stays as the owner of the device has it: it says what the last close does to the wires of
/// a modem or a board, and by then these settings are gone.
///
/// # Errors
/// The system has no way to ask for the rate.
fn settings(before: &Termios, options: &LineOptions) -> Result<Termios, Errno> {
    let mut asked = before.clone();
    asked.make_raw();
    // A break is a pulled cable or somebody's reset, no data; else it reads as NUL.
    asked.input_modes |= InputModes::IGNBRK;
    asked.input_modes -=
        InputModes::IXON | InputModes::IXOFF | InputModes::IXANY | InputModes::INPCK;
    asked.control_modes -= ControlModes::CSIZE
        | ControlModes::PARENB
        | ControlModes::PARODD
        | ControlModes::CMSPAR
        | ControlModes::CSTOPB
        | ControlModes::CRTSCTS;
    asked.control_modes |= ControlModes::CLOCAL | ControlModes::CREAD;
    asked.control_modes |= match options.data_bits {
        5 => ControlModes::CS5,
        6 => ControlModes::CS6,
        7 => ControlModes::CS7,
        _ => ControlModes::CS8,
    };
    if options.stop_bits == 2 {
        asked.control_modes |= ControlModes::CSTOPB;
    }
    if options.parity != Parity::None {
        asked.control_modes |= ControlModes::PARENB;
        asked.input_modes |= InputModes::INPCK;
    }
    if options.parity == Parity::Odd {
        asked.control_modes |= ControlModes::PARODD;
    }
    match options.flow {
        FlowControl::None => {}
        FlowControl::RtsCts => asked.control_modes |= ControlModes::CRTSCTS,
        FlowControl::XonXoff => asked.input_modes |= InputModes::IXON | InputModes::IXOFF,
    }
    // Else a read with nothing there ends with 0, which is the end of data.
    asked.special_codes[SpecialCodeIndex::VMIN] = 1;
    asked.special_codes[SpecialCodeIndex::VTIME] = 0;
    asked.set_speed(options.baud)?;
    Ok(asked)
}

/// Compares what was asked for with what the device made of it.
fn compare(
    path: &Path,
    options: &LineOptions,
    asked: &Termios,
    taken: &Termios,
) -> Result<(), OpenError> {
    let rate = taken.output_speed();
    let off = u64::from(rate.abs_diff(options.baud)) * 100;
    if off > u64::from(options.baud) * u64::from(SERIAL_RATE_PERCENT) {
        return Err(refused_rate(path, options.baud, Some(rate)));
    }
    let differs =
        |modes: ControlModes| !((asked.control_modes ^ taken.control_modes) & modes).is_empty();
    let setting = if differs(ControlModes::PARENB | ControlModes::PARODD) {
        match options.parity {
            Parity::None => "parity=none",
            Parity::Even => "parity=even",
            Parity::Odd => "parity=odd",
        }
    } else if differs(ControlModes::CSIZE) {
        "this number of data bits"
    } else if differs(ControlModes::CSTOPB) {
        "this number of stop bits"
    } else if differs(ControlModes::CRTSCTS) {
        "flow=rtscts"
    } else {
        return Ok(());
    };
    let remedy = "leave it out at both ends, or use another device".to_owned();
    Err(OpenError::Refused { path: path.to_owned(), setting: setting.to_owned(), remedy })
}

fn refused_rate(path: &Path, baud: u32, instead: Option<u32>) -> OpenError {
    let remedy = match instead {
        Some(rate) => format!("it would run at {rate}: choose another rate for both ends"),
        None => "choose another rate for both ends".to_owned(),
    };
    OpenError::Refused { path: path.to_owned(), setting: format!("baud={baud}"), remedy }
}

#[cfg(test)]
mod tests;
