//! What the process gives up at start: its user, and what its plan does not need.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use crate::testkit::engine::Leg;
use crate::testkit::net::check_new_echo;
use crate::testkit::program::{Program, command};
use crate::testkit::servers::Server;
use crate::testkit::skip::needs;
use crate::testkit::{DEADLINE, eventually};

/// Exit code when the command line is valid and the set-up fails.
const SET_UP_FAILED: i32 = 3;

/// A field of each thread of a process, as `/proc` has it.
fn fields(process: &str, name: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("it runs").flatten();
    let field = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    tasks.filter_map(field).collect()
}

/// System call filters of this process.
fn own_filters() -> usize {
    fields("self", "Seccomp_filters:")[0].parse().expect("a number")
}

/// Those that a program under test has by its start.
fn filters_before() -> usize {
    own_filters() + usize::from(Leg::current() == Leg::Refused)
}

/// Waits until each of its threads has so many more of them.
fn check_filters(program: &Program, more: usize) {
    let (process, wanted) = (program.pid().to_string(), (filters_before() + more).to_string());
    let all = fields(&process, "Seccomp_filters:");
    assert!(all.len() > 1 && all.iter().all(|filters| *filters == wanted), "{all:?}, not {wanted}");
}

#[test]
fn a_tunnel_works_behind_the_fence_that_all_of_its_threads_are_behind() {
    let server = Server::echo();
    let exit = format!("DEST=localhost:{}", server.address().port());
    let receptor = Program::start(&["-P127.0.0.1:0", &exit, "--sandbox", "auto"]);
    let link =
        format!("SERVER=sockmux://localhost:{}", receptor.address_of("receptor listening").port());
    let connector = Program::start(&[&link, "PORT=127.0.0.1:0", "--sandbox", "auto"]);
    connector.wait_for("tunnel up");
    check_new_echo(connector.address_of("entrance listening"), 1, 1_000_000);
    for program in [&receptor, &connector] {
        let sandbox = program.wait_for("sandbox ready")["sandbox"].clone();
        let wanted = "no core dumps, no new privileges, no commands, files only to look names up";
        assert_eq!(sandbox, wanted);
        check_filters(program, 2);
        let process = program.pid().to_string();
        assert!(fields(&process, "NoNewPrivs:").iter().all(|set| set == "1"));
        let messages = program.messages();
        let place = |end: &str| messages.iter().position(|message| message.ends_with(end));
        assert!(place("sandbox ready") < place("listening"), "{messages:?}");
    }
}

#[test]
fn the_fence_is_off_by_a_word_and_where_commands_are_run() {
    let open = Program::start(&["-P127.0.0.1:0", "DEST=127.0.0.1:9", "--sandbox", "off"]);
    assert_eq!(open.wait_for("sandbox ready")["sandbox"], "no sandbox");
    open.wait_for("receptor listening");
    check_filters(&open, 0);

    // Both with commands that have something to do.
    for (word, filters) in [("auto", 0), ("on", 1)] {
        let words = ["-P127.0.0.1:0", "SERVER=exec:cat,-in", "--sandbox", word];
        let receptor = Program::start(&words);
        let address = receptor.address_of("receptor listening");
        let link = format!("SERVER=sockmux://{address}");
        let connector = Program::start(&[&link, "PORT=127.0.0.1:0"]);
        connector.wait_for("tunnel up");
        check_new_echo(connector.address_of("entrance listening"), 1, 100_000);
        check_filters(&receptor, filters);
    }
}

/// What a kernel lacks that has no such fence.
const LANDLOCK: i64 = libc::SYS_landlock_create_ruleset;
const SECCOMP: i64 = libc::SYS_seccomp;

#[test]
fn a_kernel_without_a_part_of_it_is_told_of_in_one_line() {
    let plan = ["-P127.0.0.1:0", "DEST=127.0.0.1:9", "--engine", "epoll", "--sandbox"];
    let files = "files are not restricted by Landlock (this kernel has none";
    let calls =
        "system calls are not restricted (Error calling `seccomp`: Function not implemented";
    for (missing, parts, filters) in [
        (&[LANDLOCK][..], &[files][..], 3),
        (&[SECCOMP], &[calls], 1),
        (&[LANDLOCK, SECCOMP], &[files, calls], 1),
    ] {
        let words = [&plan[..], &["auto"]].concat();
        let receptor = Program::start_without(&words, missing);
        receptor.wait_for("receptor listening");
        let told = receptor.wait_for("sandbox incomplete");
        let lacking = told["lacking"].as_str().unwrap_or_default();
        assert!(parts.iter().all(|part| lacking.contains(part)), "{told}");
        assert_eq!(lacking.matches("; ").count() + 1, parts.len(), "{told}");
        assert_eq!((receptor.count("sandbox incomplete"), receptor.count("sandbox ready")), (1, 0));
        let all = fields(&receptor.pid().to_string(), "Seccomp_filters:");
        let wanted = filters + own_filters();
        assert!(all.iter().all(|filters| *filters == wanted.to_string()), "{all:?}");

        let words = [&plan[..], &["on"]].concat();
        let mut receptor = Program::start_without(&words, missing);
        assert_eq!(receptor.wait_exit(DEADLINE).code(), Some(SET_UP_FAILED));
        let text = receptor.log_text();
        assert!(text.contains("--sandbox on: ") && text.contains("leave --sandbox out"), "{text}");
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
}

#[test]
fn the_ports_are_opened_by_who_started_it_and_the_rest_is_another_users() {
    needs!(Namespaces);
    let directory = tempfile::tempdir().expect("a directory");
    // Nobody else may make a socket there, or find one.
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).expect("a mode");
    let socket = directory.path().join("socket");
    let server = Server::echo();
    let exit = format!("DEST=localhost:{}", server.address().port());
    let receptor = Program::start(&["-P127.0.0.1:0", &exit, "--user", "nobody"]);
    let address = receptor.address_of("receptor listening");
    let link = format!("SERVER=sockmux://localhost:{}", address.port());
    let unix = format!("PORT=unix:{}", socket.display());
    let words = [&link, "PORT=127.0.0.1:0", &unix, "--user", "65533:65532"];
    let connector = Program::start(&words);
    connector.wait_for("tunnel up");
    check_new_echo(connector.address_of("entrance listening"), 1, 100_000);
    UnixStream::connect(&socket).expect("the socket is there");
    let numbers = ["65533", "65532"].map(str::to_owned);
    for (program, [user, group]) in [(&receptor, numbers_of("nobody")), (&connector, numbers)] {
        let process = program.pid().to_string();
        for (field, wanted) in [
            ("Uid:", [&*user; 4].join(" ")),
            ("Gid:", [&*group; 4].join(" ")),
            ("Groups:", group),
            ("CapEff:", "0".repeat(16)),
            ("CapPrm:", "0".repeat(16)),
        ] {
            let all = fields(&process, field);
            assert!(all.len() > 1 && all.iter().all(|one| *one == wanted), "{field} {all:?}");
        }
    }
    assert_eq!(receptor.wait_for("user changed")["user"], "nobody");
}

/// A user's number and its group's.
fn numbers_of(user: &str) -> [String; 2] {
    ["-u", "-g"].map(|which| {
        let output = Command::new("id").args([which, user]).output().expect("id runs");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    })
}

/// Runs the program to its end: its exit code and its standard error.
fn refused(by: &str, words: &[&str]) -> (Option<i32>, String) {
    // By its descriptor: another user may not find the file by its name.
    let script = format!("exec 3<\"$0\"; exec {by} /proc/self/fd/3 \"$@\"");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).arg(command().get_program()).args(words);
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = Leg::current().spawn(&mut shell).expect("it starts");
    let ended = eventually(DEADLINE, || child.try_wait().expect("a child").is_some());
    if !ended {
        child.kill().expect("the child can be killed");
    }
    let status = child.wait().expect("the child can be waited for");
    let mut text = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut text).expect("text");
    assert!(ended, "{words:?} did not end: {text}");
    (status.code(), text)
}

#[test]
fn who_cannot_be_another_user_says_why_and_does_not_run() {
    let plan = ["-P127.0.0.1:0", "DEST=127.0.0.1:9", "--user"];
    for (user, wanted) in [
        ("no-such-user", "--user no-such-user: there is no such user; name one that"),
        ("nobody:no-such-group", "there is no such group; name one that the system knows"),
        ("4294900", "write --user 4294900:GROUP"),
    ] {
        let (code, text) = refused("", &[&plan[..], &[user]].concat());
        assert_eq!(code, Some(SET_UP_FAILED), "{text}");
        assert!(text.contains(wanted), "{text}");
    }
}

#[test]
fn only_root_can_be_another_user() {
    needs!(Namespaces);
    let by = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let words = ["-P127.0.0.1:0", "DEST=127.0.0.1:9", "--user", "65533:65532"];
    let (code, text) = refused(by, &words);
    assert_eq!(code, Some(SET_UP_FAILED), "{text}");
    let wanted = "--user 65533:65532: Operation not permitted; start the process as root";
    assert!(text.contains(wanted), "{text}");
}
