//! Our own standard input and output as the link.
//!
//! They are taken over: the descriptors 0 and 1 lead nowhere afterwards, so that closing the link
//! closes it, and nothing else that is printed gets into it. What they lead to may be shared with
//! others, a shell for one, so that it is set not to block only as long as we use it.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::rc::Rc;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::stdio::{dup2_stdin, dup2_stdout, stdin, stdout};

use super::driver::Fd;
use super::link::{Link, LinkError};

/// The link's name for the log.
const NAME: &str = "standard input and output";

/// What a user may want who comes to this by mistake.
const REMEDY: &str = "-Fsockmux alone is run by what carries the tunnel (ssh, SERVER=sockmux:proc@, \
                      socat); to open it by itself give -A, -C, -I and -O, or -X";

/// A descriptor that was set not to block, until this is dropped.
#[derive(Debug)]
pub(crate) struct Unblocked {
    fd: Fd,
    /// As it was before.
    flags: OFlags,
}

impl Drop for Unblocked {
    fn drop(&mut self) {
        set_flags(&self.fd, self.flags);
    }
}

/// Takes the descriptors 0 and 1 over.
///
/// # Errors
/// They are nothing that a tunnel can go through.
pub(crate) fn take() -> Result<Link, LinkError> {
    let input = duplicate(stdin()).and_then(File::of).map_err(|why| refused("input", &why))?;
    let output = duplicate(stdout()).and_then(File::of).map_err(|why| refused("output", &why))?;
    lead_nowhere().map_err(|error| refused("input and output", &error.to_string()))?;
    if input.is_socket && input.number == output.number {
        let guard = input.unblock();
        return Ok(Link::socket(input.fd, NAME.to_owned()).with_guards(Some(guard), None));
    }
    let guards = (input.unblock(), output.unblock());
    let link = Link::pipes(input.fd, output.fd, NAME.to_owned());
    Ok(link.with_guards(Some(guards.0), Some(guards.1)))
}

/// What a descriptor leads to.
struct File {
    fd: Fd,
    flags: OFlags,
    is_socket: bool,
    /// Device and inode, which name it.
    number: (u64, u64),
}

impl File {
    fn of(fd: OwnedFd) -> Result<File, String> {
        let flags = fcntl_getfl(&fd).map_err(|error| io::Error::from(error).to_string())?;
        let file = std::fs::File::from(fd);
        let metadata = file.metadata().map_err(|error| error.to_string())?;
        let kind = metadata.file_type();
        let why = if kind.is_socket() || kind.is_fifo() {
            return Ok(File {
                fd: Rc::new(OwnedFd::from(file)),
                flags,
                is_socket: kind.is_socket(),
                number: (metadata.dev(), metadata.ino()),
            });
        } else if file.is_terminal() {
            "is a terminal"
        } else if kind.is_char_device() {
            "is a device (/dev/null?)"
        } else {
            "is an ordinary file"
        };
        Err(why.to_owned())
    }

    fn unblock(&self) -> Unblocked {
        set_flags(&self.fd, self.flags | OFlags::NONBLOCK);
        Unblocked { fd: Rc::clone(&self.fd), flags: self.flags }
    }
}

fn refused(which: &str, why: &str) -> LinkError {
    LinkError::of(&format!("standard {which} as the tunnel"), why, REMEDY)
}

/// Cannot fail on a descriptor that is open.
fn set_flags(fd: &OwnedFd, flags: OFlags) {
    let _ = fcntl_setfl(fd, flags);
}

fn duplicate(fd: impl AsFd) -> Result<OwnedFd, String> {
    fcntl_dupfd_cloexec(fd, 3).map_err(|error| io::Error::from(error).to_string())
}

/// Lets the descriptors 0 and 1 lead to `/dev/null`.
fn lead_nowhere() -> io::Result<()> {
    let nowhere = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&nowhere)?;
    dup2_stdout(&nowhere)?;
    Ok(())
}
