//! The whole command line: options by clap, parameters by [`build`].

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, CommandFactory, Parser, ValueEnum};

use super::access_log;
use super::build;
use super::control::{self, Asking};
use super::error::{Failure, Problem, plain, quoted};
use super::files::{self, Files};
use super::habits;
use super::help;
use super::hostlist::Lookup;
use super::keygen::{self, Keygen};
use super::log_level::LogLevel;
use super::plan::{Plan, Privileges, Sandbox};
use super::takeover;
use super::unsupported;
use super::user;
use super::words::{Word, WordOrigin};

/// The parsed command line.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// What to do.
    pub command: Command,
    /// How often `-v` was given.
    pub verbosity: u8,
    /// `--log-level`.
    pub level: Option<LogLevel>,
    /// Form of the log.
    pub log: LogFormat,
    /// How the kernel is asked.
    pub engine: Engine,
    /// When the service manager is told that the process is ready.
    pub ready: Ready,
}

impl Invocation {
    /// One that neither logs nor relays.
    fn of(command: Command) -> Invocation {
        let (verbosity, log, engine) = (0, LogFormat::default(), Engine::default());
        Invocation { command, verbosity, level: None, log, engine, ready: Ready::default() }
    }
}

/// What to do.
#[derive(Debug, Clone)]
pub enum Command {
    /// Relay.
    Run(Plan),
    /// `--check`: print the plan ([`super::show::plan`]) and exit.
    Check(Plan),
    /// `demo`: the demonstration in one process.
    Demo,
    /// `keygen`: make a key or a secret, and print what the other end has to be given.
    Keygen(Keygen),
    /// `status`, `streams`, `kill`, `drain`: ask a process that runs.
    Ask(Asking),
    /// `--help`, `--version`: print this (it ends with a line end) to stdout and exit.
    Print(String),
}

/// Form of the log on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON object a line, for programs
    Json,
}

/// How the kernel is asked for input and output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Engine {
    /// io_uring where it can be had, else epoll; the log says which, and why
    #[default]
    Auto,
    /// io_uring; not to start without it
    Uring,
    /// epoll, which is everywhere, and slower
    Epoll,
}

/// What a service manager that wants to know takes for ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Ready {
    /// Its ports are open
    #[default]
    Ports,
    /// A tunnel is up, too
    Tunnel,
}

/// Version, and the commit where the build knew it.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), env!("SOCKMUX_URING_COMMIT_SHOWN"));

/// Carry many TCP and UDP flows over one persistent connection (SockMux, on io_uring).
#[derive(Debug, Parser)]
#[command(
    name = "sockmux-uring",
    version = VERSION,
    override_usage = help::USAGE,
    after_help = help::AFTER,
    max_term_width = 100
)]
struct Options {
    /// Receptor: accept the persistent connection there, as in -P9000, -P:9000, -PhostX:9000,
    /// -P[::1]:9000; a list of ports is allowed
    #[arg(short = 'P', value_name = "[HOST]:PORT", action = ArgAction::Append)]
    listen: Vec<String>,

    /// The original's foreground form, with the options below; without -A, -C, -I, -O and -X the
    /// persistent connection is our own standard input and output. -P is then an entrance (as PORT=)
    #[arg(short = 'F', value_name = "sockmux", action = ArgAction::Append)]
    function: Vec<String>,

    /// With -Fsockmux: accept the persistent connection there
    #[arg(short = 'A', value_name = "[HOST:]PORT", action = ArgAction::Append)]
    accept: Vec<String>,

    /// With -Fsockmux: connect there; no host is this machine
    #[arg(short = 'C', value_name = "[HOST:]PORT", action = ArgAction::Append)]
    connect: Vec<String>,

    /// With -Fsockmux: the FIFO or device for input
    #[arg(short = 'I', value_name = "PATH", action = ArgAction::Append)]
    input: Vec<String>,

    /// With -Fsockmux: the FIFO or device for output
    #[arg(short = 'O', value_name = "PATH", action = ArgAction::Append)]
    output: Vec<String>,

    /// With -Fsockmux: one device both ways, as SERVER=sockmux:comm@
    #[arg(short = 'X', value_name = "DEVICE[?OPTIONS]", action = ArgAction::Append)]
    device: Vec<String>,

    /// With -Fsockmux: the exit for all streams of the peer (as DEST=); no host is this machine
    #[arg(short = 'Q', value_name = "[HOST:]PORT", action = ArgAction::Append)]
    exit: Vec<String>,

    /// Log more; -vv more still
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,

    /// What is logged, whatever -v and RUST_LOG say; -v is debug, -vv trace [default: info]
    #[arg(long, value_name = "LEVEL", value_enum)]
    log_level: Option<LogLevel>,

    /// Form of the log on stderr [default: text]
    #[arg(long, value_name = "FORMAT", value_enum)]
    log: Option<LogFormat>,

    /// Write a line for each stream at its end, with its bytes and how it ended: to this file, which
    /// is appended to and opened anew on SIGHUP; - is standard output. In the form of --log
    #[arg(long, value_name = "FILE")]
    access_log: Option<String>,

    /// What moves the bytes: auto takes io_uring where it is allowed, else epoll [default: auto]
    #[arg(long, value_name = "ENGINE", value_enum)]
    engine: Option<Engine>,

    /// Go on as this user, and in all groups of that user, once the ports are open (as root only)
    #[arg(long, value_name = "NAME[:GROUP]")]
    user: Option<String>,

    /// Whether the process is fenced in: system calls, files, core dumps [default: auto]
    #[arg(long, value_name = "WHEN", value_enum)]
    sandbox: Option<Sandbox>,

    /// Upgrade without loss: take the listening sockets over from the process that was started with the
    /// same path, which then ends with its streams (TIMEOUT=drain); and listen there for the next one
    #[arg(long, value_name = "PATH")]
    takeover: Option<String>,

    /// When systemd is told that the service is ready (Type=notify): as soon as its ports are open, or
    /// when its tunnel is up [default: ports]
    #[arg(long, value_name = "WHEN", value_enum)]
    ready: Option<Ready>,

    /// Where `sockmux-uring status` and the like ask this process: a Unix socket, or `no` [default:
    /// $RUNTIME_DIRECTORY/control, else $XDG_RUNTIME_DIR/sockmux-uring/PID, else none]
    #[arg(long, value_name = "PATH")]
    control: Option<String>,

    /// Print what the command line means, and exit
    #[arg(long)]
    check: bool,

    /// Parameters and parameter files, in any order and between options; or `demo`
    #[arg(value_name = "NAME=VALUE | +=FILE")]
    words: Vec<String>,
}

impl Options {
    /// Letters and values of the options that have a meaning for the plan.
    fn for_the_plan(&self) -> impl Iterator<Item = (char, &String)> {
        let all = [
            ('F', &self.function),
            ('P', &self.listen),
            ('A', &self.accept),
            ('C', &self.connect),
            ('I', &self.input),
            ('O', &self.output),
            ('X', &self.device),
            ('Q', &self.exit),
        ];
        all.into_iter().flat_map(|(letter, values)| values.iter().map(move |value| (letter, value)))
    }
}

enum Parsed {
    Options(Box<Options>),
    Print(String),
}

/// Reads a command line. `args` begins with the program's name, as [`std::env::args_os`] does;
/// `lookup` finds the addresses of plain names in host lists.
///
/// # Errors
/// Anything that makes the command line one that cannot be run; exit with
/// [`Failure::EXIT_CODE`].
pub fn parse<I>(args: I, files: &dyn Files, lookup: &mut Lookup<'_>) -> Result<Invocation, Failure>
where
    I: IntoIterator<Item = OsString>,
{
    let mut args = args.into_iter().map(text).collect::<Result<Vec<String>, _>>()?;
    if args.get(1).is_some_and(|first| first == keygen::WORD) {
        return Ok(Invocation::of(Command::Keygen(keygen::parse(&args[2..])?)));
    }
    if args.get(1).is_some_and(|first| control::is_asking(first)) {
        return Ok(Invocation::of(Command::Ask(control::parse(&args[1..])?)));
    }
    if let Some(problem) = habits::problem(&args, &build::NAMES) {
        return Err(Failure::new(problem.to_string()));
    }
    let mut administrative: Vec<String> = habits::each(&args)
        .filter(|(arg, _)| arg.starts_with('-'))
        .filter_map(|(arg, _)| unsupported::administrative(arg))
        .collect();
    args.retain(|arg| !administrative.contains(arg));
    let options = match parse_options(&args).map_err(Failure::new)? {
        Parsed::Options(options) => *options,
        Parsed::Print(text) => return Ok(Invocation::of(Command::Print(text))),
    };
    if options.words.iter().any(|word| word == "demo") {
        return demo(&options);
    }

    let mut settings = Settings::default();
    settings.take(&options, &WordOrigin::Arguments);
    let words = options.words.into_iter().map(Word::argument).collect();
    let mut parameters = Vec::new();
    for word in files::expand(words, files)? {
        if let Some(name) = unsupported::administrative(&word.text) {
            administrative.push(Word { text: name, origin: word.origin }.to_string());
        } else if word.origin != WordOrigin::Arguments && word.text.starts_with('-') {
            settings.take(&parse_line(&word)?, &word.origin);
        } else {
            parameters.push(word);
        }
    }
    if !administrative.is_empty() {
        return Err(Failure::new(unsupported::administration(&administrative).to_string()));
    }
    let mut plan = build::plan(&settings.options, &parameters, files, lookup)?;
    plan.privileges = settings.privileges()?;
    if let Some(path) = &settings.takeover {
        let path = takeover::path(path, &plan);
        plan.takeover = Some(path.map_err(|problem| Failure::new(problem.to_string()))?);
    }
    if settings.ready == Some(Ready::Tunnel) && !plan.link.has_tunnels() {
        let what = "--ready tunnel: there is no tunnel: the process serves its clients by itself";
        let problem = Problem::new(what, "leave --ready out");
        return Err(Failure::new(problem.to_string()));
    }
    if let Some(place) = &settings.access_log {
        let log = access_log::parse(place, settings.log.unwrap_or_default(), &plan.link);
        plan.access_log = Some(log.map_err(|problem| Failure::new(problem.to_string()))?);
    }
    if let Some(path) = &settings.control {
        let place = control::place(path, &plan);
        plan.control = place.map_err(|problem| Failure::new(problem.to_string()))?;
    }
    let command = if settings.check { Command::Check(plan) } else { Command::Run(plan) };
    let Settings { verbosity, level, log, engine, ready, .. } = settings;
    let (log, engine) = (log.unwrap_or_default(), engine.unwrap_or_default());
    Ok(Invocation { command, verbosity, level, log, engine, ready: ready.unwrap_or_default() })
}

/// Options from the arguments and from all files.
#[derive(Default)]
struct Settings {
    /// Options with a meaning for the plan, each as the word `-Pvalue`.
    options: Vec<Word>,
    verbosity: u8,
    level: Option<LogLevel>,
    log: Option<LogFormat>,
    access_log: Option<String>,
    engine: Option<Engine>,
    user: Option<String>,
    sandbox: Option<Sandbox>,
    takeover: Option<String>,
    ready: Option<Ready>,
    control: Option<String>,
    check: bool,
}

impl Settings {
    /// Adds options; those taken first win, so that an argument outdoes a file.
    fn take(&mut self, options: &Options, origin: &WordOrigin) {
        for (letter, value) in options.for_the_plan() {
            self.options.push(Word { text: format!("-{letter}{value}"), origin: origin.clone() });
        }
        self.verbosity = self.verbosity.saturating_add(options.verbose);
        self.level = self.level.or(options.log_level);
        self.log = self.log.or(options.log);
        self.access_log = self.access_log.take().or_else(|| options.access_log.clone());
        self.engine = self.engine.or(options.engine);
        self.user = self.user.take().or_else(|| options.user.clone());
        self.sandbox = self.sandbox.or(options.sandbox);
        self.takeover = self.takeover.take().or_else(|| options.takeover.clone());
        self.ready = self.ready.or(options.ready);
        self.control = self.control.take().or_else(|| options.control.clone());
        self.check |= options.check;
    }

    fn privileges(&self) -> Result<Privileges, Failure> {
        let user = self.user.as_deref().map(user::parse).transpose();
        let user = user.map_err(|problem| Failure::new(problem.to_string()))?;
        Ok(Privileges { user, sandbox: self.sandbox.unwrap_or_default() })
    }
}

/// An argument as text.
fn text(arg: OsString) -> Result<String, Failure> {
    arg.into_string().map_err(|arg| {
        let lossy = arg.to_string_lossy();
        Failure::new(format!("{} is not UTF-8; write the argument in UTF-8", quoted(&lossy)))
    })
}

fn demo(options: &Options) -> Result<Invocation, Failure> {
    let has_own = options.check
        || options.user.is_some()
        || options.sandbox.is_some()
        || options.takeover.is_some()
        || options.ready.is_some()
        || options.access_log.is_some()
        || options.control.is_some();
    if options.words.len() > 1 || has_own || options.for_the_plan().next().is_some() {
        return Err(Failure::new(
            "demo: no parameter, no --check and no option of the tunnel's such as -P can be given with it; \
             write `sockmux-uring demo` alone, or leave demo out",
        ));
    }
    let (log, engine) = (options.log.unwrap_or_default(), options.engine.unwrap_or_default());
    let (verbosity, ready) = (options.verbose, Ready::default());
    let level = options.log_level;
    Ok(Invocation { command: Command::Demo, verbosity, level, log, engine, ready })
}

/// An option in a file: `-P9000`, `-P 9000`, `--log json`.
fn parse_line(word: &Word) -> Result<Options, Failure> {
    let fail = |what: &str, remedy: &str| Failure::at(word, &Problem::new(what, remedy));
    let mut args = vec!["sockmux-uring"];
    match word.text.split_once(char::is_whitespace) {
        Some((option, value)) => args.extend([option, value.trim_start()]),
        None => args.push(&word.text),
    }
    match parse_options(&args).map_err(|message| Failure::new(format!("{word}: {message}")))? {
        Parsed::Print(_) => Err(fail("this option prints and exits", "give it as an argument")),
        Parsed::Options(options) if options.words.is_empty() => Ok(*options),
        Parsed::Options(_) => {
            Err(fail("more than one option or parameter in a line", "give each a line of its own"))
        }
    }
}

/// The options, as clap has them: what the man page and the completions are made from.
pub fn options() -> clap::Command {
    Options::command()
}

/// Runs clap; the error is the message for stderr.
fn parse_options<S: AsRef<str>>(args: &[S]) -> Result<Parsed, String> {
    let error = match Options::try_parse_from(args.iter().map(AsRef::as_ref)) {
        Ok(options) => return Ok(Parsed::Options(Box::new(options))),
        Err(error) => error,
    };
    if error.kind() == ErrorKind::DisplayHelp && !args.iter().any(|arg| arg.as_ref() == "--help") {
        return Ok(Parsed::Print(help::SHORT.to_owned()));
    }
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Ok(Parsed::Print(error.to_string()));
    }
    // clap would have it written behind `--`, which makes a parameter of it that is none.
    if let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg)
        && error.kind() == ErrorKind::UnknownArgument
    {
        let remedy = match error.get(ContextKind::SuggestedArg) {
            Some(ContextValue::String(known)) => format!("did you mean `{known}`?"),
            _ => "-h lists the most used ones, --help all".to_owned(),
        };
        return Err(
            Problem::new(format!("{} is not an option", quoted(option)), remedy).to_string()
        );
    }
    // clap repeats the arguments unchanged; the lines around them are its own.
    let message = error.to_string();
    let message = message.trim_start_matches("error: ").trim_end();
    Err(message.split('\n').map(plain).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    #[test]
    fn the_definition_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn the_short_help_fits_a_screen() {
        assert!(help::SHORT.lines().count() <= 24, "{}", help::SHORT.lines().count());
        let print = |args: &[&str]| match parse_options(args) {
            Ok(Parsed::Print(text)) => text,
            _ => panic!("{args:?} prints"),
        };
        assert_eq!(print(&["sockmux-uring", "-h"]), help::SHORT);
        assert_eq!(print(&["sockmux-uring", "-P1", "-vh"]), help::SHORT);
        assert!(print(&["sockmux-uring", "--help"]).ends_with(&format!("{}\n", help::AFTER)));
    }

    #[test]
    fn the_help_knows_the_limits() {
        let flows = format!("{}; 1 to {}", limits::UDP_FLOWS, limits::UDP_FLOWS_MAX);
        assert!(help::AFTER.contains(&flows), "{flows}");
    }

    #[test]
    fn no_line_of_the_help_is_broken_on_a_usual_terminal() {
        for line in help::AFTER.lines().chain(help::USAGE.lines()).chain(help::SHORT.lines()) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
