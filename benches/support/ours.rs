//! Relays of ours, each an engine on a thread of its own, started by the words of a command line, so that
//! a bench measures the program's own configuration.

use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use sockmux_uring::cli::files::Disk;
use sockmux_uring::cli::invocation::{self, Command, Engine};
use sockmux_uring::cli::plan::Plan;
use sockmux_uring::demo::cpu::Thread;
use sockmux_uring::process::Relay;

use super::way::start;

/// A listener on any port of loopback.
const LISTEN: &str = "-P127.0.0.1:0";

/// Receptor and connector, each with `words` besides its own. Returns the entrance and both threads, the
/// entrance's first.
pub(crate) fn tunnel(
    server: SocketAddr,
    words: &[&str],
) -> Result<(SocketAddr, Vec<Thread>), Box<dyn Error>> {
    let (link, receptor) = run("receptor", &[LISTEN, &format!("DEST={server}")], words)?;
    let link = format!("SERVER=sockmux://{link}");
    let (entrance, connector) = run("connector", &[&link, "PORT=127.0.0.1:0"], words)?;
    Ok((entrance, vec![connector, receptor]))
}

/// One hop without a tunnel.
pub(crate) fn plain_relay(server: SocketAddr) -> Result<(SocketAddr, Thread), Box<dyn Error>> {
    run("plain relay", &[LISTEN, &format!("SERVER=tcprelay://{server}")], &[])
}

/// Runs one relay for the rest of the process; where it listens.
fn run(
    name: &'static str,
    own: &[&str],
    words: &[&str],
) -> Result<(SocketAddr, Thread), Box<dyn Error>> {
    let (plan, engine) = plan(&[own, words].concat())?;
    start(name, move |ready| {
        // A relay belongs to the thread that sets it up.
        let relay = Relay::bind(plan).map_err(io::Error::other)?;
        let addresses = [relay.entrance_addrs(), relay.receptor_addrs()].concat();
        ready(*addresses.first().ok_or_else(|| io::Error::other("it listens nowhere"))?);
        relay.run(engine).map(drop).map_err(io::Error::other)
    })
}

/// The plan of the words. The default engine is io_uring, without a fallback.
fn plan(words: &[&str]) -> Result<(Plan, Engine), Box<dyn Error>> {
    let mut look_up = |name: &str| -> io::Result<Vec<IpAddr>> {
        Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
    };
    let words = ["sockmux-uring"].iter().chain(words).map(OsString::from);
    let invocation = invocation::parse(words, &Disk, &mut look_up)?;
    let engine = match invocation.engine {
        Engine::Auto => Engine::Uring,
        named => named,
    };
    match invocation.command {
        Command::Run(plan) => Ok((plan, engine)),
        other => Err(format!("these words do not relay: {other:?}").into()),
    }
}
