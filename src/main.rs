//! The command: reads its words, and relays until it is stopped.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::process::ExitCode;

use sockmux_uring::cli::control::Asking;
use sockmux_uring::cli::error::Failure;
use sockmux_uring::cli::files::Disk;
use sockmux_uring::cli::invocation::{self, Command, Engine, LogFormat, Ready};
use sockmux_uring::cli::keygen::Keygen;
use sockmux_uring::cli::log_level::{self, LogLevel};
use sockmux_uring::cli::plan::Plan;
use sockmux_uring::cli::show;
use sockmux_uring::control::{self, Answer};
use sockmux_uring::demo;
use sockmux_uring::identity;
use sockmux_uring::io::control::client;
use sockmux_uring::io::{Inherited, Notifier, memory, signals};
use sockmux_uring::observe::{self, Log};
use sockmux_uring::process::{Relay, RunError, SetupError, Stopped};
use tracing::warn;

/// Something failed while the relay ran, its only link broke, or it was stopped twice.
const EXIT_FAILED: u8 = 1;
/// The relay could not begin.
const EXIT_SETUP: u8 = 3;

fn main() -> ExitCode {
    let mut look_up = |name: &str| -> io::Result<Vec<IpAddr>> {
        Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
    };
    let invocation = match invocation::parse(std::env::args_os(), &Disk, &mut look_up) {
        Ok(invocation) => invocation,
        Err(failure) => {
            observe::complain(&failure.to_string());
            return ExitCode::from(Failure::EXIT_CODE);
        }
    };
    match invocation.command {
        Command::Print(text) => print(&text),
        Command::Check(plan) => check(&plan),
        Command::Keygen(keygen) => make_key(&keygen),
        Command::Ask(asking) => ask(&asking),
        Command::Demo => demonstrate(invocation.engine),
        Command::Run(plan) => {
            let how = (invocation.engine, invocation.ready);
            run(plan, how, (invocation.level, invocation.verbosity), invocation.log)
        }
    }
}

/// Prints a plan, and the key of this end, which has to be there.
fn check(plan: &Plan) -> ExitCode {
    let mut text = show::plan(plan);
    match plan.encryption.as_ref().map(identity::load).transpose() {
        Ok(settings) => {
            text.extend(settings.map(|settings| show::own_key(settings.own_fingerprint())));
            print(&text)
        }
        Err(error) => {
            // The plan is what was asked for, whatever the files are.
            let _ = observe::print(&text);
            observe::complain(&error.to_string());
            ExitCode::from(EXIT_SETUP)
        }
    }
}

fn make_key(keygen: &Keygen) -> ExitCode {
    match identity::keygen::make(keygen) {
        Ok(made) => {
            observe::complain(&made.next);
            made.fingerprint.map_or(ExitCode::SUCCESS, |fingerprint| print(&(fingerprint + "\n")))
        }
        Err(error) => {
            observe::complain(&error.to_string());
            ExitCode::from(EXIT_SETUP)
        }
    }
}

/// Asks a process that runs, and prints its answer.
fn ask(asking: &Asking) -> ExitCode {
    let answer = match client::ask(asking.path.as_deref(), &asking.request) {
        Ok(Answer::Error(error)) => {
            observe::complain(&error);
            return ExitCode::from(EXIT_FAILED);
        }
        Ok(answer) => answer,
        Err(error) => {
            observe::complain(&error.to_string());
            return ExitCode::from(EXIT_FAILED);
        }
    };
    print(&if asking.json { control::json(&answer) } else { control::text::answer(&answer) })
}

fn print(text: &str) -> ExitCode {
    match observe::print(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            observe::complain(&format!("cannot write to standard output: {error}"));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn demonstrate(engine: Engine) -> ExitCode {
    match demo::run(engine, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            observe::complain(&format!("demo: {error}"));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn run(
    plan: Plan,
    how: (Engine, Ready),
    (given, verbosity): (Option<LogLevel>, u8),
    format: LogFormat,
) -> ExitCode {
    memory::spare_address_space();
    let variable = std::env::var_os("RUST_LOG");
    let variable = variable.as_ref().map(|value| value.to_string_lossy());
    let level = log_level::choose(given, verbosity, variable.as_deref());
    let log = match Log::start(level.unwrap_or(LogLevel::Info), format) {
        Ok(log) => log,
        Err(error) => {
            observe::complain(&format!("cannot start the thread of the log: {error}"));
            return ExitCode::from(EXIT_SETUP);
        }
    };
    if level.is_none() {
        warn!(
            value = variable.as_deref(),
            "RUST_LOG is ignored: error, warn, info, debug or trace"
        );
    }
    match relay(plan, how, &log) {
        Ok(Stopped::Drained | Stopped::DeadlinePassed(_))
        | Ok(Stopped::LinkEnded { in_order: true }) => ExitCode::SUCCESS,
        Ok(Stopped::LinkEnded { in_order: false }) => {
            log.complain("the tunnel over standard input and output broke");
            ExitCode::from(EXIT_FAILED)
        }
        Ok(Stopped::AtOnce) => ExitCode::from(EXIT_FAILED),
        Ok(Stopped::NotTakenOver) => ExitCode::from(EXIT_SETUP),
        Err(error) => {
            log.complain(&error.to_string());
            match error {
                RunError::Setup(_) => ExitCode::from(EXIT_SETUP),
                RunError::Engine(_) => ExitCode::from(EXIT_FAILED),
            }
        }
    }
}

fn relay(mut plan: Plan, (engine, ready): (Engine, Ready), log: &Log) -> Result<Stopped, RunError> {
    signals::survive()?;
    let pid = std::process::id();
    plan.control = plan.control.in_environment(|name| std::env::var_os(name), pid);
    let inherited = Inherited::from_environment().map_err(SetupError::from)?;
    let mut relay = Relay::bind_with(plan, inherited)?;
    match Notifier::from_environment() {
        Ok(Some(notifier)) => relay.report_to(notifier, ready),
        Ok(None) => {}
        Err(error) => warn!(%error, "the service manager cannot be told anything"),
    }
    relay.stop_handle()?.hear_signals()?;
    relay.run_confined(engine, log)
}
