//! Unix sockets of the file system: made for entrances, and connected to for exits.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FlockOperation, flock};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::limits::LISTEN_BACKLOG;

/// The file of a socket that this process listens on: removed when dropped, unless another stands
/// there by then.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// `None`: it is not known any more, or never was.
    identity: Option<Identity>,
    is_ours: Arc<AtomicBool>,
}

/// Device, number, and when it was made (seconds, nanoseconds): numbers are used again at once.
type Identity = (u64, u64, i64, i64);

impl SocketFile {
    /// Of a socket that another process made, and hands over. The file is `is_ours` then.
    pub(crate) fn handed_over(path: &Path, is_ours: &Arc<AtomicBool>) -> SocketFile {
        let identity = fs::symlink_metadata(path).ok().map(|file| identity(&file));
        SocketFile { path: path.to_owned(), identity, is_ours: Arc::clone(is_ours) }
    }

    /// It stays where it is: another process has the socket.
    pub(crate) fn leave(&self) {
        self.is_ours.store(false, Ordering::Relaxed);
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.is_ours.load(Ordering::Relaxed) {
            return;
        }
        let _lock = lock_directory(&self.path);
        let now = fs::symlink_metadata(&self.path).ok().map(|file| identity(&file));
        if now.is_some() && now == self.identity {
            // It may have been removed in this moment.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens on a socket that is made at `path`; whoever `mode` lets write to it may connect. A socket
/// that nobody listens on any more, left behind by a process that was killed, makes room.
///
/// # Errors
/// `AddrInUse`: somebody listens there. `AlreadyExists`: something else than a socket stands there.
/// Else what the system says.
pub(crate) fn listen(path: &Path, mode: u32) -> io::Result<(OwnedFd, SocketFile)> {
    listen_as(Type::STREAM, path, mode)
}

/// As [`listen`], for connections of records.
pub(crate) fn listen_for_records(path: &Path, mode: u32) -> io::Result<(OwnedFd, SocketFile)> {
    listen_as(Type::SEQPACKET, path, mode)
}

fn listen_as(kind: Type, path: &Path, mode: u32) -> io::Result<(OwnedFd, SocketFile)> {
    // So that of two processes that find a dead socket none removes what the other has just made.
    let _lock = lock_directory(path);
    let socket = new(kind)?;
    let address = SockAddr::unix(path)?;
    if let Err(error) = socket.bind(&address) {
        if error.kind() != io::ErrorKind::AddrInUse {
            return Err(error);
        }
        remove_dead(path)?;
        socket.bind(&address)?;
    }
    // Until it listens nobody can connect, whatever the mode is meanwhile.
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    let identity = Some(identity(&fs::symlink_metadata(path)?));
    let is_ours = Arc::new(AtomicBool::new(true));
    let file = SocketFile { path: path.to_owned(), identity, is_ours };
    socket.listen(LISTEN_BACKLOG)?;
    Ok((socket.into(), file))
}

/// Connects to the socket at `path`, at once.
///
/// # Errors
/// `WouldBlock`: whoever listens there takes no more for now. Else what the system says.
pub(crate) fn connect(path: &Path) -> io::Result<OwnedFd> {
    connect_as(Type::STREAM, path)
}

/// As [`connect`], for a connection of records.
pub(crate) fn connect_for_records(path: &Path) -> io::Result<OwnedFd> {
    connect_as(Type::SEQPACKET, path)
}

fn connect_as(kind: Type, path: &Path) -> io::Result<OwnedFd> {
    let socket = new(kind)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}

fn new(kind: Type) -> io::Result<Socket> {
    Socket::new(Domain::UNIX, kind.nonblocking().cloexec(), None)
}

/// As [`listen`], in place of a process that listens there and is being taken over from. That one goes on
/// with those that have connected, and does not remove what is made here.
pub(crate) fn listen_instead(path: &Path, mode: u32) -> io::Result<(OwnedFd, SocketFile)> {
    fs::remove_file(path)?;
    listen(path, mode)
}

/// Whether a process of this user is trusted with what is ours: our own user's and root's alone.
pub(crate) fn is_trusted(user: Option<u32>) -> bool {
    let own = rustix::process::geteuid().as_raw();
    user.is_some_and(|user| user == own || user == 0)
}

/// A user, for messages.
pub(crate) fn shown_user(user: Option<u32>) -> String {
    user.map_or_else(|| "an unknown user".to_owned(), |user| format!("user {user}"))
}

/// Removes a socket that nobody listens on.
fn remove_dead(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    match connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        // Of another user, who alone can say whether it is dead.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// Held as long as what is returned. One that cannot be had is done without: the directory then
/// belongs to somebody else, who does not start this program at the same moment.
fn lock_directory(path: &Path) -> Option<File> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = File::open(directory.unwrap_or(Path::new("."))).ok()?;
    flock(&directory, FlockOperation::LockExclusive).ok()?;
    Some(directory)
}

fn identity(file: &fs::Metadata) -> Identity {
    (file.dev(), file.ino(), file.mtime(), file.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_made_found_in_use_and_gone_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let (fd, file) = listen(&path, 0o620).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o7777, 0o620);
        connect(&path).unwrap();
        assert_eq!(listen(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop((fd, file));
        assert!(!path.exists());
    }

    #[test]
    fn what_was_left_behind_makes_room_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let (fd, file) = listen(&path, 0o600).unwrap();
        // As if the process had been killed.
        drop(fd);
        let (second, second_file) = listen(&path, 0o600).unwrap();
        // The first one's file is not there any more; the second one's stays.
        drop(file);
        assert!(path.exists());
        drop((second, second_file));

        fs::write(&path, "precious").unwrap();
        assert_eq!(listen(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        let nowhere = dir.path().join("missing/socket");
        assert_eq!(listen(&nowhere, 0o600).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
