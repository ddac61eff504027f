//! `STLS=` and `TLSCONF=`, and the peers file.

use std::ffi::OsString;

use sockmux_uring::cli::hostlist::ClientName;
use sockmux_uring::cli::invocation::{self, Command};
use sockmux_uring::cli::keygen::{Keygen, Made};
use sockmux_uring::cli::plan::{Authority, Caller, Encryption, Proof, TlsSide};
use sockmux_uring::cli::show;

use crate::one_file::{OneFile, run, run_with};

const KEY: &str = "SHA256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
const OTHER: &str = "SHA256:AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

fn encryption(args: &[&str]) -> Encryption {
    run(args).encryption.expect("encryption")
}

/// Peers as `name=fingerprint`.
fn peers(encryption: &Encryption) -> Vec<String> {
    let all = encryption.peers.iter().chain(&encryption.listed);
    all.map(|peer| format!("{}={}", peer.name.as_deref().unwrap_or_default(), peer.fingerprint))
        .collect()
}

#[test]
fn two_short_words() {
    let x = encryption(&["-P:9000", "PORT=1", &format!("TLSCONF=peer:hostY={KEY}")]);
    assert_eq!(x.side, TlsSide::Accepts);
    assert_eq!(x.proof, Proof::Key { key: "sockmux.key".into(), certificate: None });
    assert_eq!((peers(&x), x.peers_file, x.authority), (vec![format!("hostY={KEY}")], None, None));
    let y = ["SERVER=sockmux://x:9000", "DEST=h:1", &format!("TLSCONF=peer:{KEY},peer:{OTHER}=")];
    let y = encryption(&y);
    assert_eq!(y.side, TlsSide::Dials);
    assert_eq!(peers(&y), [format!("={KEY}"), format!("={OTHER}")]);
    assert_eq!(run(&["-P1", "PORT=2"]).encryption, None);
}

/// The side of links that nobody dials, and of those that say so.
#[test]
fn sides() {
    let pair = ["SERVER=sockmux:commin@a", "SERVER=sockmux:commout@b"];
    for (link, stls, wanted) in [
        (&["-P1"][..], "fcl", TlsSide::Accepts),
        (&["-P1"], "fcl,fsv", TlsSide::Accepts),
        (&["SERVER=sockmux://h:1"], "fsv", TlsSide::Dials),
        (&["SERVER=sockmux:proc@x"], "fsv,fcl", TlsSide::Dials),
        (&["SERVER=sockmux:proc@x"], "fcl", TlsSide::Accepts),
        (&["-Fsockmux"], "fcl", TlsSide::Accepts),
        (&["-Fsockmux"], "fsv", TlsSide::Dials),
        (&["-Fsockmux", "-C1"], "fsv", TlsSide::Dials),
        (&["-Fsockmux", "-A1"], "fcl", TlsSide::Accepts),
        (&pair, "fsv", TlsSide::Dials),
        (&pair, "fcl", TlsSide::Accepts),
        (&["SERVER=sockmux:comm@com1"], "fsv", TlsSide::Dials),
        (&["SERVER=sockmux:comm@com1?baud=9600"], "fcl,fcl", TlsSide::Accepts),
        (&["-Fsockmux", "-Xcom1"], "fcl", TlsSide::Accepts),
    ] {
        let stls = format!("STLS={stls}");
        let encryption = encryption(&[link, &["DEST=h:2", &stls, "TLSCONF=secret:s"]].concat());
        assert_eq!(encryption.side, wanted, "{link:?} {stls}");
        assert_eq!(encryption.proof, Proof::Secret("s".into()));
    }
    for (link, wanted) in
        [("-Fsockmux", TlsSide::Accepts), ("SERVER=sockmux:proc@x", TlsSide::Dials)]
    {
        assert_eq!(encryption(&[link, "DEST=h:2", "TLSCONF=secret:s"]).side, wanted);
    }
}

#[test]
fn certificates_of_an_authority() {
    let conf = "TLSCONF=key:x.key,cert:x.pem,ca:a.pem,ca:b.pem";
    let receptor = encryption(&["-P1", "DEST=h:1", conf]);
    let proof = Proof::Key { key: "x.key".into(), certificate: Some("x.pem".into()) };
    let certificates = vec!["a.pem".into(), "b.pem".into()];
    assert_eq!(receptor.proof, proof);
    let authority = |names| Some(Authority { certificates: certificates.clone(), names });
    assert_eq!(receptor.authority, authority(Vec::new()));
    // The connector compares the name with the host that it dials.
    let connector = encryption(&["SERVER=sockmux://hub:1", "PORT=1", conf]);
    assert_eq!(connector.authority, authority(vec!["hub".into()]));
    let conf = format!("{conf},name:other");
    let connector = encryption(&["SERVER=sockmux://hub:1", "PORT=1", &conf]);
    assert_eq!(connector.authority, authority(vec!["other".into()]));
}

#[test]
fn the_peers_file_is_the_usual_one_where_nothing_says_who_may_come() {
    let file = format!("# all\nhostY {KEY}\n");
    let plan = run_with(&["-P1", "DEST=h:1", "STLS=fcl"], &file);
    let encryption = plan.encryption.as_ref().expect("encryption");
    assert_eq!(encryption.peers_file.as_deref(), Some("sockmux.peers".as_ref()));
    assert_eq!(peers(encryption), [format!("hostY={KEY}")]);
    let shown = show::plan(&plan);
    let wanted = format!(
        "encryption  TLS 1.3; this end answers the handshake, and both prove who they are\n            \
         own key: sockmux.key\n            \
         peers: those in sockmux.peers, which lists 1 now\n               \
         hostY  {KEY}\n"
    );
    assert!(shown.contains(&wanted), "{shown}");
    assert_eq!(show::peers(encryption), "those in sockmux.peers (1 now)");

    let conf = format!("TLSCONF=peers:p,peer:{OTHER}");
    let both = run_with(&["-P1", "DEST=h:1", &conf], &file).encryption.expect("encryption");
    assert_eq!(peers(&both), [format!("={OTHER}"), format!("hostY={KEY}")]);
    assert_eq!(show::peers(&both), format!("{OTHER}, those in p (1 now)"));
}

#[test]
fn options_of_a_peer_in_the_file() {
    let file = format!("hostY {KEY} listen=8000-8100,9000\nhostZ {OTHER} # none\n");
    let plan = run_with(&["-P1", "PORT=2", "TLSCONF=peers:p"], &file);
    let listed = &plan.encryption.as_ref().expect("encryption").listed;
    let may_ask = |at: usize, port| listed[at].options.listen.contains(port);
    assert_eq!([may_ask(0, 8100), may_ask(0, 8101), may_ask(1, 8100)], [true, false, false]);
    let shown = show::plan(&plan);
    let wanted = format!(
        "   hostY  {KEY}\n                  may ask for entrances at ports 8000-8100,9000\n\
         \x20              hostZ  {OTHER}\n"
    );
    assert!(shown.contains(&wanted), "{shown}");
    // Those of the command line have none.
    let conf = format!("TLSCONF=peer:hostY={KEY}");
    assert!(encryption(&["-P1", "PORT=2", &conf]).peers[0].options.listen.is_empty());
}

/// With the exits as they are named, and what is not there.
#[test]
fn what_each_peer_may_do_is_shown() {
    let file = format!(
        "a {KEY} streams=10 exits=socks,h:1,h:2 entrances=8022,9000-9009\n\
         b {OTHER} exits=none entrances=none\n"
    );
    let words =
        ["-P1", "PORT=8022", "DEST=h:1:peer=b", "SERVER=socks,-in", "SERVER=telnet://h:2,-in"];
    let plan = run_with(&[&words[..], &["TLSCONF=peers:p"]].concat(), &file);
    let shown = show::plan(&plan);
    let wanted = format!(
        "   a  {KEY}\n                  has at most 10 streams at once\n                  \
         uses the exits socks, h:2\n                  \
         gets clients of entrances at ports 8022,9000-9009\n               \
         b  {OTHER}\n                  \
         uses no exit\n                  \
         gets no clients of entrances\n"
    );
    assert!(shown.contains(&wanted), "{shown}");
    for name in ["h:1", "socks", "h:2"] {
        assert!(shown.contains(&format!("   in the peers file: exits={name}\n")), "{shown}");
    }
    assert_eq!(
        plan.notices,
        ["peers file: a: entrances=9000-9009: no entrance here has such a port"]
    );
    let plan = run_with(&["-P1", "PORT=0", "DEST=h:3", "TLSCONF=peers:p"], &file);
    let missing = |name: &str| format!("peers file: a: exits={name}: no exit here is called so");
    assert_eq!(plan.notices, ["socks", "h:1", "h:2"].map(missing));
    // Not a line for each of thousands.
    let line = |n: usize| {
        format!("n{n} {} exits=h:9\n", sockmux_uring::cli::plan::Fingerprint([n as u8; 32]))
    };
    let many: String = (0..20).map(line).collect();
    let plan = run_with(&["-P1", "DEST=h:3", "TLSCONF=peers:p"], &many);
    assert_eq!(plan.notices.len(), 8);
    let unnamed = show::plan(&run(&["-P1", "DEST=h:1", &format!("TLSCONF=peer:{KEY}")]));
    assert!(!unnamed.contains("exits="), "{unnamed}");
}

/// As parameter files themselves are.
#[test]
fn files_are_looked_for_beside_the_one_that_names_them() {
    let file = "TLSCONF=key:x.key,cert:/y.pem,ca:sub/ca.pem";
    let encryption = run_with(&["-P1", "DEST=h:1", "+=/etc/sockmux/conf"], file).encryption;
    let encryption = encryption.expect("encryption");
    let certificate = Some("/y.pem".into());
    assert_eq!(encryption.proof, Proof::Key { key: "/etc/sockmux/x.key".into(), certificate });
    let authority = encryption.authority.expect("an authority");
    assert_eq!(authority.certificates, ["/etc/sockmux/sub/ca.pem".as_ref() as &std::path::Path]);
}

#[test]
fn a_wrong_peers_file_is_named_with_its_line() {
    let message = |file: &str| {
        let args = ["sockmux-uring", "-P1", "DEST=h:1", "TLSCONF=peers:p"].map(OsString::from);
        let failure = invocation::parse(args, &OneFile(file), &mut |_| unreachable!());
        failure.expect_err("a wrong line").to_string()
    };
    assert_eq!(
        message("\nhostY\n"),
        "TLSCONF=peers:p: p: line 2: `hostY` stands alone; write NAME FINGERPRINT, as in hostY \
         SHA256:..."
    );
    assert_eq!(
        message(&format!("hostY {KEY} lsten=80")),
        "TLSCONF=peers:p: p: line 1: `lsten` is no option of a peer; did you mean `listen`? there \
         are streams=, exits=, entrances=, listen="
    );
    assert_eq!(
        message(&format!("hostY {KEY} listen=80,65536")),
        "TLSCONF=peers:p: p: line 1: `65536` in listen= is neither a port nor a range of ports; \
         give ports of 1 to 65535, as in listen=8000-8100,9000, or listen=none"
    );
}

#[test]
fn what_is_shown_of_each_kind() {
    let shown = |conf: &str| show::plan(&run(&["-P1", "DEST=h:1", &format!("TLSCONF={conf}")]));
    let secret = shown("secret:s");
    assert!(secret.contains("            peer: whoever has the secret in s\n"), "{secret}");
    let authority = shown("key:k,cert:c,ca:a,name:h,name:i");
    assert!(authority.contains("own key: k, with the certificate in c\n"), "{authority}");
    let wanted = "peers: h or i by a certificate of the authority in a\n";
    assert!(authority.contains(wanted), "{authority}");
    let anybody = shown("ca:a");
    assert!(anybody.contains("anybody with a certificate of the authority in a\n"), "{anybody}");
    let clear = show::plan(&run(&["-P1", "DEST=h:1"]));
    assert!(clear.contains("not encrypted: ") && !clear.contains("encryption  "), "{clear}");
    let ignored = run(&["-P1", "DEST=h:1", "TLSCONF=scache:do,xcache:do,secret:s"]);
    assert_eq!(ignored.notices.len(), 2, "{:?}", ignored.notices);
}

/// The line is checked whatever the peer says, and `--check` says so.
#[test]
fn an_encrypted_line_is_always_checked() {
    let line = ["SERVER=sockmux:comm@com1?baud=9600", "PORT=1"];
    let encrypted = [&line[..], &["TLSCONF=secret:s", "STLS=fsv"]].concat();
    let shown = show::plan(&run(&encrypted));
    assert!(
        shown.contains("if serial: 9600 baud, 8N1, no flow control, always checked\n"),
        "{shown}"
    );
    assert!(shown.contains("encryption  TLS 1.3; this end begins the handshake"), "{shown}");
    let clear = show::plan(&run(&line));
    assert!(clear.contains("checked between two of ours\n"), "{clear}");
}

/// From another network, too; `RELIABLE=` narrows it, and clients are judged as ever.
#[test]
fn the_key_decides_on_peers() {
    let caller = Caller { client: Some([203, 0, 113, 7].into()), entrance_port: None };
    let verdicts = |words: &[&str]| {
        let plan = run(&[&["-P9000", "PORT=1"][..], words].concat());
        [plan.lets_in_peer(&caller, ClientName::None), plan.lets_in(&caller, ClientName::None)]
    };
    assert_eq!(verdicts(&[]), [Some(false), Some(false)]);
    assert_eq!(verdicts(&["TLSCONF=secret:s"]), [Some(true), Some(false)]);
    let narrowed = ["TLSCONF=secret:s", "RELIABLE=.localnet"];
    assert_eq!(verdicts(&narrowed), [Some(false), Some(false)]);
    assert_eq!(verdicts(&["TLSCONF=secret:s", "RELIABLE=203.0.113.7"]), [Some(true), Some(true)]);
}

#[test]
fn a_new_key_after_so_many_bytes() {
    let rekey = |value: &str| {
        let conf = format!("TLSCONF=secret:s,rekey:{value}");
        encryption(&["-P1", "PORT=2", &conf]).rekey_bytes
    };
    assert_eq!(rekey("64K"), Some(64 << 10));
    assert_eq!(rekey("1000000"), Some(1_000_000));
    assert_eq!(rekey("64M"), Some(64 << 20));
    assert_eq!(rekey("128G"), Some(128 << 30));
    for value in ["63K", "129G", "1T", "K", "-1", "99999999999999999999G", "1.5G"] {
        let words = ["sockmux-uring", "-P1", "PORT=2", &format!("TLSCONF=secret:s,rekey:{value}")];
        let words = words.iter().map(OsString::from);
        let refused = invocation::parse(words, &OneFile(""), &mut |_| unreachable!());
        let text = refused.expect_err(value).to_string();
        assert!(text.contains("no number of bytes from 64K to 128G"), "{text}");
    }
}

#[test]
fn exits_for_certain_peers() {
    let plan = run(&[
        "-P1",
        "DEST=h:1:peer=a,10.0.0.0/8,peer=b",
        "SERVER=telnet://h,-in:-:peer=c",
        "DEST=h:2",
        &format!("TLSCONF=peer:a={KEY},peer:b={OTHER}"),
    ]);
    let peers: Vec<_> = plan.exits.iter().map(|exit| exit.options.peers.join(" ")).collect();
    assert_eq!(peers, ["a b", "c", ""]);
    // The second one does not stand in the third one's way: it is not for everybody.
    let notice = "SERVER=telnet://h,-in:-:peer=c: no key of a peer c is known now";
    assert_eq!(plan.notices, [notice]);
    let shown = show::plan(&plan);
    assert!(shown.contains("1. tcprelay://h:1  for 10.0.0.0/8 by peer a, b\n"), "{shown}");
    assert!(shown.contains("2. telnet://h:23  for everybody by peer c\n"), "{shown}");
}

#[test]
fn entrances_for_certain_peers() {
    let plan = run(&[
        "-P1",
        "PORT=8022-8023?peer=a,53/udp?peer=b,80",
        "PORT=unix:/run/x?peer=a&mode=0660",
        &format!("TLSCONF=peer:a={KEY}"),
    ]);
    let peers: Vec<_> = plan.entrances.iter().map(|port| port.peers.join(" ")).collect();
    assert_eq!(peers, ["a", "a", "b", ""]);
    assert_eq!(plan.unix_entrances[0].peers, ["a"]);
    let source = "PORT=8022-8023?peer=a,53/udp?peer=b,80";
    assert_eq!(plan.notices, [format!("{source}: no key of a peer b is known now")]);
    let shown = show::plan(&plan);
    for line in
        ["*:8022-8023, to peer a\n", "*:53/udp, to peer b\n", "*:80\n", "(mode 0660), to peer a\n"]
    {
        assert!(shown.contains(line), "{shown}");
    }
}

#[test]
fn keygen() {
    let keygen = |args: &[&str]| {
        let words = ["sockmux-uring", "keygen"].iter().chain(args).map(OsString::from);
        let invocation = invocation::parse(words, &OneFile(""), &mut |_| unreachable!());
        match invocation.expect("a right line").command {
            Command::Keygen(keygen) => keygen,
            other => panic!("{other:?}"),
        }
    };
    let made = |path: &str, what| Keygen { path: path.into(), what };
    assert_eq!(keygen(&[]), made("sockmux.key", Made::Key));
    assert_eq!(keygen(&["/etc/a.key"]), made("/etc/a.key", Made::Key));
    assert_eq!(keygen(&["--secret"]), made("sockmux.secret", Made::Secret));
    assert_eq!(keygen(&["--secret", "s"]), made("s", Made::Secret));
}
