//! `-Fsockmux {-A[host:]port | -C[host:]port | -Ififo -Ofifo | -Xfifo} [-Q[host:]port]
//! [-P[host:]port]`: the original's foreground form, whose options have values of their own form.

use super::error::{Problem, quoted};
use super::exit::{self, ExitWords};
use super::plan::{Entrance, Target, Transport};
use super::portlist::PortList;
use super::server;
use super::suggest;

/// The value of `-F`, which names a function of the original.
pub(crate) fn function(name: &str) -> Result<(), Problem> {
    if name == "sockmux" {
        return Ok(());
    }
    let what = format!("{} is not a function of this program", quoted(name));
    Err(Problem::new(
        what,
        match suggest::nearest(name, ["sockmux"]) {
            Some(_) => "did you mean `-Fsockmux`?",
            None => "write -Fsockmux, or leave -F out",
        },
    ))
}

/// `-A`: where the persistent connection is accepted.
pub(crate) fn accept(value: &str) -> Result<Vec<Entrance>, Problem> {
    let list = PortList::parse(value)?.entrances();
    match list.iter().any(|entrance| entrance.transport == Transport::Udp) {
        true => Err(Problem::new(
            "the persistent connection is never UDP",
            "leave /udp out, or write -P for an entrance",
        )),
        false => Ok(list),
    }
}

/// `-C`: where to connect to the persistent connection.
pub(crate) fn connect(value: &str) -> Result<Target, Problem> {
    server::connector(&with_host(value))
}

/// `-Q`: the exit, which may have a host list behind it as that of `DEST=`.
pub(crate) fn exit(value: &str) -> Result<ExitWords, Problem> {
    exit::of_dest(&with_host(value))
}

/// `port` and `:port` are ports of this machine.
fn with_host(value: &str) -> String {
    match value.strip_prefix(':') {
        Some(port) if !port.starts_with(':') => format!("localhost:{port}"),
        None if !value.contains(':') => format!("localhost:{value}"),
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::plan::ExitKind;

    fn server(target: Target, transport: Transport) -> ExitKind {
        ExitKind::Server { target, transport }
    }

    #[test]
    fn a_port_alone_is_one_of_this_machine() {
        for (value, host, port) in [
            ("9000", "localhost", 9000),
            (":9000", "localhost", 9000),
            ("hostX:9000", "hostX", 9000),
            ("[::1]:9000", "::1", 9000),
            ("__1:9000", "::1", 9000),
        ] {
            let wanted = Target { host: host.into(), port };
            assert_eq!(connect(value).as_ref(), Ok(&wanted), "{value}");
            assert_eq!(exit(value).unwrap().way, server(wanted, Transport::Tcp), "{value}");
        }
        let here = |port| Target { host: "localhost".into(), port };
        assert_eq!(exit("53/udp").unwrap().way, server(here(53), Transport::Udp));
        let some = exit(":80:10.0.0.0/8").unwrap();
        assert_eq!(some.way, server(here(80), Transport::Tcp));
        assert_eq!(some.clients.as_deref(), Some("10.0.0.0/8"));
        for value in ["", ":", "::9000", "hostX", "0", "9000,9001"] {
            assert!(connect(value).is_err() && exit(value).is_err(), "{value}");
        }
    }
}
