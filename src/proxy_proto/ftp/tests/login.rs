//! Where the client names the server.

use super::*;

const ASKS: Scene = Scene { asks: true, ..Scene::PLAIN };
const OURS: &str = "220 FTP proxy at relay: say USER name@host[:port]\r\n";

fn connect(host: &str, port: u16) -> ProxyStep {
    ProxyStep::Connect(Target { host: host.into(), port })
}

#[test]
fn the_login_says_which_server() {
    for (said, name, host, port) in [
        ("USER me@h", "me", "h", 21),
        ("user me@home@h:2121", "me@home", "h", 2121),
        ("USER me@[::1]:7", "me", "::1", 7),
    ] {
        let said = format!("{said}\r\nPASS x\r\n");
        let events = [
            client(&said),
            Event::Connected,
            server("120 Soon\r\n220-Hello\r\nyou\r\n220 there\r\n"),
            server("331 Who?\r\n"),
        ];
        let expected = [
            to_client(OURS),
            connect(host, port),
            to_server(&format!("USER {name}\r\nPASS x\r\n")),
            to_client("331 Who?\r\n"),
        ];
        assert_eq!(script(&ASKS, &events), expected, "{said}");
    }
}

#[test]
fn what_is_said_before_the_login() {
    let said = "FEAT\r\nNOOP\r\nHELP\r\nPASS x\r\nOPTS UTF8 ON\r\nPASV\r\nPROT P\r\nUSER me\r\n\
                USER @h\r\nUSER a@b c\r\nQUIT\r\nNOOP\r\n";
    let expected = "530 Say USER name@host first\r\n\
                    200 Done\r\n\
                    214 Say USER name@host or USER name@host:port\r\n\
                    503 Say USER name@host first\r\n\
                    530 Say USER name@host first\r\n\
                    530 Say USER name@host first\r\n\
                    503 There is no encryption here\r\n\
                    530 Say USER name@host or USER name@host:port\r\n\
                    530 No name stands before the @\r\n\
                    530 \"b c\" is not a host\r\n\
                    221 Bye\r\n";
    let steps = script(&ASKS, &[client(said)]);
    assert_eq!(steps, [to_client(&[OURS, expected].concat()), ProxyStep::EndClient]);
}

#[test]
fn a_server_that_is_not_there_or_does_not_want() {
    let note = |why: &str| ProxyStep::Note(format!("FTP gave up: {why}"));
    let why = "Cannot connect to h:21: nobody listens";
    let expected = [
        to_client(OURS),
        connect("h", 21),
        to_client(&format!("421 {why}\r\n")),
        note(why),
        ProxyStep::EndClient,
    ];
    assert_eq!(script(&ASKS, &[client("USER a@h\r\nPASS x\r\n"), Event::Fails]), expected);
    for refusal in ["421 Too many\r\n", "530-Go\r\n530 Too many\r\n"] {
        let why = "The server serves nobody now: Too many";
        let events = [client("USER a@h\r\n"), Event::Connected, server(refusal)];
        let expected = [to_client(&format!("421 {why}\r\n")), note(why), ProxyStep::EndClient];
        assert_eq!(script(&ASKS, &events)[2..], expected);
    }
}

#[test]
fn another_login_on_the_same_connection() {
    let events = [
        client("USER a@h\r\n"),
        Event::Connected,
        server("220 Hello\r\n530 No\r\n"),
        client("USER b@h\r\nUSER c\r\nUSER d@g\r\n"),
    ];
    let expected = [to_client("530 No\r\n"), to_server("USER b\r\nUSER c\r\n")];
    let steps = script(&ASKS, &events);
    assert_eq!(steps[3..], expected);
    let events = [&events[..], &[server("331 b\r\n331 c\r\n")]].concat();
    let answer = "331 b\r\n331 c\r\n530 Another host needs another connection\r\n";
    assert_eq!(script(&ASKS, &events)[5..], [to_client(answer)]);
}

#[test]
fn a_client_that_ends_or_says_nothing() {
    let ended = script(&ASKS, &[client("NOOP\r\nUSER a@"), Event::ClientEnds]);
    assert_eq!(ended, [to_client(&[OURS, "200 Done\r\n"].concat()), ProxyStep::EndClient]);
    let later = script(
        &ASKS,
        &[client("USER a@h\r\n"), Event::ClientEnds, Event::Connected, server("220 Hello\r\n")],
    );
    assert_eq!(later[2..], [to_server("USER a\r\n")]);
    let silent = script(&ASKS, &[Event::TimesOut]);
    let said = [OURS, "421 No host was named in time\r\n"].concat();
    assert_eq!(silent[0], to_client(&said));
    assert_eq!(silent.last(), Some(&ProxyStep::EndClient));
    let logged_in = script(
        &ASKS,
        &[client("USER a@h\r\n"), Event::Connected, server("220 Hello\r\n"), Event::TimesOut],
    );
    assert_eq!(logged_in[2..], [to_server("USER a\r\n")]);
}
