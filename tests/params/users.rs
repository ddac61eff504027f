//! `AUTHORIZER=`: users of proxies, and where their passwords may be seen.

use std::ffi::OsString;

use sockmux_uring::cli::invocation;
use sockmux_uring::cli::plan::{Proxy, User};
use sockmux_uring::cli::show;

use crate::one_file::{OneFile, run, run_with};

const LINE: [&str; 3] = ["-P9000", "SERVER=socks,-in:-:-P1080", "SERVER=http,-in"];

fn with<'w>(words: &[&'w str]) -> Vec<&'w str> {
    [&LINE, words].concat()
}

fn user(name: &str, password: &str) -> User {
    User { name: name.into(), password: password.into() }
}

fn message(args: &[&str], file: &str) -> String {
    let words = ["sockmux-uring"].iter().chain(args).map(OsString::from);
    invocation::parse(words, &OneFile(file), &mut |_| unreachable!()).unwrap_err().to_string()
}

#[test]
fn each_proxy_has_its_users() {
    let file = "AUTHORIZER=\"-list{a:pw1,b:pw2}\"\nAUTHORIZER=-list{c:pw3}:http\n";
    let plan = run_with(&with(&["+=users"]), file);
    assert_eq!(
        plan.users(&plan.exits[0], Proxy::Socks),
        Some(vec![user("a", "pw1"), user("b", "pw2")])
    );
    let of_http = vec![user("a", "pw1"), user("b", "pw2"), user("c", "pw3")];
    assert_eq!(plan.users(&plan.exits[1], Proxy::Http), Some(of_http));
    assert_eq!(plan.notices, [""; 0]);
    let shown = show::plan(&plan);
    for line in ["users       a, b  of socks, http\n", "            c  of http\n"] {
        assert!(shown.contains(line), "{line} is missing in\n{shown}");
    }
    for text in [shown, format!("{plan:?}")] {
        assert!(!text.contains("pw"), "{text}");
    }
    let plan = run(&LINE);
    assert_eq!(plan.users(&plan.exits[1], Proxy::Http), None);
}

#[test]
fn an_exit_has_its_own_users() {
    let exit = "SERVER=socks,-in(+=users):-:-P1081";
    let file = "AUTHORIZER=-list{c:pw3,d:pw4}\n";
    let plan = run_with(&["-P9000", "SERVER=socks,-in:-:-P1080", exit], file);
    assert_eq!(plan.users(&plan.exits[0], Proxy::Socks), None);
    assert_eq!(
        plan.users(&plan.exits[1], Proxy::Socks),
        Some(vec![user("c", "pw3"), user("d", "pw4")])
    );
    assert_eq!(plan.notices, [""; 0]);
    let shown = show::plan(&plan);
    assert!(shown.contains("   users c, d  of socks, http\n"), "{shown}");
    // Instead of the process's users, which then are never authenticated.
    let plan = run_with(&["-P9000", exit, "AUTHORIZER=-list{a:pw1}"], file);
    assert_eq!(
        plan.users(&plan.exits[0], Proxy::Socks),
        Some(vec![user("c", "pw3"), user("d", "pw4")])
    );
    let notices = ["shown to everybody", "AUTHORIZER= has no effect"];
    assert!(
        notices.iter().all(|wanted| plan.notices.iter().any(|notice| notice.contains(wanted))),
        "{:?}",
        plan.notices
    );
    for (exit, wanted) in [
        ("SERVER=telnet,-in(+=users)", "AUTHORIZER= names users of a proxy that this exit is not"),
        ("SERVER=tcprelay://h:1,-in(+=users)", "AUTHORIZER= names users"),
        ("SERVER=socks,-in(AUTHORIZER=-list{a:pw1)", "AUTHORIZER=...: the value is not a list"),
    ] {
        let message = message(&["-P9000", exit], file);
        assert!(message.contains(wanted), "{exit}: {message}");
        assert!(!message.contains("pw"), "{message}");
    }
}

#[test]
fn what_is_not_as_it_seems_is_said() {
    let plan = run(&with(&["AUTHORIZER=-list{a:secret}"]));
    assert_eq!(plan.notices.len(), 1);
    assert!(plan.notices[0].contains("ps"), "{:?}", plan.notices);
    let shown = show::plan(&plan);
    assert!(shown.contains("of AUTHORIZER= are shown to everybody"), "{shown}");
    let socks = "SERVER=socks,-in";
    for (exit, list, wanted) in [
        ("SERVER=telnet,-in:-:-P23", ":socks", "SERVER=telnet,-in:-:-P23 asks for no user"),
        ("SERVER=http,-in:-:-P80", ":socks5", "SERVER=socks,-in lets in SOCKS 4, which asks"),
    ] {
        let file = format!("AUTHORIZER=-list{{a:secret}}{list}");
        let plan = run_with(&["-P9000", exit, socks, "+=users"], &file);
        assert!(plan.notices.iter().any(|notice| notice.contains(wanted)), "{:?}", plan.notices);
    }
}

/// A user list is relied on: with one, a proxy that does not authenticate is refused.
#[test]
fn users_that_nobody_would_be_asked_for_are_refused() {
    let socks = "SERVER=socks,-in:-:-P1080";
    for (words, list, wanted) in [
        (&["-P9000", "DEST=h:1"][..], "", "applies to no proxy"),
        (&["-P9000", "DEST=h:1"], ":socks", "applies to no proxy"),
        (&["-P9000", "PORT=1"], "", "applies to no proxy"),
        (&["-P1", "SERVER=tcprelay://h:1"], "", "applies to no proxy"),
        (&["-P1/udp", "SERVER=udprelay://h:1"], ":http", "applies to no proxy"),
        (&["-P9000", "SERVER=http,-in"], ":socks", "applies to no proxy"),
        (&["-P9000", "SERVER=socks4,-in"], ":socks5", "applies to no proxy"),
        (
            &["-P9000", socks, "DEST=h:1"],
            "",
            "DEST=h:1 authenticates no user, and admits all clients",
        ),
        (
            &["-P9000", socks, "SERVER=ftp://h,-in"],
            ":*",
            "SERVER=ftp://h,-in authenticates no user",
        ),
        (
            &["-P9000", socks, "SERVER=exec:cat,-in"],
            "",
            "SERVER=exec:cat,-in authenticates no user",
        ),
        (&["-P9000", socks, "SERVER=socks4,-in"], "", "SERVER=socks4,-in authenticates no user"),
        (&["-P9000", socks, "SERVER=telnet,-in"], "", "SERVER=telnet,-in authenticates no user"),
    ] {
        let file = format!("AUTHORIZER=-list{{a:secret}}{list}");
        let message = message(&[words, &["+=users"]].concat(), &file);
        assert!(message.contains(wanted), "{words:?}: {message}");
        assert!(message.contains("users:1: ") && !message.contains("secret"), "{message}");
    }
    // A list that names its proxies applies to no other exit.
    let named = "AUTHORIZER=-list{a:secret}:socks5,http";
    let plan = run_with(&["-P9000", "SERVER=socks5,-in:-:-P1080", "DEST=h:1", "+=users"], named);
    assert_eq!(plan.notices, [""; 0]);
    assert_eq!(plan.users(&plan.exits[0], Proxy::Socks5), Some(vec![user("a", "secret")]));
}

/// Users of SOCKS 5 are none of SOCKS 4, and the other way round.
#[test]
fn each_version_of_socks_has_its_users() {
    let plan = run_with(&["-P1", "SERVER=socks,-in", "+=users"], "AUTHORIZER=-list{a:b}:socks5");
    assert_eq!(plan.users(&plan.exits[0], Proxy::Socks5), Some(vec![user("a", "b")]));
    assert_eq!(plan.users(&plan.exits[0], Proxy::Socks4), None);
    let plan = run_with(&["-P1", "SERVER=socks,-in", "+=users"], "AUTHORIZER=-list{a:b}:socks");
    assert_eq!(plan.users(&plan.exits[0], Proxy::Socks4), Some(vec![user("a", "b")]));
}

#[test]
fn no_message_has_a_password() {
    for (line, wanted) in [
        ("AUTHORIZER=-list{a:secret", "users:2: AUTHORIZER=...: the value is not a list of users"),
        ("AUTHORIZER=secret", "users:2: AUTHORIZER=...: "),
        ("AUTHORIZER=-list{secret}", "user 1 of the list has no colon"),
        ("AUTHORIZER=\"-list{a:secret}", "the quote is not closed"),
        ("AUTHORISER=-list{a:secret}", "did you mean `AUTHORIZER`?"),
        ("AUTHORIZER -list{a:secret}", "not NAME=value"),
        ("-list{a:secret}", "users:2: "),
        ("-P1 AUTHORIZER=-list{a:secret}", "users:2: "),
    ] {
        let message = message(&with(&["+=users"]), &format!("\n{line}\n"));
        assert!(message.contains(wanted), "{line}: {message}");
        assert!(!message.contains("secret"), "{message}");
    }
}
