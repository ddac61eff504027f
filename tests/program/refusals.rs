//! Whoever is not to come gets no tunnel. Both ends say why, each in a line that tells its operator
//! what to do; no client is served; and both go on until they are told to stop.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use crate::testkit::DEADLINE;
use crate::testkit::authority::{Authority, FUTURE, PAST};
use crate::testkit::keys::Keys;
use crate::testkit::net::{check_new_echo, connect, read_to_end_of};
use crate::testkit::program::Program;
use crate::testkit::protocol::Protocol;
use crate::testkit::servers::Server;
use crate::testkit::services::{output_of, program};
use crate::testkit::skip::needs;
use crate::testkit::tap::Tap;
use crate::testkit::tunnel::{Tunnel, start_connector, start_receptor};

const ENTRANCE: &str = "PORT=127.0.0.1:0";
const NOT_UP: &str = "tunnel did not come up";

/// What the log of an end has to say, in one line.
type Said<'a> = &'a [&'a str];

/// Panics unless the end has logged all of it in the line about a tunnel that did not come up, as a warning.
fn says(end: &Program, said: Said<'_>) {
    let event = end.wait_for(NOT_UP);
    let reason = event["reason"].as_str().expect("a reason");
    println!("{reason}");
    assert!(said.iter().all(|part| reason.contains(part)), "not {said:?}: {reason}");
    assert_eq!(event["level"], "WARN", "{event}");
}

/// Panics unless two ends with these words get no tunnel, and say this of it.
fn is_refused(words: [&str; 2], said: [Said<'_>; 2]) {
    let server = Server::echo();
    let exit = format!("DEST={}", server.address());
    let receptor = start_receptor("127.0.0.1:0", &words_of(&exit, words[0]));
    let address = receptor.address_of("receptor listening");
    let connector = start_connector(Protocol::V1, address, &words_of(ENTRANCE, words[1]));
    is_refused_between([receptor, connector], said);
    assert_eq!(server.served(), 0);
}

/// Words with those of encryption, if any.
fn words_of(first: &str, encryption: &str) -> Vec<String> {
    [first, encryption].iter().filter(|word| !word.is_empty()).map(ToString::to_string).collect()
}

/// The same of two ends that run, the connector with an entrance.
fn is_refused_between(mut ends: [Program; 2], said: [Said<'_>; 2]) {
    let mut client = connect(ends[1].address_of("entrance listening"));
    client.write_all(b"is anybody there?").expect("a client may speak at once");
    for (end, said) in ends.iter().zip(said) {
        says(end, said);
    }
    for end in &mut ends {
        end.terminate();
        assert_eq!(end.wait_exit(DEADLINE).code(), Some(0));
        assert_eq!(end.count("tunnel up"), 0);
    }
    client.set_read_timeout(Some(DEADLINE)).expect("bounded");
    assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)), "nobody answers");
}

#[test]
fn a_stranger() {
    let keys = Keys::new();
    let [hub, spoke, stranger] = ["hub", "spoke", "stranger"].map(|name| keys.make(name));
    is_refused(
        [&keys.words("hub", &spoke), &keys.words("stranger", &hub)],
        [
            &[&stranger, "is not known here; to let it in, add TLSCONF=peer:SHA256:"],
            &["does not let in the key of this end", &stranger, "its log says how it would"],
        ],
    );
}

#[test]
fn a_stranger_without_a_certificate() {
    needs!("openssl");
    let (server, keys) = (Server::echo(), Keys::new());
    let [_, spoke] = ["hub", "spoke"].map(|name| keys.make(name));
    let exit = format!("DEST={}", server.address());
    let receptor = start_receptor("127.0.0.1:0", &[exit, keys.words("hub", &spoke)]);
    let address = receptor.address_of("receptor listening").to_string();
    let mut client = Command::new(program("openssl"));
    client.args(["s_client", "-tls1_3", "-alpn", "sockmux", "-ign_eof", "-connect", &address]);
    let told = output_of(&mut client);
    let told = String::from_utf8_lossy(&told.stderr);
    assert!(told.contains("alert certificate required"), "{told}");
    says(&receptor, &["the peer showed no certificate, so it has no key"]);
    assert_eq!((receptor.count("tunnel up"), server.served()), (0, 0));
}

/// With a key that is let in, at a port that is for nothing else.
#[test]
fn a_stranger_who_speaks_other_tls() {
    needs!("openssl");
    let (server, keys) = (Server::echo(), Keys::new());
    let [_, spoke] = ["hub", "spoke"].map(|name| keys.make(name));
    Authority::new(&keys).signs("spoke", FUTURE);
    let exit = format!("DEST={}", server.address());
    let receptor = start_receptor("127.0.0.1:0", &[exit, keys.words("hub", &spoke)]);
    let address = receptor.address_of("receptor listening").to_string();
    for (nth, (words, said)) in [
        (&["-tls1_2", "-alpn", "sockmux"][..], "which is TLS 1.3 alone"),
        (&["-tls1_3", "-alpn", "h2"], "has not agreed to the protocol sockmux"),
        (&["-tls1_3"], "has not agreed to the protocol sockmux"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = Command::new(program("openssl"));
        client.args(["s_client", "-ign_eof", "-connect", &address]).args(words);
        client.arg("-key").arg(keys.path("spoke")).arg("-cert").arg(keys.path("spoke.pem"));
        output_of(&mut client);
        let event = receptor.wait_for_nth(NOT_UP, nth + 1);
        assert!(event["reason"].as_str().is_some_and(|reason| reason.contains(said)), "{event}");
    }
    assert_eq!((receptor.count("tunnel up"), server.served()), (0, 0));
}

#[test]
fn a_wrong_key() {
    let keys = Keys::new();
    let [hub, spoke, other] = ["hub", "spoke", "other"].map(|name| keys.make(name));
    // The receptor has another one than the connector was told.
    is_refused(
        [&keys.words("hub", &spoke), &keys.words("spoke", &other)],
        [
            &["does not let in the key of this end", &hub, "its log says how it would"],
            &[&hub, "is not known here; to let it in, add TLSCONF=peer:SHA256:"],
        ],
    );
}

/// Certificates that openssl made, which let in until one of them is too old, wherever.
#[test]
fn an_expired_certificate_of_an_authority() {
    needs!("openssl");
    let keys = Keys::new();
    let [_, spoke] = ["hub", "spoke"].map(|name| keys.make(name));
    let authority = Authority::new(&keys);
    authority.signs("hub", FUTURE);
    authority.signs("spoke", FUTURE);
    let words = |own: &str, of: &str| authority.words(own, of);
    let both = [words("hub", "ca"), words("spoke", "ca")];
    let server = Server::echo();
    let [receptor, connector] =
        [&format!("DEST={}", server.address()), ENTRANCE].map(ToString::to_string);
    let [hubs, spokes] = both.clone();
    let tunnel = Tunnel::start(Protocol::V1, &[receptor, hubs], &[connector, spokes]);
    assert_eq!(tunnel.receptor.wait_for("tunnel up")["name"], "spoke");
    check_new_echo(tunnel.entrance(), 1, 1_000);
    drop(tunnel);

    const ITS_OWN: Said<'_> =
        &["refuses the certificate of this end, which has expired", "this end needs a new one"];
    const THE_PEERS: Said<'_> = &[
        "the peer's certificate",
        " days ago by the clock of this host: the peer needs a new one",
    ];
    let both = both.each_ref().map(String::as_str);
    authority.signs("hub", PAST);
    is_refused(both, [ITS_OWN, THE_PEERS]);
    authority.signs("hub", FUTURE);
    authority.signs("spoke", PAST);
    is_refused(both, [THE_PEERS, ITS_OWN]);
    // Those in time do not count if the authority's own is not, at the end that asks.
    authority.signs("spoke", FUTURE);
    authority.signs_itself("old", PAST);
    let old: Said<'_> = &[
        "the certificate of the authority (TLSCONF=ca:) expired ",
        " days ago by the clock of this host: name the one that replaces it",
    ];
    is_refused(
        [&words("hub", "old"), both[1]],
        [old, &["does not let in the key of this end", &spoke, "its log says how it would"]],
    );
    is_refused(
        [both[0], &words("spoke", "old")],
        [&["does not let in the key of this end", "its log says how it would"], old],
    );
}

#[test]
fn a_secret_with_one_character_less() {
    let keys = Keys::new();
    let words = keys.secret("secret");
    fs::copy(keys.path("secret"), keys.path("less")).expect("the same, with its mode");
    let secret = fs::read_to_string(keys.path("secret")).expect("a secret");
    let less = &secret.trim_end()[1..];
    assert!(less.len() >= 32, "the program takes no shorter one");
    fs::write(keys.path("less"), less).expect("a file");
    let other = format!("TLSCONF=secret:{}", keys.path("less").display());
    const ANOTHER: Said<'_> = &["the peer has another secret: the files of TLSCONF=secret: differ"];
    is_refused([&words, &other], [ANOTHER; 2]);
    is_refused([&other, &words], [ANOTHER; 2]);
}

#[test]
fn plaintext_to_a_port_of_tls() {
    let keys = Keys::new();
    let secret = keys.secret("secret");
    is_refused(
        [&secret, ""],
        [
            &["the peer speaks plaintext, and this end is encrypted: give the peer STLS="],
            &["the peer speaks TLS, and this end plaintext: give this end STLS="],
        ],
    );
}

#[test]
fn tls_to_a_port_of_plaintext() {
    let keys = Keys::new();
    let secret = keys.secret("secret");
    is_refused(
        ["", &secret],
        [
            &["the peer speaks TLS, and this end plaintext: give this end STLS="],
            &["in the TLS handshake: it may speak plaintext"],
        ],
    );
}

const PLAYED_AGAIN: Said<'_> =
    &["what the peer sent cannot be read with the keys of this handshake", "played again"];

/// A tunnel that is up, and has carried something, and what passed.
struct Recorded {
    tunnel: Tunnel,
    tap: Tap,
    server: Server,
    _keys: Keys,
    /// Words of the two ends.
    words: [Vec<String>; 2],
}

impl Recorded {
    fn new() -> Recorded {
        let (server, keys) = (Server::echo(), Keys::new());
        let [hub, spoke] = ["hub", "spoke"].map(|name| keys.make(name));
        let exit = format!("DEST={}", server.address());
        let words = [
            words_of(&exit, &keys.words("hub", &spoke)),
            words_of(ENTRANCE, &keys.words("spoke", &hub)),
        ];
        let receptor = start_receptor("127.0.0.1:0", &words[0]);
        let address = receptor.address_of("receptor listening");
        let tap = Tap::start(address);
        let tunnel = Tunnel::join(Protocol::V1, receptor, address, tap.address(), &words[1]);
        check_new_echo(tunnel.entrance(), 1, 1_000);
        Recorded { tunnel, tap, server, _keys: keys, words }
    }
}

/// Says all of it, and reads what is answered.
fn play(bytes: &[u8], mut to: TcpStream) {
    // It ends before all is sent, once that is found out.
    let _ = to.write_all(bytes);
    read_to_end_of(&mut to, DEADLINE);
}

/// Whoever has recorded all that a connector ever sent opens nothing with it, here or elsewhere.
#[test]
fn a_hello_that_is_played_again_to_a_receptor() {
    let recorded = Recorded::new();
    let said = recorded.tap.bytes(true);
    let elsewhere = start_receptor("127.0.0.1:0", &recorded.words[0]);
    for receptor in [&recorded.tunnel.receptor, &elsewhere] {
        play(&said, connect(receptor.address_of("receptor listening")));
        says(receptor, PLAYED_AGAIN);
    }
    assert_eq!((recorded.tunnel.receptor.count("tunnel up"), elsewhere.count("tunnel up")), (1, 0));
    assert_eq!(recorded.server.served(), 1, "by the stream that was recorded");
    // The tunnel that is there has not noticed.
    check_new_echo(recorded.tunnel.entrance(), 2, 1_000);
}

#[test]
fn an_answer_that_is_played_again_to_a_connector() {
    let recorded = Recorded::new();
    let said = recorded.tap.bytes(false);
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    let address = listener.local_addr().expect("an address");
    let connector = start_connector(Protocol::V1, address, &recorded.words[1]);
    let (stream, _) = listener.accept().expect("it dials");
    read_record(&stream).expect("its hello");
    play(&said, stream);
    says(&connector, PLAYED_AGAIN);
    assert_eq!(connector.count("tunnel up"), 0);
}

/// Somebody between two honest ends, who puts an older hello in the place of the connector's.
#[test]
fn a_hello_that_is_played_again_between_two_ends() {
    let recorded = Recorded::new();
    let older = first_record(&recorded.tap.bytes(true)).to_vec();
    let receptor = start_receptor("127.0.0.1:0", &recorded.words[0]);
    let tap = Tap::start_with(receptor.address_of("receptor listening"), move |[from, to]| {
        let newer = read_record(from)?;
        assert_ne!(newer, older);
        (&mut &*to).write_all(&older)
    });
    let connector = start_connector(Protocol::V1, tap.address(), &recorded.words[1]);
    is_refused_between([receptor, connector], [PLAYED_AGAIN; 2]);
    assert_eq!(recorded.server.served(), 1, "by the stream that was recorded");
}

fn read_record(mut from: &TcpStream) -> std::io::Result<Vec<u8>> {
    let mut record = vec![0; 5];
    from.read_exact(&mut record)?;
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(5 + length, 0);
    from.read_exact(&mut record[5..])?;
    Ok(record)
}

fn first_record(bytes: &[u8]) -> &[u8] {
    let length = usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
    &bytes[..5 + length]
}
