//! What to do about a port or a Unix socket that cannot be opened.

use std::io;

/// For a Unix socket.
pub(super) fn unix_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there: stop it or take another path",
        io::ErrorKind::AlreadyExists => {
            "it is no socket: remove it yourself, if it is not needed, or take another path"
        }
        io::ErrorKind::NotFound => "make its directory first",
        io::ErrorKind::PermissionDenied => {
            "let the user of this process write to the directory, and own what is in its place"
        }
        _ => remedy(error),
    }
}

/// For a port.
pub(super) fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another program has the port: stop it or take another port",
        io::ErrorKind::AddrNotAvailable => "give an address of this machine",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need the capability CAP_NET_BIND_SERVICE"
        }
        _ if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
            "raise the limit of open files (ulimit -n)"
        }
        _ => "see the message of the system",
    }
}
