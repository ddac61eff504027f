//! What passes, what does not, and how it ends.

use super::*;
use crate::limits::FTP_LINE_BYTES;

#[test]
fn lines_pass_both_ways() {
    let events = [
        client("user me@home\r\n"),
        server("331-Say\r\n all\r\n331 the rest\r\n"),
        client("PASS x\nRETR a b \r\n"),
        server("230 In\r\n150 Here\r\n226 Done\r\nnot FTP, but text\n"),
    ];
    let expected = [
        to_server("user me@home\r\n"),
        to_client("331-Say\r\n all\r\n331 the rest\r\n"),
        to_server("PASS x\r\nRETR a b \r\n"),
        to_client("230 In\r\n150 Here\r\n226 Done\r\nnot FTP, but text\n"),
    ];
    assert_eq!(session(&Scene::PLAIN, &events), expected);
}

#[test]
fn the_greeting_passes_and_commands_wait_for_it() {
    let events = [
        client("USER a\r\n"),
        Event::Connected,
        server("120 Soon\r\n"),
        client("PASS b\r\n"),
        server("220-Hello\r\n220 you\r\n"),
    ];
    let expected =
        [to_client("120 Soon\r\n220-Hello\r\n220 you\r\n"), to_server("USER a\r\nPASS b\r\n")];
    assert_eq!(script(&Scene::PLAIN, &events)[1..], expected);
}

#[test]
fn a_server_that_is_not_reached() {
    let why = "Cannot connect to ftp.example:21: nobody listens";
    let expected = [
        to_client(&format!("421 {why}\r\n")),
        ProxyStep::Note(format!("FTP gave up: {why}")),
        ProxyStep::EndClient,
    ];
    assert_eq!(script(&Scene::PLAIN, &[Event::Fails])[1..], expected);
}

#[test]
fn encryption_is_refused_in_its_turn_and_not_offered() {
    let events = [
        client("FEAT\r\nAUTH TLS\r\nPBSZ 0\r\nNOOP\r\n"),
        server("211-Features:\r\n AUTH TLS;TLS-C\r\n EPSV\r\n PBSZ\r\n PROT\r\n211 End\r\n"),
        server("200 Yes\r\n"),
    ];
    let expected = [
        to_server("FEAT\r\nNOOP\r\n"),
        to_client(
            "211-Features:\r\n EPSV\r\n211 End\r\n\
             534 Encryption would hide where data connections go: use FTP without TLS through this \
             exit, or an exit that passes everything\r\n\
             503 There is no encryption here\r\n\
             200 Yes\r\n",
        ),
    ];
    assert_eq!(session(&Scene::PLAIN, &events), expected);
}

#[test]
fn a_transfer_is_broken_off_by_what_telnet_has_for_it() {
    let events = [Event::Client(b"RETR a\r\n\xff\xf4\xff\xf2ABOR\r\n\xff\xf4\xffABOR\r\n")];
    let expected =
        [ProxyStep::ToServer(b"RETR a\r\n\xff\xf4\xff\xf2ABOR\r\n\xff\xf4\xff\xf2ABOR\r\n".into())];
    assert_eq!(session(&Scene::PLAIN, &events), expected);
}

#[test]
fn what_is_no_command() {
    let events = [Event::Client(b"STOR a\rPORT 1\r\n\r\nA\0\r\nPO\xff\xffRT 1\n\xe4\r\n")];
    let expected = [to_client(&"500 This is no command\r\n".repeat(5))];
    assert_eq!(session(&Scene::PLAIN, &events), expected);
}

#[test]
fn lines_that_are_too_long() {
    let long = "x".repeat(FTP_LINE_BYTES);
    let expected = [to_client("500 The line is too long\r\n"), ProxyStep::EndClient];
    assert_eq!(session(&Scene::PLAIN, &[client(&long), client("NOOP\r\n")]), expected);
    let why = "A line of the server's is too long";
    let expected = [
        to_client(&format!("421 {why}\r\n")),
        ProxyStep::Note(format!("FTP gave up: {why}")),
        ProxyStep::EndClient,
    ];
    assert_eq!(session(&Scene::PLAIN, &[server(&long)]), expected);
}

#[test]
fn a_server_that_does_not_speak_ftp() {
    let events = [Event::Connected, Event::Server(b"\x15\x03\x03\0\x02\x02\n")];
    let steps = script(&Scene::PLAIN, &events);
    assert_eq!(steps[1], to_client("421 The server does not speak FTP\r\n"));
    assert_eq!(steps.last(), Some(&ProxyStep::EndClient));
}

#[test]
fn the_end_of_the_server_and_its_421() {
    let ends =
        session(&Scene::PLAIN, &[client("QUIT\r\n"), server("221 Bye\r\n"), Event::ServerEnds]);
    assert_eq!(ends, [to_server("QUIT\r\n"), to_client("221 Bye\r\n"), ProxyStep::EndClient]);
    let silent = session(&Scene::PLAIN, &[client("RETR a\r\n"), server("15"), Event::ServerEnds]);
    let said = to_client("421 The server has ended the connection\r\n");
    assert_eq!(silent, [to_server("RETR a\r\n"), said, ProxyStep::EndClient]);
    let asleep = session(&Scene::PLAIN, &[server("421-Too\r\n421 long\r\n"), client("NOOP\r\n")]);
    assert_eq!(asleep, [to_client("421-Too\r\n421 long\r\n"), ProxyStep::EndClient]);
}

#[test]
fn a_client_that_ends_is_answered_to_the_end() {
    let events = [
        client("RETR a\r\nAUTH TLS\r\nhalf a li"),
        Event::ClientEnds,
        server("150 Here\r\n"),
        server("226 Done\r\n"),
        Event::ServerEnds,
    ];
    let steps = session(&Scene::PLAIN, &events);
    let Some(ProxyStep::ToClient(said)) = steps.get(1) else { panic!("{steps:?}") };
    assert!(said.starts_with(b"150 Here\r\n226 Done\r\n534 "), "{steps:?}");
    assert_eq!(steps[2..], [ProxyStep::EndServer, ProxyStep::EndClient]);
    let idle = session(&Scene::PLAIN, &[Event::ClientEnds, server("200 Late\r\n")]);
    assert_eq!(idle, [ProxyStep::EndServer, to_client("200 Late\r\n")]);
}

#[test]
fn what_waits_for_answers_is_bounded() {
    let mut ftp = Scene::PLAIN.conversation();
    let mut steps = Vec::new();
    ftp.begin(&mut steps);
    assert!(!ftp.takes_client());
    let at = "192.0.2.1:21".parse().expect("an address");
    ftp.connected(Ok((at, at)), &mut steps);
    assert!(!ftp.takes_client(), "the greeting is awaited");
    ftp.from_server(GREETING.as_bytes(), &mut steps);
    assert!(ftp.takes_client());
    steps.clear();
    ftp.from_client(&b"NOOP\r\n".repeat(FTP_PENDING_MAX + 1), &mut steps);
    assert_eq!(steps, [to_server(&"NOOP\r\n".repeat(FTP_PENDING_MAX))]);
    assert!(!ftp.takes_client());
    steps.clear();
    ftp.from_server(b"200 Yes\r\n", &mut steps);
    assert_eq!(steps, [to_client("200 Yes\r\n"), to_server("NOOP\r\n")]);
    steps.clear();
    ftp.from_client(&vec![b'x'; PROXY_HEAD_BYTES + 1], &mut steps);
    assert_eq!(steps[0], to_client("421 Too much was said ahead of the answers\r\n"));
    assert_eq!(steps.last(), Some(&ProxyStep::EndClient));
}

#[test]
fn nobody_is_refused_for_ever() {
    let enough = "PROT P\r\n".repeat(FTP_OWN_ANSWERS_MAX as usize - 1);
    let steps = play(
        &Scene::PLAIN,
        &[
            Event::Connected,
            server(GREETING),
            client(&enough),
            client("NOOP\r\n"),
            server("200 Yes\r\n"),
            client(&enough),
            client("PROT P\r\n"),
        ],
        |_, bytes| vec![bytes],
    );
    let Some(ProxyStep::ToClient(said)) = steps.get(3) else { panic!("{steps:?}") };
    assert!(said.ends_with(b"421 That is enough in vain\r\n"));
    assert_eq!(steps.last(), Some(&ProxyStep::EndClient));
}
