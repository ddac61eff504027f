//! Words of the original that mean nothing here, or not yet: each is refused with the nearest
//! thing that works.

use super::error::Problem;

/// An option of the original, by its letter with the dash (`-f`).
pub(crate) fn option(option: &str) -> Option<Problem> {
    let (what, nearest) = match option {
        "-f" => ("-f", "leave it out: the program always stays in the foreground"),
        "-r" => ("-r", "leave it out and let the service manager restart the program"),
        _ => return None,
    };
    Some(Problem::unsupported(what, nearest))
}

/// An option that means something with `-Fsockmux` only, given without.
pub(crate) fn without_foreground(option: &str) -> Problem {
    let instead = match option {
        "-A" => "-P[host]:port to accept the persistent connection",
        "-C" => "SERVER=sockmux://host:port to make the persistent connection",
        "-I" => "SERVER=sockmux:commin@PATH",
        "-O" => "SERVER=sockmux:commout@PATH",
        "-X" => "SERVER=sockmux:comm@PATH",
        _ => "DEST=host:port for an exit",
    };
    Problem::new(
        format!("{option} has a meaning with -Fsockmux only"),
        format!("add -Fsockmux, or write {instead}"),
    )
}

/// A parameter of the original, by its name.
pub(crate) fn parameter(name: &str) -> Option<Problem> {
    let nearest = match name {
        "REJECT" => {
            "say who may connect, as in RELIABLE=192.168.0.0/16, for each exit who may use it, as \
             in DEST=host:port:192.168.0.0/16, and what proxies may reach, as in PERMIT=*:*:*"
        }
        "STLS" | "TLSCONF" | "FCL" | "FSV" => {
            "run the persistent connection through an SSH tunnel or a VPN"
        }
        "CONNECT" | "MASTER" | "PROXY" | "SOCKS" | "SSLTUNNEL" | "SRCIF" | "ROUTE" | "FORWARD"
        | "SOCKMUX" | "MOUNT" | "CMAP" | "RESOLV" | "HOSTS" => {
            "leave it out: SERVER=, PORT=, DEST=, TIMEOUT= and SOXCONF= are what there is"
        }
        "ADMIN" | "OWNER" | "DGROOT" | "VARDIR" | "LOGDIR" | "LOGFILE" | "PROTOLOG"
        | "ERRORLOG" | "PIDFILE" | "DGOPTS" | "CRON" => {
            "leave it out: the log goes to stderr, and the service manager does the rest"
        }
        _ => return None,
    };
    Some(Problem::unsupported(format!("{name}="), nearest))
}
