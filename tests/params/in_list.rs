//! Option lists of exits, `,-in(option list)`: valid words, and the errors for others.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sockmux_uring::cli::files::Files;
use sockmux_uring::cli::invocation::{self, Command};
use sockmux_uring::cli::plan::{Exit, ExitOptions, Maxima, Plan, Target, Timeouts};
use sockmux_uring::cli::show;

/// Files by their names.
struct Table<'t>(&'t [(&'t str, &'t str)]);

impl Files for Table<'_> {
    fn read(&self, path: &Path, _bytes_max: u64) -> io::Result<Vec<u8>> {
        let found = self.0.iter().find(|(name, _)| Path::new(name) == path);
        found.map(|(_, text)| text.as_bytes().to_vec()).ok_or(io::ErrorKind::NotFound.into())
    }
    fn identity(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }
}

fn read(words: &[&str], files: &[(&str, &str)]) -> Result<Plan, String> {
    let args = ["sockmux-uring", "-P1"].iter().chain(words).map(OsString::from);
    match invocation::parse(args, &Table(files), &mut |_| Err(io::Error::other("no such name"))) {
        Ok(invocation) => match invocation.command {
            Command::Run(plan) => Ok(plan),
            other => panic!("{words:?}: {other:?}"),
        },
        Err(failure) => Err(failure.message().to_owned()),
    }
}

fn plan(words: &[&str], files: &[(&str, &str)]) -> Plan {
    read(words, files).unwrap_or_else(|message| panic!("{words:?}: {message}"))
}

/// The only exit of a plan with this option list.
fn exit(word: &str, files: &[(&str, &str)]) -> Exit {
    let exits = plan(&[word], files).exits;
    assert_eq!(exits.len(), 1);
    exits.into_iter().next().unwrap()
}

fn permits(options: &ExitOptions) -> Vec<&str> {
    options.permits.iter().map(|permit| permit.source.as_str()).collect()
}

#[test]
fn each_parameter_is_the_exits_own() {
    let word = "SERVER=http,-in(PERMIT=http:127.0.0.1:* PERMIT='http:*:10.0.0.0/8' \
                RELIABLE=10.0.0.0/8 RELIABLE=!10.0.0.9 MAXIMA=conpch:2 MAXIMA=delegated:9 \
                TIMEOUT=con:1,io:2 TIMEOUT=ask:0,lin:3m):-:-P80,*.org";
    let plan = plan(&["PERMIT=http:*:*", "TIMEOUT=con:7,ask:8,hold:9", word], &[]);
    let Exit { options, clients, .. } = &plan.exits[0];
    assert_eq!(clients.as_ref().map(ToString::to_string).as_deref(), Some("-P80,*.org"));
    assert_eq!(permits(options), ["PERMIT=http:127.0.0.1:*", "PERMIT=http:*:10.0.0.0/8"]);
    assert_eq!(options.reliable.as_ref().unwrap().to_string(), "10.0.0.0/8,!10.0.0.9");
    assert_eq!(options.maxima, Maxima { per_client: Some(2), together: Some(9), services: None });
    let secs = |secs| Some(Duration::from_secs(secs));
    let of_receptor = Timeouts { hello: secs(5), ..Timeouts::default() };
    let process = Timeouts { connect: secs(7), ask: secs(8), hold: secs(9), ..of_receptor };
    let own =
        Timeouts { connect: secs(1), io: secs(2), ask: None, linger: secs(180), ..process.clone() };
    assert_eq!(plan.timeouts_of(&plan.exits[0]), &own);
    // The process is not affected.
    assert_eq!((plan.permits.len(), plan.reliable.is_none()), (1, true));
    assert_eq!((plan.maxima, &plan.timeouts), (Maxima::default(), &process));
}

#[test]
fn times_are_the_processs_where_the_list_says_nothing_wherever_they_stand() {
    let words = ["SERVER=socks,-in(TIMEOUT=ask:1)", "DEST=h:1", "TIMEOUT=con:7"];
    let plan = plan(&words, &[]);
    let [own, process] = [0, 1].map(|at| plan.timeouts_of(&plan.exits[at]));
    let secs = |secs| Some(Duration::from_secs(secs));
    assert_eq!((own.connect, own.ask), (secs(7), secs(1)));
    assert_eq!((process.connect, process.ask), (secs(7), secs(30)));
}

#[test]
fn a_list_without_words_says_nothing() {
    for word in ["SERVER=http,-in()", "SERVER=http,-in( )", "SERVER=http,-in"] {
        let ExitOptions { permits, reliable, authorizers, maxima, timeouts, .. } =
            exit(word, &[]).options;
        assert_eq!(authorizers, []);
        assert!(permits.is_empty() && reliable.is_none() && timeouts.is_none());
        assert_eq!(maxima, Maxima::default());
    }
}

#[test]
fn every_exit_of_server_takes_a_list() {
    for (word, to) in [
        ("SERVER=telnet://h,-in(MAXIMA=conpch:3)", "telnet://h:23"),
        ("SERVER=dns://h/udp,-in(MAXIMA=conpch:3):-:-P53", "dns://h:53/udp"),
        ("SERVER=exec:cat | sort,-in(MAXIMA=conpch:3)", "exec:cat | sort"),
        ("SERVER=telnet://h:-,-in(MAXIMA=conpch:3)", "telnet://h:the entrance's port"),
        ("SERVER=socks,-in(MAXIMA=conpch:3)", "socks proxy"),
        ("SERVER=socks,-in(MAXIMA=conpch:3):-:10.0.0.0/8", "socks proxy"),
    ] {
        let plan = plan(&[word], &[]);
        assert_eq!(plan.exits[0].options.maxima.per_client, Some(3), "{word}");
        let shown = show::plan(&plan);
        assert!(shown.contains(to), "{shown}");
    }
}

#[test]
fn the_server_of_an_exit_may_stand_in_its_list() {
    let server = |host: &str, port| Target { host: host.into(), port };
    for (word, protocol, target) in [
        ("SERVER=http,-in(SERVER=http://hostX)", "http", server("hostX", 80)),
        ("SERVER=HTTP,-in(SERVER=http://[::1]:8080):-:-P80", "http", server("::1", 8080)),
        ("SERVER=ssh,-in(SERVER=ssh://h)", "ssh", server("h", 22)),
        ("SERVER=socks5,-in(TIMEOUT=io:5 SERVER=socks://h)", "socks", server("h", 1080)),
        ("SERVER=tcprelay,-in(SERVER=tcprelay://h:7)", "tcprelay", server("h", 7)),
    ] {
        let exit = exit(word, &[]);
        assert_eq!((exit.protocol.as_str(), exit.target()), (protocol, Some(&target)), "{word}");
        assert_eq!(exit.clients.is_some(), word.ends_with("-P80"), "{word}");
    }
}

#[test]
fn files_hold_options_of_an_exit() {
    // As the manual has it.
    let config = "# of the proxy\n\nPERMIT=http:127.0.0.0/8:*\n+=times\n";
    let files = [("config.cnf", config), ("times", "TIMEOUT=\"ask:5\"")];
    let options = exit("SERVER=http,-in(+=config.cnf)", &files).options;
    assert_eq!(permits(&options), ["PERMIT=http:127.0.0.0/8:*"]);
    assert_eq!(options.timeouts.unwrap().ask, Some(Duration::from_secs(5)));
    // Two of them, one with a blank in its name.
    let files = [("a b", "MAXIMA=conpch:1"), ("c", "MAXIMA=delegated:2")];
    let options = exit("SERVER=http://h,-in('+=a b' +=c)", &files).options;
    assert_eq!(options.maxima, Maxima { per_client: Some(1), together: Some(2), services: None });
    // Relative to the file of the exit itself.
    let files = [
        ("etc/all", "SERVER=\"http,-in(+=http/main TIMEOUT=io:9)\""),
        ("etc/http/main", "SERVER=http://hostX\n+=more"),
        ("etc/http/more", "MAXIMA=conpch:1"),
    ];
    let exit = exit("+=etc/all", &files);
    assert_eq!(exit.way, plan(&["SERVER=http://hostX,-in"], &[]).exits[0].way);
    assert_eq!(exit.options.maxima.per_client, Some(1));
}

/// The valid words of a list, as every error about others names them.
const MAY_STAND: &str = "in an option list may stand PERMIT=, RELIABLE=, AUTHORIZER=, \
                         MAXIMA=conpch and delegated, TIMEOUT=con, io, ask and lin, \
                         SERVER=proto://host and +=FILE";
const OUTSIDE: &str = "give it to the process itself, outside of the parentheses";
const OTHER_EXIT: &str = "only a server for this very exit may be named in its option list; write \
                          SERVER=proto://host[:port] there, and give another exit to the process \
                          itself, outside of the parentheses";

#[test]
fn what_may_not_stand_there_is_refused_with_the_remedy() {
    let of_process = |what: &str| format!("{what} the whole process's; {OUTSIDE}; {MAY_STAND}");
    let time = |item: &str| {
        let (what, _) = item.split_once(':').unwrap();
        format!(
            "{what} is a time of the whole process; give TIMEOUT={item} to the process itself, \
             outside of the parentheses; an exit may have con, lin, io, ask of its own"
        )
    };
    for (inner, wanted) in [
        ("-P9000", of_process("options are")),
        ("-v", of_process("options are")),
        ("-Fsockmux", of_process("options are")),
        ("--check", of_process("options are")),
        ("--log=json", of_process("options are")),
        ("PORT=8080", of_process("PORT= is")),
        ("DEST=h:1", of_process("DEST= is")),
        ("SOXCONF=noconndata", of_process("SOXCONF= is")),
        ("STLS=fcl", of_process("STLS= is")),
        ("TLSCONF=ca:a.pem", of_process("TLSCONF= is")),
        ("SERVER=sockmux", of_process("the persistent connection is")),
        ("SERVER=sockmux://h:1", of_process("the persistent connection is")),
        ("SERVER=sockmux:comm@x", of_process("the persistent connection is")),
        ("SERVER=telnet,-in", OTHER_EXIT.into()),
        ("SERVER=http://h,-in(+=x)", OTHER_EXIT.into()),
        ("SERVER=h:80", OTHER_EXIT.into()),
        ("TIMEOUT=acc:5", time("acc:5")),
        ("TIMEOUT=io:1,keepalive:5", time("keepalive:5")),
        ("TIMEOUT=hold:5", time("hold:5")),
        ("TIMEOUT=drain:5", time("drain:5")),
        ("TIMEOUT=udp:5", time("udp:5")),
        ("TIMEOUT=silence:5", time("silence:5")),
        ("TIMEOUT=cno:5", "`cno` is not a time that can be set; did you mean `con`?".into()),
        (
            "TIMEOUT=io:1 TIMEOUT=io:2",
            "io is already set to 1 s; keep one of the two io times".into(),
        ),
        (
            "MAXIMA=conpch:0",
            "`0` is not a number of streams; give 1 or more, as in conpch:100, or \
                             leave it out for any number"
                .into(),
        ),
        ("RELIABLE=10.0.0.0/99", "the mask `/99` does not fit 10.0.0.0; give /0 to /32".into()),
        ("RELIABLE=nowhere", "the host `nowhere` cannot be looked up".into()),
        ("PERMIT=http", "`http` has not three parts".into()),
        ("demo", format!("not NAME=value; {MAY_STAND}")),
        ("RELIABL=*", "`RELIABL` is not a parameter; did you mean `RELIABLE`?".into()),
        ("ELEPHANT=1", format!("`ELEPHANT` is not a parameter; {MAY_STAND}")),
        ("+=nowhere", "cannot read `nowhere`".into()),
        ("SERVER=http://h:x", "`x` is not a port".into()),
        ("SERVER=http://", "`http://` names no server".into()),
    ] {
        let word = format!("SERVER=http,-in({inner})");
        let message = read(&[&word], &[]).expect_err(inner);
        // The last word of the list is the one that is wrong.
        let last = inner.rsplit(' ').next().unwrap();
        let wanted = format!("{word}: {last}: {wanted}");
        assert!(message.starts_with(&wanted), "{message}\nis not\n{wanted}");
    }
}

#[test]
fn what_does_not_fit_the_exit_is_refused() {
    let leave_one = "leave one of them out";
    for (word, what, remedy) in [
        (
            "SERVER=http://h,-in(SERVER=http://h)",
            "the option list names a server, and the exit leads to a server already",
            leave_one,
        ),
        (
            "SERVER=exec:cat,-in(SERVER=http://h)",
            "the option list names a server, and the exit leads to a command already",
            leave_one,
        ),
        (
            "SERVER=http,-in(SERVER=telnet://h)",
            "the exit is for http, and its option list names a telnet server",
            "write the same protocol at both places",
        ),
        (
            "SERVER=http,-in(SERVER=http://h PERMIT=http:*:*)",
            "PERMIT=http:*:* says what a proxy may reach, and this exit is none",
            "leave it out, or name no server, as in SERVER=http,-in(PERMIT=http:*:*)",
        ),
        (
            "SERVER=http,-in(+=a",
            "the parenthesis behind ,-in is not closed",
            "write ,-in(option list), the whole between double quotes for the shell",
        ),
        (
            "SERVER=http,-in(+='a)",
            "the quote ' in the option list is not closed",
            "close it, or leave both out where no blank is to be kept",
        ),
        (
            "SERVER=http,-in(MAXIMA=conpch:1))",
            "`)` is not understood behind ,-in",
            "only (option list) and :-: and a host list may follow, as in ,-in(+=FILE), \
             ,-in:-:192.168.0.0/16 or ,-in:-:-P8023",
        ),
        (
            "SERVER=own,-in(MAXIMA=conpch:1)",
            "a proxy (`own,-in` without a server) is not supported in this version",
            "",
        ),
    ] {
        let message = read(&[word], &[]).expect_err(word);
        let wanted = format!("{word}: {what}; {remedy}");
        assert!(message.starts_with(&wanted), "{message}\nis not\n{wanted}");
    }
    let message = read(&["SERVER=http,-in(SERVER=http://h SERVER=http://h)"], &[]).unwrap_err();
    assert!(
        message.ends_with(": SERVER=http://h: a second server is named; leave one of them out")
    );
}

#[test]
fn faults_in_a_file_name_the_exit_the_file_and_the_line() {
    let outer = "SERVER=http,-in(+=x.cnf)";
    for (text, wanted) in [
        ("# proxy\n\nMAXIMA=conpch", "x.cnf:3: MAXIMA=conpch: `conpch` is not what:number"),
        ("-P9000", "x.cnf:1: -P9000: options are the whole process's"),
        ("PORT=1", "x.cnf:1: PORT=1: PORT= is the whole process's"),
        ("\n+=y", "x.cnf:2: +=y: cannot read `y`"),
        ("+=x.cnf", "x.cnf:1: +=x.cnf: the file includes itself: x.cnf -> x.cnf"),
        (outer, "x.cnf:1: SERVER=http,-in(+=x.cnf): only a server for this very exit"),
        ("PERMIT=\"a", "x.cnf:1: PERMIT=\"a: the quote is not closed"),
    ] {
        let message = read(&[outer], &[("x.cnf", text)]).expect_err(text);
        assert!(message.starts_with(&format!("{outer}: {wanted}")), "{message}");
    }
    // An exit in a file.
    let files = [("d/all", "\nSERVER=\"http,-in(+=x)\""), ("d/x", "\nTIMEOUT=x:1")];
    let message = read(&["+=d/all"], &files).unwrap_err();
    assert!(
        message.starts_with("d/all:2: SERVER=http,-in(+=x): d/x:2: TIMEOUT=x:1: `x` is not a time"),
        "{message}"
    );
}

#[test]
fn a_plan_shows_options_under_their_exit() {
    let plan = plan(
        &[
            "SERVER=http,-in(PERMIT=http,socks:127.0.0.1:* RELIABLE=10.0.0.0/8,!10.0.0.9 \
             MAXIMA=conpch:2,delegated:9 TIMEOUT=con:10,io:2,ask:0):-:-P80",
            "SERVER=exec:cat,-in(TIMEOUT=con:10)",
        ],
        &[],
    );
    let shown = show::plan(&plan);
    let wanted = "
exits       1. http proxy: where each client asks to go  for -P80
               only 10.0.0.0/8,!10.0.0.9
               at most 2 streams of each at once
               at most 9 streams of all at once
               permits http, socks to 127.0.0.1  for *
               times io 2 s, ask never
            2. exec:cat  for everybody
clients     this machine and its networks";
    assert!(shown.contains(wanted), "{shown}");
}
