//! The exits of a plan at work. A stream shares its exit by an `Rc`: what applies to it stays as it
//! was when the stream began, whichever exits the plan has later.

use std::net::IpAddr;
use std::rc::Rc;

use crate::cli::plan::{Exit, Permit, Plan, Timeouts};
use crate::io::net;
use crate::policy::connection_limits::{ConnectionLimits, LimitGuard};
use crate::proxy_proto::config::ConversationConfig;

/// What the streams of one exit share.
#[derive(Debug)]
pub(in crate::worker) struct ExitState {
    /// The exit as the command line has it.
    pub(in crate::worker) plan: Exit,
    /// The timeouts of its streams: its own, else the process's.
    pub(in crate::worker) timeouts: Timeouts,
    /// Destinations that its clients may reach, in place of the process's. `None`: those apply.
    pub(in crate::worker) permits: Option<Rc<[Permit]>>,
    /// What its conversations begin with. `None`: it is no proxy.
    pub(in crate::worker) conversation: Option<ConversationConfig>,
    limits: ConnectionLimits,
}

impl ExitState {
    fn new(plan: &Plan, exit: &Exit, banner_host: &str) -> ExitState {
        let permits = &exit.options.permits;
        ExitState {
            timeouts: plan.timeouts_of(exit).clone(),
            permits: (!permits.is_empty()).then(|| Rc::from(&permits[..])),
            conversation: ConversationConfig::of(plan, exit, banner_host),
            limits: ConnectionLimits::of_exit(exit.options.maxima),
            plan: exit.clone(),
        }
    }

    /// Acquires a slot from the limits of the exit.
    ///
    /// # Errors
    /// The reason to refuse the stream.
    pub(in crate::worker) fn acquire(
        &self,
        client: Option<IpAddr>,
    ) -> Result<Option<LimitGuard>, String> {
        self.limits.acquire(client)
    }
}

impl AsRef<Exit> for Rc<ExitState> {
    fn as_ref(&self) -> &Exit {
        &self.plan
    }
}

/// All exits, in the order of the plan.
pub(in crate::worker) struct Exits {
    all: Vec<Rc<ExitState>>,
    /// Some exit, or the process, ends streams that are idle.
    ends_idle: bool,
}

impl Exits {
    pub(in crate::worker) fn new(plan: &Plan) -> Exits {
        let banner_host = net::hostname();
        let of = |exit| Rc::new(ExitState::new(plan, exit, &banner_host));
        let all: Vec<_> = plan.exits.iter().map(of).collect();
        let ends_idle =
            plan.timeouts.io.is_some() || all.iter().any(|exit| exit.timeouts.io.is_some());
        Exits { all, ends_idle }
    }

    pub(in crate::worker) fn all(&self) -> &[Rc<ExitState>] {
        &self.all
    }

    /// Whether idle streams are ended.
    pub(in crate::worker) fn ends_idle(&self) -> bool {
        self.ends_idle
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::time::Duration;

    use super::*;
    use crate::cli::files::Disk;
    use crate::cli::invocation::{self, Command};

    fn exits(words: &[&str]) -> Exits {
        let args = ["sockmux-uring", "-P1"].iter().chain(words).map(OsString::from);
        let mut no_names = |_: &str| Err(std::io::Error::other("no such name"));
        let Command::Run(plan) = invocation::parse(args, &Disk, &mut no_names).unwrap().command
        else {
            panic!("{words:?} are to run")
        };
        Exits::new(&plan)
    }

    #[test]
    fn an_exit_has_its_own_options_or_the_processs() {
        let own = "SERVER=socks,-in(TIMEOUT=con:1,io:2 PERMIT=socks:127.0.0.1:* MAXIMA=conpch:1)";
        let exits = exits(&[own, "DEST=127.0.0.1:1", "TIMEOUT=con:7"]);
        let [first, second] = exits.all() else { panic!("two exits") };
        let secs = |secs| Some(Duration::from_secs(secs));
        let times = [first, second].map(|exit| (exit.timeouts.connect, exit.timeouts.io));
        assert_eq!(times, [(secs(1), secs(2)), (secs(7), None)]);
        assert_eq!(first.permits.as_ref().map(|permits| permits.len()), Some(1));
        assert!(second.permits.is_none());
        let proxies = [first, second].map(|exit| exit.conversation.as_ref().map(|c| c.proxy()));
        assert_eq!(proxies, [Some(crate::cli::plan::Proxy::Socks), None]);
        // Each counts its own streams.
        let client = "10.0.0.1".parse().ok();
        let _held = first.acquire(client).unwrap();
        assert!(first.acquire(client).is_err() && second.acquire(client).is_ok());
        assert!(exits.ends_idle());
    }

    #[test]
    fn idle_streams_are_looked_for_where_some_timeout_says_so() {
        for (words, wanted) in [
            (&["DEST=127.0.0.1:1"][..], false),
            (&["DEST=127.0.0.1:1", "TIMEOUT=io:9"], true),
            (&["DEST=127.0.0.1:1", "SERVER=telnet,-in(TIMEOUT=io:9)"], true),
            (&["SERVER=telnet,-in(TIMEOUT=io:0)", "TIMEOUT=io:9"], true),
        ] {
            assert_eq!(exits(words).ends_idle(), wanted, "{words:?}");
        }
    }
}
