//! Sends, checks and answers datagrams for `perf/udp`, and says in JSON what it saw. Every datagram
//! carries a number and a pattern that follows from it, so that the far end can tell what was lost,
//! repeated, put out of order, changed, merged or split.

mod content;
mod ping;
mod sink;
mod sockets;
mod source;
mod tally;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use content::Sizes;

/// Sends, checks and answers datagrams.
#[derive(Parser)]
struct Words {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Takes datagrams and checks each; ends when told (SIGTERM), or when no more come.
    Sink(sink::Options),
    /// Sends datagrams.
    Source(source::Options),
    /// Answers each datagram with itself, until it is ended.
    Echo {
        /// UDP port of 127.0.0.1 to take datagrams at.
        #[arg(long)]
        port: u16,
    },
    /// Sends a datagram, waits for it to come back, sends the next.
    Ping(ping::Options),
}

/// How large datagrams are: both ends have to be told the same.
#[derive(Args, Clone, Copy)]
#[group(required = true, multiple = false)]
struct SizeWords {
    /// Bytes of every datagram.
    #[arg(long)]
    size: Option<usize>,
    /// Sizes from 0 to 65,507 that follow from the datagram's number.
    #[arg(long)]
    mixed: bool,
}

impl SizeWords {
    fn sizes(self) -> Result<Sizes, String> {
        match self.size {
            Some(size) if size > content::SIZE_MAX => {
                Err(format!("--size {size}: a datagram has at most {} bytes", content::SIZE_MAX))
            }
            Some(size) => Ok(Sizes::Fixed(size)),
            None => Ok(Sizes::Mixed),
        }
    }
}

/// Where datagrams go to, and where they come from.
#[derive(Args, Clone, Copy)]
struct Ends {
    /// Where to send to, HOST:PORT in numbers.
    #[arg(long)]
    to: SocketAddr,
    /// Port of 127.0.0.1 to send from, in place of any that is free.
    #[arg(long, conflicts_with = "sources")]
    from: Option<u16>,
    /// Addresses to send from, in turn.
    #[arg(long, default_value_t = 1)]
    sources: usize,
}

fn main() -> ExitCode {
    let done = match Words::parse().mode {
        Mode::Sink(options) => sink::run(&options),
        Mode::Source(options) => source::run(&options),
        Mode::Echo { port } => echo(port),
        Mode::Ping(options) => ping::run(&options),
    };
    match done {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("udp-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn echo(port: u16) -> Result<serde_json::Value, String> {
    let socket = sockets::listen(port)?;
    let mut datagram = vec![0; content::SIZE_MAX];
    loop {
        let sent = socket
            .recv_from(&mut datagram)
            .and_then(|(size, from)| socket.send_to(&datagram[..size], from));
        match sent {
            Ok(_) => {}
            // A client that has gone, or a moment without memory.
            Err(error) if sockets::is_passing(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("echo at port {port}: {error}")),
        }
    }
}
