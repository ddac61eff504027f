//! The life of a relay: it opens its listeners first, so that errors of the plan show before
//! anything runs, then runs the engine on the calling thread.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;

use tracing::{info, warn};

mod confine;
mod engine;
mod memory;
mod ports;
mod remedy;
mod takeover;

use self::engine::Opened;
use self::takeover::Takeover;
use crate::cli::exposure::{self, InClear};
use crate::cli::invocation::{Engine, Ready};
use crate::cli::plan::{self, AccessLogPlan, Congestion, LinkPlan, Plan};
use crate::cli::show;
use crate::identity::{self, IdentityError};
use crate::io::congestion::CongestionPolicy;
use crate::io::control::{self, ControlError};
use crate::io::device::Device;
use crate::io::driver::Driver;
use crate::io::fifo::FifoPair;
use crate::io::inherited::{Inherited, InheritedError};
use crate::io::link::LinkError;
use crate::io::net;
use crate::io::notify::Notifier;
use crate::io::pipe::Pipes;
use crate::io::sandbox::SandboxError;
use crate::io::signals;
use crate::io::stdio;
use crate::io::takeover::TakeoverError;
use crate::io::uring;
use crate::observe::Log;
use crate::observe::access::{AccessLog, OpenedAccessLog, RunningAccessLog};
use crate::policy::ceilings::Ceilings;
use crate::tls::settings::Settings;
pub use crate::worker::Stopped;
use crate::worker::{DatagramPort, LinkSource, Listener, Purpose, Worker};

/// The relay cannot start. Layer: engine; scope: the process; caused by this machine.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A port cannot be listened on.
    #[error("cannot listen on {address} ({parameter}): {error}; {remedy}")]
    Listen {
        /// The address, as resolved.
        address: String,
        /// The parameter that requires it.
        parameter: &'static str,
        /// The kernel's error.
        error: io::Error,
        /// The remedy.
        remedy: &'static str,
    },
    /// The host of a port cannot be resolved.
    #[error("cannot listen on {host:?} ({parameter}): {error}; give an address of this machine")]
    Name {
        /// The name.
        host: String,
        /// The parameter that requires it.
        parameter: &'static str,
        /// The resolver's error.
        error: io::Error,
    },
    /// A socket that was passed to the process cannot be used.
    #[error(transparent)]
    Inherited(#[from] InheritedError),
    /// No other process can be taken over from.
    #[error(transparent)]
    Takeover(#[from] TakeoverError),
    /// Operators cannot ask it.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The process cannot give up what it was told to.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The kernel refuses a resource that the engine needs.
    #[error("{0}")]
    Engine(#[from] uring::SetupError),
    /// The device, FIFO or command of the persistent connection cannot be used.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A key, certificate or secret cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The access log cannot be opened.
    #[error(
        "--access-log {file}: {error}; give a file that this user may append to, in a directory that is \
         there"
    )]
    AccessLog {
        /// As given.
        file: String,
        /// The system's error.
        error: io::Error,
    },
    /// There is too little memory.
    #[error(transparent)]
    Memory(#[from] memory::TooLittle),
    /// The requested congestion control is not available.
    #[error(
        "SOXCONF=congestion:{name}: {error}; net.ipv4.tcp_allowed_congestion_control names those \
         that may be chosen, congestion:auto chooses"
    )]
    Congestion {
        /// Its name.
        name: String,
        /// The kernel's error.
        error: io::Error,
    },
    /// The process itself cannot be set up.
    #[error("{what}: {error}")]
    Process {
        /// The failed operation.
        what: &'static str,
        /// The reason.
        error: io::Error,
    },
}

/// A running relay failed. Layer: engine; scope: the process.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not start.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The engine cannot continue.
    #[error("the engine cannot go on: {0}")]
    Engine(#[from] io::Error),
}

/// Stops a relay from another thread. The first stop starts the drain, the second ends the relay at
/// once.
#[derive(Debug)]
pub struct StopHandle {
    wake: UnixStream,
}

impl StopHandle {
    /// Requests a stop. Without effect if the relay has ended.
    pub fn stop(&self) {
        let _ = (&self.wake).write_all(b"s");
    }

    /// Directs the signals of the process to this relay.
    ///
    /// # Errors
    /// When no handlers can be installed.
    pub fn hear_signals(&self) -> io::Result<()> {
        signals::send_to(self.wake.try_clone()?)
    }
}

/// A relay whose ports are open.
pub struct Relay {
    plan: Plan,
    ceilings: Ceilings,
    /// What TLS needs, if the persistent connection is encrypted.
    encryption: Option<Settings>,
    listeners: Vec<Listener>,
    ports: Vec<DatagramPort>,
    congestion: CongestionPolicy,
    /// Source of the persistent connection, unless it is a listener.
    source: Option<LinkSource>,
    /// Whom it takes over from, and who takes over from it.
    takeover: Option<Takeover>,
    /// The service manager, and what it takes for ready.
    supervisor: Option<(Notifier, Ready)>,
    access_log: Option<OpenedAccessLog>,
    /// Where operators ask it.
    control: Option<control::Place>,
    /// Opened now, while files may be.
    pipes: Pipes,
    /// What wakes the worker is written to the second one.
    wakes: (UnixStream, UnixStream),
}

impl Relay {
    /// Opens the ports of a plan.
    ///
    /// # Errors
    /// [`SetupError`] naming the parameter and the remedy.
    pub fn bind(plan: Plan) -> Result<Relay, SetupError> {
        Relay::bind_with(plan, Inherited::default())
    }

    /// Opens the ports of a plan, except those that were inherited.
    ///
    /// # Errors
    /// [`SetupError`] naming the parameter and the remedy; also for an inherited socket that the
    /// plan does not use.
    pub fn bind_with(mut plan: Plan, mut inherited: Inherited) -> Result<Relay, SetupError> {
        net::raise_descriptor_limit();
        let mut takeover = Takeover::begin(plan.takeover.as_deref(), &mut inherited)?;
        let ceilings = memory::ceilings()?;
        let congestion = choose_congestion(&plan.soxconf.congestion)?;
        let encryption = plan.encryption.as_ref().map(identity::load).transpose()?;
        let file = |path: &Path| takeover.as_ref()?.file(path);
        let (listeners, ports) = ports::open(&plan, &mut inherited, &congestion, file)?;
        inherited.all_taken()?;
        if let Some(takeover) = &mut takeover {
            takeover.all_opened(&plan, &mut inherited);
        }
        let source = how_to_reach(&plan.link)?;
        let access_log = plan.access_log.as_ref().map(open_access_log).transpose()?;
        let replaces = takeover.as_ref().is_some_and(Takeover::has_predecessor);
        let control = control::listen(&plan.control, replaces, &mut plan.notices)?;
        let (wait, wake) = UnixStream::pair()
            .map_err(|error| SetupError::Process { what: "cannot make a socket pair", error })?;
        let (pipes, wakes) = (Pipes::new(), (wait, wake));
        Ok(Relay {
            plan,
            ceilings,
            encryption,
            listeners,
            ports,
            congestion,
            source,
            takeover,
            supervisor: None,
            access_log,
            control,
            pipes,
            wakes,
        })
    }

    /// Has a service manager told when the relay is ready, how it does, and when it stops.
    pub fn report_to(&mut self, notifier: Notifier, ready: Ready) {
        self.supervisor = Some((notifier, ready));
    }

    /// Listening addresses of the entrances, in the plan's order; Unix sockets have none.
    pub fn entrance_addrs(&self) -> Vec<SocketAddr> {
        self.addresses(|purpose| purpose != Purpose::Receptor)
    }

    /// Addresses of the entrances for datagrams, in the plan's order.
    pub fn datagram_addrs(&self) -> Vec<SocketAddr> {
        self.ports.iter().map(DatagramPort::address).collect()
    }

    /// Listening addresses for persistent connections.
    pub fn receptor_addrs(&self) -> Vec<SocketAddr> {
        self.addresses(|purpose| purpose == Purpose::Receptor)
    }

    fn addresses(&self, wanted: impl Fn(Purpose) -> bool) -> Vec<SocketAddr> {
        let listeners = self.listeners.iter().filter(|l| wanted(l.purpose()) && !l.is_unix());
        listeners.map(Listener::address).collect()
    }

    /// A handle to stop the relay.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn stop_handle(&self) -> Result<StopHandle, SetupError> {
        let wake = self
            .wakes
            .1
            .try_clone()
            .map_err(|error| SetupError::Process { what: "cannot make a stop handle", error })?;
        Ok(StopHandle { wake })
    }

    /// Runs on this thread until stopped.
    ///
    /// # Errors
    /// [`RunError`] when the engine cannot start or continue.
    pub fn run(self, engine: Engine) -> Result<Stopped, RunError> {
        self.run_behind(engine, |_| Ok(()))
    }

    /// As [`Relay::run`], as the only relay of the process, which gives up what the plan says before
    /// anybody is accepted. `log` is that of the process.
    ///
    /// # Errors
    /// As [`Relay::run`]; also when what has to be given up cannot be.
    pub fn run_confined(self, engine: Engine, log: &Log) -> Result<Stopped, RunError> {
        self.run_behind(engine, |plan| confine::confine(plan, log))
    }

    fn run_behind(
        mut self,
        engine: Engine,
        confine: impl FnOnce(&Plan) -> Result<(), SetupError>,
    ) -> Result<Stopped, RunError> {
        let opened = engine::open(engine)?;
        confine(&self.plan)?;
        // Its thread is behind the fence of files, as this one is. It ends behind the worker, whose
        // last streams have lines, too.
        let access_log = self.access_log.take().map(OpenedAccessLog::start).transpose()?;
        let access = access_log.as_ref().map(RunningAccessLog::handle);
        match opened {
            Opened::Uring(driver) => self.run_on(*driver, access),
            Opened::Epoll(driver) => self.run_on(*driver, access),
        }
    }

    fn run_on(
        mut self,
        driver: impl Driver,
        access: Option<AccessLog>,
    ) -> Result<Stopped, RunError> {
        info!(engine = driver.name(), congestion = self.congestion.name(), "engine ready");
        if let Some((tls, plan)) = self.encryption.as_ref().zip(self.plan.encryption.as_ref()) {
            let (own_key, peers) = (tls.own_fingerprint(), show::peers(plan));
            info!(own_key, peers, "persistent connection encrypted");
        }
        for notice in &self.plan.notices {
            info!(notice, "notice");
        }
        log_exposure(&self.plan);
        let of_listeners = self.listeners.iter().map(|listener| {
            (listener.purpose() == Purpose::Receptor, listener.place().to_string())
        });
        let of_ports = self.ports.iter().map(|port| (false, format!("{}/udp", port.address())));
        let places: Vec<(bool, String)> = of_listeners.chain(of_ports).collect();
        let (takeover, control) = (self.takeover.take(), self.control.take());
        let has_taken_over = takeover.as_ref().is_some_and(Takeover::has_predecessor);
        let supervisor = self.supervisor.take();
        let wake = self.wakes.1.try_clone()?;
        let desk = control.map(|place| open_control(place, &wake)).transpose()?;
        let link = self.plan.link.clone();
        let mut worker = self.into_worker(driver)?;
        worker.log_access(access);
        if let Some(takeover) = takeover {
            let (desk, reserved, succession) = takeover.finish(&link, wake)?;
            worker.open_desk(desk, reserved, succession);
        }
        if let Some((notifier, ready)) = supervisor {
            worker.report_to(notifier, ready, has_taken_over);
        }
        if let Some(desk) = desk {
            worker.open_control(desk);
        }
        // These lines are logged last, so that everything is open once they appear.
        for (is_receptor, address) in places {
            match is_receptor {
                true => info!(address, "receptor listening"),
                false => info!(address, "entrance listening"),
            }
        }
        Ok(worker.run()?)
    }

    /// Ready to run.
    pub(crate) fn into_worker<D: Driver>(self, driver: D) -> io::Result<Worker<D>> {
        let (plan, ways_in) = ((self.plan, self.ceilings), (self.listeners, self.ports));
        let encryption = self.encryption.map(Rc::new);
        let driver = (driver, self.pipes);
        Worker::new(driver, plan, ways_in, self.source, self.congestion, encryption, self.wakes)
    }
}

fn open_access_log(plan: &AccessLogPlan) -> Result<OpenedAccessLog, SetupError> {
    OpenedAccessLog::open(plan)
        .map_err(|error| SetupError::AccessLog { file: plan.place().display().to_string(), error })
}

/// Starts the thread of the control socket.
fn open_control(
    place: control::Place,
    wake: &UnixStream,
) -> Result<control::desk::Desk, SetupError> {
    let opened = wake.try_clone().and_then(|wake| control::desk::Desk::open(place, wake));
    opened.map_err(|error| SetupError::Process {
        what: "cannot start the thread of the control socket",
        error,
    })
}

/// Says once who may be a peer of a receptor whose connections are not encrypted.
fn log_exposure(plan: &Plan) {
    const MESSAGE: &str = "the persistent connection is not encrypted";
    match exposure::of(plan) {
        Some(InClear { remedy, may_come: Some(may_come), is_local: false }) => {
            warn!(may_come, remedy, "{MESSAGE}");
        }
        Some(InClear { may_come: Some(may_come), .. }) => info!(may_come, "{MESSAGE}"),
        _ => {}
    }
}

/// Checks the device, FIFO or command of the persistent connection, so that errors show at start.
fn how_to_reach(link: &LinkPlan) -> Result<Option<LinkSource>, LinkError> {
    Ok(Some(match link {
        LinkPlan::Listen(_) | LinkPlan::Relay { .. } | LinkPlan::Loopback => return Ok(None),
        LinkPlan::Connect(target) => LinkSource::Dial(target.clone()),
        LinkPlan::Device(plan::Device::Pair { input, output }) => {
            LinkSource::Fifos(FifoPair::new(input.clone(), output.clone())?)
        }
        LinkPlan::Device(plan::Device::Both { path, line }) => {
            LinkSource::Device(Device::new(path.clone(), line.clone())?)
        }
        LinkPlan::Stdio => LinkSource::Given(Some(stdio::take()?)),
        LinkPlan::Command(command) => LinkSource::Command(command.clone()),
    }))
}

fn choose_congestion(wanted: &Congestion) -> Result<CongestionPolicy, SetupError> {
    CongestionPolicy::new(wanted).map_err(|error| match wanted {
        Congestion::Named(name) => SetupError::Congestion { name: name.clone(), error },
        _ => SetupError::Process { what: "cannot make a socket", error },
    })
}
