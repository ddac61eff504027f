//! Words of the original that have no meaning here, or not yet: each is refused with the nearest
//! equivalent. Those about the original as a daemon are reported together.

use super::error::Problem;

/// Parameters of the original about its own administration.
const ADMINISTRATIVE: [&str; 20] = [
    "ADMIN",
    "OWNER",
    "DGROOT",
    "VARDIR",
    "LOGDIR",
    "LOGFILE",
    "PROTOLOG",
    "ERRORLOG",
    "PIDFILE",
    "DGOPTS",
    "CRON",
    "ACTDIR",
    "TMPDIR",
    "WORKDIR",
    "SYSLOG",
    "UMASK",
    "SHARE",
    "CHROOT",
    "COUNTER",
    "COUNTERDIR",
];

/// The name of an administrative option or parameter.
pub(crate) fn administrative(word: &str) -> Option<String> {
    if let Some((name, _)) = word.split_once('=') {
        return ADMINISTRATIVE.contains(&name).then(|| format!("{name}="));
    }
    // -f (-fv) stays in the foreground, -r restarts, -vd, -vt, -vs, -va and -vu are kinds of logs.
    let is_option = match word.strip_prefix("-v") {
        Some(kinds) => {
            kinds.chars().any(|kind| kind != 'v')
                && kinds.chars().all(|kind| "vdtsau".contains(kind))
        }
        None => matches!(word, "-f" | "-fv" | "-r"),
    };
    is_option.then(|| word.to_owned())
}

/// Those of them that there are.
pub(crate) fn administration(words: &[String]) -> Problem {
    let (is, it) = if words.len() == 1 { ("is", "it") } else { ("are", "them") };
    Problem::new(
        format!("{} {is} not supported in this version", words.join(", ")),
        format!(
            "leave {it} out: the program stays in the foreground and logs to standard error (-v \
             says more), and the service manager starts it, under which user (as --user does) \
             and where, restarts it and keeps its log"
        ),
    )
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
            "limit clients, as in RELIABLE=192.168.0.0/16, those of an exit, as \
             in DEST=host:port:192.168.0.0/16, and destinations of proxies, as in PERMIT=*:*:*"
        }
        "FCL" | "FSV" => {
            "encrypt the persistent connection by STLS=fcl at the end that accepts it and STLS=fsv \
             at the end that makes it"
        }
        "CONNECT" | "MASTER" | "PROXY" | "SOCKS" | "SSLTUNNEL" | "SRCIF" | "ROUTE" | "FORWARD"
        | "SOCKMUX" | "MOUNT" | "CMAP" | "RESOLV" | "HOSTS" => {
            "leave it out: SERVER=, PORT=, DEST=, TIMEOUT= and SOXCONF= are supported"
        }
        name if ADMINISTRATIVE.contains(&name) => {
            return Some(administration(&[format!("{name}=")]));
        }
        _ => return None,
    };
    Some(Problem::unsupported(format!("{name}="), nearest))
}
