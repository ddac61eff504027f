//! The two ends of a tunnel, each an engine on a thread of its own, over loopback.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::DemoError;
use super::cpu::Thread;
use crate::cli::invocation::Engine;
use crate::cli::plan::{
    Bind, Control, Entrance, Exit, ExitKind, ExitOptions, LinkPlan, Maxima, Plan, Privileges,
    SoxConf, Target, Timeouts, Transport,
};
use crate::process::{Relay, StopHandle};

const LOOPBACK: &str = "127.0.0.1";

/// A tunnel from an entrance to one server, as of two processes
/// `sockmux-uring -P127.0.0.1:0 DEST=server` and
/// `sockmux-uring SERVER=sockmux://127.0.0.1:receptor PORT=127.0.0.1:0`.
#[derive(Debug)]
pub struct Tunnel {
    connector: End,
    receptor: End,
}

/// One relay and the thread that it runs on.
#[derive(Debug)]
struct End {
    /// Where it listens: the receptor for the connector, the connector for clients.
    address: SocketAddr,
    thread: Thread,
    stop: StopHandle,
    running: JoinHandle<Result<(), String>>,
}

impl Tunnel {
    /// Starts the receptor (exit side), then the connector (entrance side) towards it.
    ///
    /// # Errors
    /// A relay could not be set up; the message is its own.
    pub fn start(server: SocketAddr, engine: Engine) -> Result<Self, DemoError> {
        let receptor = End::start(
            "exit relay",
            engine,
            Plan {
                link: LinkPlan::Listen(vec![loopback()]),
                entrances: Vec::new(),
                exits: vec![Exit {
                    protocol: "tcprelay".into(),
                    way: ExitKind::Server { target: target(server), transport: Transport::Tcp },
                    name: server.to_string(),
                    proxy_header: None,
                    clients: None,
                    options: ExitOptions::default(),
                    source: format!("DEST={server}"),
                }],
                ..idle_plan()
            },
        )?;
        let connector = End::start(
            "entrance relay",
            engine,
            Plan {
                link: LinkPlan::Connect(target(receptor.address)),
                entrances: vec![Entrance {
                    bind: loopback(),
                    transport: Transport::Tcp,
                    proxy_header: false,
                    peers: Vec::new(),
                }],
                ..idle_plan()
            },
        );
        match connector {
            Ok(connector) => Ok(Tunnel { connector, receptor }),
            Err(error) => receptor.stop().and(Err(error)),
        }
    }

    /// Where clients connect.
    #[must_use]
    pub fn entrance(&self) -> SocketAddr {
        self.connector.address
    }

    /// Processor time of both relays' threads so far.
    ///
    /// # Errors
    /// A relay has ended by itself.
    pub fn cpu_time(&self) -> Result<Duration, DemoError> {
        [&self.connector, &self.receptor].into_iter().try_fold(Duration::ZERO, |sum, end| {
            let time = end.thread.cpu_time();
            time.map(|time| sum + time)
                .map_err(|source| DemoError::io("read a relay's processor time", source))
        })
    }

    /// Drains both relays, the entrance first, and waits until they have ended.
    ///
    /// # Errors
    /// The error of a relay, now or before.
    pub fn stop(self) -> Result<(), DemoError> {
        let connector = self.connector.stop();
        let receptor = self.receptor.stop();
        connector.and(receptor)
    }
}

impl End {
    fn start(name: &'static str, engine: Engine, plan: Plan) -> Result<Self, DemoError> {
        let (tell, told) = mpsc::channel();
        let running = thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                // A relay belongs to the thread that sets it up.
                let relay = Relay::bind(plan).map_err(|error| error.to_string())?;
                let thread = Thread::current().map_err(|error| error.to_string())?;
                let mut addresses = relay.entrance_addrs();
                addresses.extend(relay.receptor_addrs());
                let address = addresses.first().ok_or("it listens nowhere")?;
                let stop = relay.stop_handle().map_err(|error| error.to_string())?;
                let _ = tell.send((*address, thread, stop));
                drop(tell);
                relay.run(engine).map(drop).map_err(|error| error.to_string())
            })
            .map_err(|source| DemoError::io(format!("start the thread of the {name}"), source))?;
        match told.recv() {
            Ok((address, thread, stop)) => Ok(End { address, thread, stop, running }),
            Err(_) => Err(ended(name, running)),
        }
    }

    fn stop(self) -> Result<(), DemoError> {
        self.stop.stop();
        match self.running.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(message)) => Err(DemoError::Relay(message)),
            Err(_) => Err(DemoError::Relay("a relay's thread panicked".into())),
        }
    }
}

/// Why a relay's thread ended before it was ready.
fn ended(name: &str, running: JoinHandle<Result<(), String>>) -> DemoError {
    DemoError::Relay(match running.join() {
        Ok(Err(message)) => format!("{name}: {message}"),
        Ok(Ok(())) => format!("{name} ended at once"),
        Err(_) => format!("{name} panicked"),
    })
}

fn loopback() -> Bind {
    Bind { host: Some(LOOPBACK.into()), port: 0 }
}

fn target(address: SocketAddr) -> Target {
    Target { host: address.ip().to_string(), port: address.port() }
}

/// A plan with neither entrances nor exits, and times that suit a run of seconds.
fn idle_plan() -> Plan {
    Plan {
        link: LinkPlan::Listen(Vec::new()),
        encryption: None,
        entrances: Vec::new(),
        unix_entrances: Vec::new(),
        entrances_at_peer: Vec::new(),
        exits: Vec::new(),
        reliable: None,
        maxima: Maxima::default(),
        permits: Vec::new(),
        authorizers: Vec::new(),
        timeouts: Timeouts { drain: Some(Duration::from_secs(2)), ..Timeouts::default() },
        soxconf: SoxConf::default(),
        privileges: Privileges::default(),
        takeover: None,
        access_log: None,
        control: Control::default(),
        notices: Vec::new(),
    }
}
