//! The command line: errors with their texts and exit codes, and printed output.

use std::io::Write;
use std::net::TcpListener;
use std::process::{Output, Stdio};
use std::time::Duration;

use crate::testkit::log::Log;
use crate::testkit::net::{check_new_echo, free_port};
use crate::testkit::program::{Program, command};
use crate::testkit::protocol::Protocol;
use crate::testkit::servers::Server;
use crate::testkit::tunnel::start_connector;
use crate::testkit::{DEADLINE, eventually};

/// Exit code of a command line that cannot be meant.
const BAD_COMMAND_LINE: i32 = 2;

/// Exit code when the command line is valid and the set-up fails.
const SET_UP_FAILED: i32 = 3;

/// How long a program may run that ends by itself; the demo in a debug build is the longest.
const RUN_DEADLINE: Duration = Duration::from_secs(120);

/// Runs the program to its end, which has to come by itself.
fn run(words: &[&str]) -> Output {
    let mut child = command()
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary under test starts");
    let errors = Log::follow(child.stderr.take().expect("a pipe"));
    let outputs = Log::follow(child.stdout.take().expect("a pipe"));
    let ended = eventually(RUN_DEADLINE, || child.try_wait().expect("a child").is_some());
    if !ended {
        child.kill().expect("the child can be killed");
    }
    let status = child.wait().expect("the child can be waited for");
    assert!(errors.wait_end(DEADLINE) && outputs.wait_end(DEADLINE));
    assert!(ended, "{words:?} did not end by itself:\n{}", errors.text());
    Output { status, stdout: outputs.text().into_bytes(), stderr: errors.text().into_bytes() }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Panics unless the program ends with `code` and its message has all of `parts` in it.
fn refused(words: &[&str], code: i32, parts: &[&str]) {
    let output = run(words);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{words:?}:\n{message}");
    for part in parts {
        assert!(message.contains(part), "{words:?}: no `{part}` in\n{message}");
    }
    assert!(!message.contains("panicked"), "{words:?}:\n{message}");
}

#[test]
fn bad_command_lines_name_the_word() {
    let table: &[(&[&str], &[&str])] = &[
        // Unknown words, with the one that may have been meant.
        (&["-P127.0.0.1:0", "PROT=9023"], &["PROT", "PORT"]),
        (&["-P127.0.0.1:0", "DST=127.0.0.1:22"], &["DST", "DEST"]),
        (&["-P127.0.0.1:0", "SEVRER=sockmux"], &["SEVRER", "SERVER"]),
        (&["-P127.0.0.1:0", "PORT=9023", "word"], &["word"]),
        (&["-P127.0.0.1:0", "PORT=9023", "--frobnicate"], &["--frobnicate"]),
        (&["-P127.0.0.1:0", "PORT=9023", "--log", "xml"], &["xml", "json"]),
        // Ports.
        (&["-P99999", "PORT=9023"], &["99999"]),
        (&["-P127.0.0.1:x", "PORT=9023"], &["-P127.0.0.1:x"]),
        (&["-P127.0.0.1:0", "PORT=abc"], &["PORT", "abc"]),
        (&["-P127.0.0.1:0", "PORT=65536"], &["65536"]),
        (&["-P127.0.0.1:0", "PORT=9030-9020"], &["9030-9020"]),
        (&["-P127.0.0.1:0", "PORT="], &["PORT"]),
        (&["-P127.0.0.1:0", "PORT=1-60000"], &["1-60000"]),
        (&["-P127.0.0.1:0", "PORT=53/sctp"], &["53/sctp"]),
        // Exits.
        (&["-P127.0.0.1:0", "DEST=127.0.0.1"], &["DEST", "127.0.0.1"]),
        (&["-P127.0.0.1:0", "DEST=127.0.0.1:0"], &["DEST", "127.0.0.1:0"]),
        (&["-P127.0.0.1:0", "DEST=:22"], &["DEST", ":22"]),
        (&["-P127.0.0.1:0", "DEST=127.0.0.1:22:10.0.0.0/99"], &["10.0.0.0/99"]),
        (&["-P127.0.0.1:0", "DEST=127.0.0.1:22:[5-"], &["[5-"]),
        (&["-P127.0.0.1:0", "SERVER=nosuch://127.0.0.1,-in"], &["nosuch"]),
        (&["-P127.0.0.1:0", "SERVER=telnet://127.0.0.1:99999,-in"], &["99999"]),
        // The persistent connection.
        (&["SERVER=sockmux://127.0.0.1:0", "PORT=9023"], &["sockmux://127.0.0.1:0"]),
        (&["SERVER=sockmux://:9000:9", "PORT=9023"], &["sockmux://:9000:9"]),
        (&["PORT=9023"], &["-P", "SERVER=sockmux://"]),
        (&["-P127.0.0.1:0", "SERVER=sockmux://127.0.0.1:9", "PORT=9023"], &["-P", "sockmux://"]),
        (
            &["SERVER=sockmux://127.0.0.1:9", "SERVER=sockmux://127.0.0.1:8", "PORT=9023"],
            &["sockmux://127.0.0.1:8"],
        ),
        (&["-P127.0.0.1:0"], &["PORT=", "DEST="]),
        (&["-P", "PORT=9023"], &["-P"]),
        // UDP where there can be none.
        (&["-P127.0.0.1:53/udp", "PORT=9023"], &["-P127.0.0.1:53/udp", "SERVER=udprelay://"]),
        (&["-P127.0.0.1:53", "SERVER=udprelay://127.0.0.2:53"], &["-P127.0.0.1:53/udp"]),
        (&["-P127.0.0.1:53/udp", "SERVER=tcprelay://127.0.0.2:53"], &["udprelay://127.0.0.2:53"]),
        // Options of the protocol, and times.
        (&["-P127.0.0.1:0", "PORT=9023", "SOXCONF=packsize:64"], &["packsize:64", "128"]),
        (&["-P127.0.0.1:0", "PORT=9023", "SOXCONF=packsize:17k"], &["packsize:17k"]),
        (&["-P127.0.0.1:0", "PORT=9023", "SOXCONF=packsize:big"], &["packsize:big"]),
        (&["-P127.0.0.1:0", "PORT=9023", "SOXCONF=protocol:2"], &["protocol:1", "protocol:0.3"]),
        (&["-P127.0.0.1:0", "PORT=9023", "SOXCONF=protocol"], &["protocol:1", "protocol:0.3"]),
        (&["-P127.0.0.1:0", "PORT=9023", "TIMEOUT=con:soon"], &["con:soon"]),
        (&["-P127.0.0.1:0", "PORT=9023", "TIMEOUT=con:-1"], &["con:-1"]),
        (&["-P127.0.0.1:0", "PORT=9023", "TIMEOUT=cno:5"], &["cno", "con"]),
        (&["-P127.0.0.1:0", "PORT=9023", "TIMEOUT=con"], &["TIMEOUT", "con"]),
        // Files.
        (&["+=/nonexistent/sockmux.conf"], &["/nonexistent/sockmux.conf"]),
        (&["+=/"], &["+=/"]),
    ];
    for (words, parts) in table {
        refused(words, BAD_COMMAND_LINE, parts);
    }
}

#[test]
fn no_words_at_all_say_what_could_be_given() {
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(BAD_COMMAND_LINE));
    assert!(stderr(&output).contains("--help"), "{}", stderr(&output));
}

#[test]
fn help_has_the_examples() {
    let output = run(&["--help"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0));
    for part in ["SERVER=sockmux://", "PORT=", "DEST=", "-P", "TIMEOUT=", "demo", "--check"] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    assert!(text.to_lowercase().contains("example"), "{text}");
}

#[test]
fn version_is_the_packages() {
    let output = run(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn check_prints_the_plan_and_opens_nothing() {
    // Taken: opening it would fail.
    let taken = TcpListener::bind("127.0.0.2:0").expect("loopback can be bound");
    let entrance = taken.local_addr().expect("an address").to_string();
    let output = run(&[
        "SERVER=sockmux://tunnel.example:9000",
        &format!("PORT={entrance}"),
        "PORT=127.0.0.2:53/udp",
        "DEST=db.example:5432:10.1.0.0/16",
        "DEST=ns.example:53/udp",
        "SERVER=http://web.example,-in",
        "TIMEOUT=hold:7",
        "SOXCONF=protocol:0.3",
        "--check",
    ]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for part in [
        "tunnel.example:9000",
        &entrance,
        "127.0.0.2:53/udp",
        "db.example:5432",
        "ns.example:53/udp",
        "web.example:80",
        "7",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    let protocol_of = |text: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("protocol "));
        line.map(|line| line.trim().to_owned()).unwrap_or_else(|| panic!("no protocol in\n{text}"))
    };
    assert_eq!(protocol_of(&text), "SockMux 0.3");
    let text = stdout(&run(&["-P127.0.0.1:0", "PORT=9023", "--check"]));
    assert!(protocol_of(&text).starts_with("SockMux 1 "), "{text}");
    refused(&["-P127.0.0.1:0", "PORT=x", "--check"], BAD_COMMAND_LINE, &["PORT", "x"]);
}

#[test]
fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.2:0").expect("loopback can be bound");
    let address = taken.local_addr().expect("an address").to_string();
    refused(&[&format!("-P{address}"), "DEST=127.0.0.1:9"], SET_UP_FAILED, &[&address]);
    refused(&["-P127.0.0.1:0", &format!("PORT={address}")], SET_UP_FAILED, &[&address]);
}

#[test]
fn an_address_of_another_machine_is_named() {
    // 192.0.2.0/24 is for documentation: no machine has it.
    refused(&["-P192.0.2.1:0", "DEST=127.0.0.1:9"], SET_UP_FAILED, &["192.0.2.1"]);
    refused(&["-Pno-such-name.invalid:0", "DEST=127.0.0.1:9"], SET_UP_FAILED, &["no-such-name"]);
}

/// A parameter file with these lines.
fn file(lines: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(lines.as_bytes()).expect("written");
    file
}

#[test]
fn parameters_from_files_count_like_words() {
    let server = Server::echo();
    let inner = file(&format!("# the exit\n\nDEST={}\n", server.address()));
    let outer = file(&format!("-P127.0.0.1:0\n+={}\n", inner.path().display()));
    let receptor = Program::start(&[format!("+={}", outer.path().display())]);
    let connector = start_connector(
        Protocol::V1,
        receptor.address_of("receptor listening"),
        &["PORT=127.0.0.1:0"],
    );
    check_new_echo(connector.address_of("entrance listening"), 1, 1000);
}

#[test]
fn errors_in_files_name_file_and_line() {
    let bad = file("# ports\n\n-P127.0.0.1:0\nPORT=80x\n");
    let path = bad.path().display().to_string();
    refused(&[&format!("+={path}")], BAD_COMMAND_LINE, &[&format!("{path}:4"), "PORT", "80x"]);

    let outer = file(&format!("-P127.0.0.1:0\n+={path}\n"));
    let outer = outer.path().display().to_string();
    refused(&[&format!("+={outer}")], BAD_COMMAND_LINE, &[&format!("{path}:4")]);
}

#[test]
fn a_file_that_includes_itself_is_an_error() {
    let mut looping = file("-P127.0.0.1:0\nPORT=9023\n");
    let path = looping.path().display().to_string();
    writeln!(looping, "+={path}").expect("written");
    refused(&[&format!("+={path}")], BAD_COMMAND_LINE, &[&path]);
}

#[test]
fn several_words_of_one_name_all_count() {
    let server = Server::echo();
    let address = free_port([127, 0, 0, 2].into());
    let receptor = Program::start(&[
        format!("-P{address}"),
        "PORT=127.0.0.1:0".to_owned(),
        "PORT=127.0.0.1:0".to_owned(),
        "SOXCONF=packsize:1024".to_owned(),
        "SOXCONF=noconndata".to_owned(),
    ]);
    let _connector =
        start_connector(Protocol::V03, address, &[format!("DEST={}", server.address())]);
    for nth in [1, 2] {
        check_new_echo(receptor.nth_address_of("entrance listening", nth), 1, 100_000);
    }
}

#[test]
fn what_the_original_has_and_this_version_has_not_is_said_so() {
    let table: &[&[&str]] =
        &[&["-P127.0.0.1:0", "SERVER=nntp,-in"], &["-P127.0.0.1:0", "PORT=9023", "STLS=-fcl"]];
    for words in table {
        refused(words, BAD_COMMAND_LINE, &["not supported"]);
    }
}

#[test]
fn without_log_json_the_log_is_text() {
    let mut child = command()
        .args(["-P127.0.0.1:0", "DEST=127.0.0.1:9"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary under test starts");
    let log = Log::follow(child.stderr.take().expect("a pipe"));
    let listening = log.wait_for(DEADLINE, |lines| {
        lines
            .iter()
            .find_map(|line| line.as_str().filter(|l| l.contains("receptor listening")))
            .map(str::to_owned)
    });
    child.kill().expect("the child can be killed");
    child.wait().expect("the child can be waited for");
    let line = listening.unwrap_or_else(|| panic!("nothing said:\n{}", log.text()));
    assert!(line.contains("127.0.0.1:") && !line.contains('\u{1b}'), "{line}");
}

#[test]
fn the_demo_moves_and_verifies_data() {
    let output = run(&["demo"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}\n{}", stderr(&output));
    for part in ["GiB", "p50", "p99"] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
}
