//! `--user` and `--sandbox`, and what plans need behind the fence.

use sockmux_uring::cli::fence::{Fence, Needs};
use sockmux_uring::cli::plan::{Privileges, RunAs, Sandbox};
use sockmux_uring::cli::show;

use crate::one_file::{run, run_with};

const SERVER: [&str; 2] = ["-P9000", "DEST=127.0.0.1:9"];

#[test]
fn who_the_process_goes_on_as_and_how_far_it_is_fenced_in() {
    assert_eq!(run(&SERVER).privileges, Privileges { user: None, sandbox: Sandbox::Auto });
    let user = |user: &str, group: Option<&str>| {
        let group = group.map(str::to_owned);
        Some(RunAs { user: user.to_owned(), group })
    };
    let plan = run(&[&SERVER[..], &["--user", "a:b", "--sandbox", "off"]].concat());
    let wanted = Privileges { user: user("a", Some("b")), sandbox: Sandbox::Off };
    assert_eq!(plan.privileges, wanted);
    // An argument outdoes a file.
    let plan = run_with(&["+=conf", "--user=c", "-P9000"], "--user a\n--sandbox on\nDEST=h:1\n");
    assert_eq!(plan.privileges, Privileges { user: user("c", None), sandbox: Sandbox::On });
}

#[test]
fn what_a_plan_needs() {
    let names = Fence::Narrow(Needs { names: true, ..Needs::default() });
    let none = Fence::Narrow(Needs::default());
    for (words, wanted) in [
        (&["-P9000", "DEST=127.0.0.1:9"][..], &none),
        (&["-P9000", "DEST=unix:/run/a"], &none),
        (&["SERVER=sockmux://[::1]:9000", "PORT=1"], &none),
        (&["-P9000", "PORT=h:1", "RELIABLE=.localnet,10.0.0.1"], &none),
        (&["-P81", "SERVER=tcprelay://[::1]:80"], &none),
        (&["SERVER=sockmux://h:9000", "PORT=1"], &names),
        (&["-P9000", "DEST=localhost:9"], &names),
        (&["-P9000", "DEST=h:-"], &names),
        (&["-P9000", "DEST=h:53/udp"], &names),
        (&["-P9000", "SERVER=ftp://h,-in"], &names),
        (&["-P9000", "SERVER=socks,-in"], &names),
        (&["-P80", "SERVER=http"], &names),
        (&["-P80", "SERVER=tcprelay://h:80"], &names),
        (&["-P9000", "PORT=1", "RELIABLE=*.example.org"], &names),
        (&["-P9000", "DEST=127.0.0.1:9:*.example.org"], &names),
        (&["-P9000", "DEST=127.0.0.1:9", "PERMIT=*:*:*.example.org"], &names),
        (&["-P9000", "SERVER=tcprelay://127.0.0.1:9,-in(RELIABLE=*.example.org)"], &names),
        (&["-P9000", "DEST=127.0.0.1:9", "SERVER=exec:cat,-in"], &Fence::Dumps),
        (&["SERVER=sockmux:proc@cat", "PORT=1"], &Fence::Dumps),
        (&["-P9000", "SERVER=exec:cat,-in", "--sandbox", "on"], &Fence::Wide),
        (&["-P9000", "DEST=h:9", "--sandbox", "on"], &names),
        (&["-P9000", "DEST=h:9", "--sandbox", "off"], &Fence::Open),
        (&["-P9000", "SERVER=exec:cat,-in", "--sandbox", "off"], &Fence::Open),
    ] {
        assert_eq!(Fence::of(&run(words)), *wanted, "{words:?}");
    }
    let files = |opened: &[&str], removed: &[&str]| {
        let [opened, removed] =
            [opened, removed].map(|paths| paths.iter().map(Into::into).collect());
        Fence::Narrow(Needs { opened, removed, ..Needs::default() })
    };
    let fifos = ["SERVER=sockmux:commin@a", "SERVER=sockmux:commout@/b", "PORT=unix:/run/c"];
    assert_eq!(Fence::of(&run(&fifos)), files(&["a", "/b"], &["/run/c"]));
    let device = ["SERVER=sockmux:comm@/dev/ttyS0?baud=9600", "PORT=1"];
    assert_eq!(Fence::of(&run(&device)), files(&["/dev/ttyS0"], &[]));
}

#[test]
fn the_check_shows_both() {
    let shown = |words: &[&str]| show::plan(&run(words));
    for (words, wanted) in [
        (&["-P9000", "DEST=h:1"][..], "no commands, files only to look names up\n"),
        (&["-P9000", "DEST=[::1]:1"], "no core dumps, no new privileges, no commands, no files\n"),
        (&["-P9000", "PORT=unix:/a", "DEST=h:1"], "to look names up and to remove Unix sockets\n"),
        (
            &["-P9000", "PORT=1", "STLS=fcl"],
            "no commands, files only to read the peers file again\n",
        ),
        (&["SERVER=sockmux:comm@/dev/ttyS0", "PORT=1"], "files only to open the link again\n"),
        (&["-P9000", "SERVER=exec:cat,-in"], "privileges  no core dumps; commands would inherit"),
        (&["-P9000", "DEST=h:1", "--sandbox", "off"], "privileges  no sandbox\n"),
        (&["-P80", "SERVER=tcprelay://h:1", "--user", "a"], "privileges  user a, once the ports"),
    ] {
        assert!(shown(words).contains(wanted), "{words:?}: {}", shown(words));
    }
}
