//! The real binary as a child process.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, geteuid, kill_process, prlimit};
use serde_json::Value;

use super::engine::{self, Leg};
use super::log::Log;
use super::{DEADLINE, eventually};

/// One running `sockmux-uring`. Killed on drop; its log is printed when the test fails.
pub struct Program {
    words: String,
    child: Child,
    log: Arc<Log>,
    exit: Option<ExitStatus>,
    /// The engine that it must report, if this run of the tests sets one.
    engine: Option<&'static str>,
}

/// A command for the real binary, with nothing given yet.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sockmux-uring"));
    // Control sockets are where tests have them.
    command.env_remove("XDG_RUNTIME_DIR").env_remove("RUNTIME_DIRECTORY");
    command
}

impl Program {
    /// Starts the program with these words and `--log json`, on the engine that this run of the
    /// tests is for, unless the words name one.
    pub fn start<S: AsRef<str>>(words: &[S]) -> Program {
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        let leg = Leg::current();
        if words.contains(&engine::OPTION) {
            return Program::start_by(&words, None, |command| command.spawn());
        }
        Program::start_by(&words, Some(leg.engine()), |command| leg.spawn(command))
    }

    /// Starts the program with this standard input and output.
    pub fn start_with_stdio<S: AsRef<str>>(words: &[S], input: Stdio, output: Stdio) -> Program {
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        let leg = Leg::current();
        Program::start_command(command(), &words, Some(leg.engine()), |command| {
            leg.spawn(command.stdin(input).stdout(output))
        })
    }

    /// Starts the program where io_uring is refused to it.
    pub fn start_refused(words: &[&str]) -> Program {
        Program::start_by(words, None, engine::spawn_refused)
    }

    /// Starts the program with two listening sockets as descriptors 3 and 4, as systemd does, and with
    /// the environment for them: `LISTEN_FDS=...` and others.
    pub fn start_with_sockets(words: &[&str], open: [OwnedFd; 2], environment: &str) -> Program {
        let leg = Leg::current();
        // The shell's process becomes the program's.
        let script = format!(
            "exec 3<&0 4<&1 </dev/null >/dev/null; {environment} LISTEN_PID=${{LISTEN_PID:-$$}} \
             exec \"$0\" \"$@\""
        );
        let program = command();
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).arg(program.get_program());
        let [first, second] = open;
        Program::start_command(shell, words, Some(leg.engine()), |command| {
            leg.spawn(command.stdin(first).stdout(second))
        })
    }

    /// Starts the program by a shell that has run `script` before.
    pub fn start_after(script: &str, words: &[&str]) -> Program {
        let (program, leg) = (command(), Leg::current());
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{script}; exec \"$0\" \"$@\"")]).arg(program.get_program());
        Program::start_command(shell, words, Some(leg.engine()), |command| leg.spawn(command))
    }

    /// Starts the program as process 1 of a container (a PID namespace), and returns its parent.
    ///
    /// # Panics
    /// If the test does not run as root.
    pub fn start_as_process_1(words: &[&str]) -> Program {
        let (program, leg) = (command(), Leg::current());
        let mut unshare = Command::new("unshare");
        unshare
            .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
            .arg(program.get_program());
        Program::start_command(unshare, words, Some(leg.engine()), |command| leg.spawn(command))
    }

    /// Starts the program on epoll where the kernel has none of these system calls.
    pub fn start_without(words: &[&str], calls: &[i64]) -> Program {
        Program::start_by(words, Some("epoll"), |command| {
            engine::spawn_without(command, calls, libc::ENOSYS)
        })
    }

    fn start_by(
        words: &[&str],
        engine: Option<&'static str>,
        spawn: impl FnOnce(&mut Command) -> io::Result<Child>,
    ) -> Program {
        Program::start_command(command(), words, engine, spawn)
    }

    fn start_command(
        mut command: Command,
        words: &[&str],
        engine: Option<&'static str>,
        spawn: impl FnOnce(&mut Command) -> io::Result<Child>,
    ) -> Program {
        command
            .args(words)
            .args(["--log", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        // Only root sees the descriptors of a process that cannot be dumped, and tests count them.
        if !geteuid().is_root() && !words.contains(&"--sandbox") {
            command.args(["--sandbox", "off"]);
        }
        let mut child = spawn(&mut command).expect("the binary under test starts");
        let log = Log::follow(child.stderr.take().expect("standard error is a pipe"));
        Program { words: words.join(" "), child, log, exit: None, engine }
    }

    /// Waits for the first event with this message.
    pub fn wait_for(&self, message: &str) -> Value {
        self.wait_for_nth(message, 1)
    }

    /// Waits for the `nth` event (from 1) with this message.
    pub fn wait_for_nth(&self, message: &str, nth: usize) -> Value {
        self.wait_for_event(&format!("\"{message}\", number {nth}"), nth, |event| {
            event["message"] == message
        })
    }

    /// Waits for the `nth` event (from 1) that `matches`; `what` names it when it never comes.
    pub fn wait_for_event(
        &self,
        what: &str,
        nth: usize,
        matches: impl Fn(&Value) -> bool,
    ) -> Value {
        let find = |events: &[Value]| events.iter().filter(|e| matches(e)).nth(nth - 1).cloned();
        self.log
            .wait_for(DEADLINE, find)
            .unwrap_or_else(|| panic!("`{}` never logged {what}", self.words))
    }

    /// Waits for an event about something that was closed or refused, and returns its `reason`.
    pub fn wait_for_reason(&self, message: &str) -> String {
        let event = self.wait_for(message);
        match event["reason"].as_str() {
            Some(reason) if !reason.is_empty() => reason.to_owned(),
            _ => panic!("`{}` logged {event} without a reason", self.words),
        }
    }

    /// How many events with this message there are by now.
    pub fn count(&self, message: &str) -> usize {
        self.log.events().iter().filter(|event| event["message"] == message).count()
    }

    /// The messages of all events so far, in order.
    pub fn messages(&self) -> Vec<String> {
        let events = self.log.events();
        events.iter().filter_map(|event| event["message"].as_str().map(str::to_owned)).collect()
    }

    /// Waits for the first `message` ("entrance listening", "receptor listening") and gives its
    /// `address` field.
    pub fn address_of(&self, message: &str) -> SocketAddr {
        self.nth_address_of(message, 1)
    }

    /// As [`Program::address_of`], for the `nth` such message (from 1).
    pub fn nth_address_of(&self, message: &str, nth: usize) -> SocketAddr {
        let event = self.wait_for_nth(message, nth);
        let address = event["address"].as_str().unwrap_or_else(|| panic!("no address in {event}"));
        let address = address.trim_end_matches("/udp");
        address.parse().unwrap_or_else(|e| panic!("address in {event}: {e}"))
    }

    /// The events so far.
    pub fn log_events(&self) -> Vec<Value> {
        self.log.events()
    }

    /// The log so far, as text.
    pub fn log_text(&self) -> String {
        self.log.text()
    }

    /// The child's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the child can be signalled");
    }

    /// `kill -9`, and waits until the process has ended.
    pub fn kill_9(&mut self) {
        self.signal(Signal::KILL);
        self.wait_exit(DEADLINE);
    }

    /// Stops the process (SIGSTOP).
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGTERM; does not wait.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Any signal, by its number or name as kill(1) has it.
    pub fn send_signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", signal, "--", &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -s {signal} {pid}");
    }

    /// Waits until the process has ended and its log is read to the end.
    pub fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        let ended = eventually(deadline, || {
            self.exit = self.child.try_wait().expect("the child can be waited for");
            self.exit.is_some()
        });
        assert!(ended, "`{}` still runs after {deadline:?}", self.words);
        assert!(self.log.wait_end(DEADLINE), "standard error stays open after the exit");
        self.exit.expect("set above")
    }

    /// Memory that the process holds now, in bytes.
    pub fn rss_bytes(&self) -> u64 {
        let status = self.proc_file("status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        let kib: u64 = line.split_whitespace().nth(1).expect("a figure").parse().expect("KiB");
        kib * 1024
    }

    /// Processor time that its threads have used so far, to the nanosecond. Those that have ended are
    /// not counted.
    pub fn cpu_time(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid()));
        let nanos = |task: std::fs::DirEntry| {
            // A thread may end meanwhile.
            let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            stat.split_whitespace().next()?.parse::<u64>().ok()
        };
        let tasks = tasks.expect("the process runs").flatten();
        Duration::from_nanos(tasks.filter_map(nanos).sum())
    }

    /// How often its main thread has waited for something.
    pub fn times_woken(&self) -> u64 {
        let status = self.proc_file("status");
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.expect("a count").trim().parse().expect("a number")
    }

    /// Whether its main thread waits for something.
    pub fn is_asleep(&self) -> bool {
        let stat = self.proc_file("stat");
        stat.rsplit_once(')').is_some_and(|(_, fields)| fields.trim_start().starts_with('S'))
    }

    /// Lets the process have no more descriptors than this.
    pub fn limit_descriptors(&self, most: u64) {
        let pid = Pid::from_raw(self.pid() as i32);
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        prlimit(pid, Resource::Nofile, limit).expect("a child's limits can be set");
    }

    /// How many descriptors the process has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the process runs").count()
    }

    /// How many of them are sockets. After bulk this counts the leftovers of a stream, since the pipes of
    /// its splices are kept for the next one.
    pub fn sockets(&self) -> usize {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", self.pid()));
        let is_socket = |path: std::path::PathBuf| {
            // One that was closed meanwhile is none.
            std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
        };
        let entries = descriptors.expect("the process runs").flatten();
        entries.filter(|entry| is_socket(entry.path())).count()
    }

    /// Panics unless the process uses next to no processor time for a while.
    pub fn check_idle(&self) {
        const LOOKED_AT: Duration = Duration::from_secs(2);
        let before = self.cpu_time();
        std::thread::sleep(LOOKED_AT);
        let used = self.cpu_time().saturating_sub(before);
        assert!(used < LOOKED_AT / 10, "`{}` used {used:?} of {LOOKED_AT:?}", self.words);
    }

    /// Panics if a field of the log is the `{:?}` of a structure or an `Option`. The output and names of
    /// commands are exempt.
    fn check_fields(&self) {
        for event in self.log.events() {
            let fields = event.as_object().into_iter().flatten();
            for (name, value) in fields.filter(|(name, _)| !matches!(&***name, "command" | "line"))
            {
                let debug = |text: &str| text.contains("Some(") || text.contains(" { ");
                assert!(!value.as_str().is_some_and(debug), "{name} in {event}");
            }
        }
    }

    fn proc_file(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.pid())).expect("the process runs")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.exit.is_none() {
            // Failing here is no news: the process has just ended by itself.
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.log.wait_end(DEADLINE);
        }
        let text = self.log.text();
        if std::thread::panicking() {
            eprintln!("--- log of `{}`\n{text}---", self.words);
        } else {
            assert!(!text.contains("panicked at"), "`{}` panicked:\n{text}", self.words);
            self.check_fields();
            for event in self.log.events().iter().filter(|e| e["message"] == "engine ready") {
                let other = self.engine.is_some_and(|engine| event["engine"] != engine);
                assert!(!other, "`{}` ran on another engine than it should:\n{text}", self.words);
            }
        }
    }
}
