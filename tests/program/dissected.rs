//! What somebody on the way sees, by Wireshark's own dissector: TLS 1.3, from the first byte to the last.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use crate::testkit::DEADLINE;
use crate::testkit::keys::Keys;
use crate::testkit::net::connect;
use crate::testkit::protocol::Protocol;
use crate::testkit::servers::Server;
use crate::testkit::services::{new_dir, program, run};
use crate::testkit::skip::needs;
use crate::testkit::tap::{Piece, Tap};
use crate::testkit::tunnel::{Tunnel, start_receptor};

/// What the stream carries.
const MARK: &[u8] = b"not to be read by anybody on the way";

/// A session with one stream and some changes of keys, from its beginning to its end.
fn session() -> Vec<Piece> {
    let (server, keys) = (Server::echo(), Keys::new());
    let [hub, spoke] = ["hub", "spoke"].map(|name| keys.make(name));
    let words = |own: &str, peer: &str| keys.words(own, peer) + ",rekey:64K";
    let exit = format!("DEST={}", server.address());
    let receptor = start_receptor("127.0.0.1:0", &[exit, words("hub", &spoke)]);
    let address = receptor.address_of("receptor listening");
    let tap = Tap::start(address);
    let entrance = [String::from("PORT=127.0.0.1:0"), words("spoke", &hub)];
    let mut tunnel = Tunnel::join(Protocol::V1, receptor, address, tap.address(), &entrance);
    let client = connect(tunnel.entrance());
    let said = MARK.repeat(10_000);
    std::thread::scope(|scope| {
        scope.spawn(|| (&client).write_all(&said).expect("sent"));
        let mut back = vec![0; said.len()];
        (&client).read_exact(&mut back).expect("echoed");
        assert!(back == said);
    });
    drop(client);
    tunnel.connector.terminate();
    tunnel.connector.wait_exit(DEADLINE);
    tunnel.receptor.wait_for("tunnel down");
    tap.pieces()
}

/// A capture file (pcap) of one connection: made-up segments of IPv4 and TCP around what passed.
fn capture(pieces: &[Piece]) -> Vec<u8> {
    const HEADS_BYTES: usize = 20 + 20;
    const PORTS: [u16; 2] = [40_000, 9_000];
    const SYN: u8 = 2;
    const ACK: u8 = 16;
    const FIN: u8 = 1;
    // Little-endian; times in microseconds; version 2.4; any length; packets begin with the IP header.
    let mut file = Vec::new();
    for word in [0xA1B2_C3D4_u32, 2 | 4 << 16, 0, 0, 1 << 18, 101] {
        file.extend(word.to_le_bytes());
    }
    let (mut sent, mut number) = ([0_u32; 2], 0_u32);
    let mut packet = |is_up: bool, flags: u8, bytes: &[u8]| {
        let [from, to] = if is_up { [0, 1] } else { [1, 0] };
        let length = HEADS_BYTES + bytes.len();
        for word in [number / 1_000_000, number % 1_000_000, length as u32, length as u32] {
            file.extend(word.to_le_bytes());
        }
        number += 1;
        let [high, low] = (length as u16).to_be_bytes();
        // Checksums are left out, as on machines whose network card makes them.
        file.extend([0x45, 0, high, low, 0, 0, 0x40, 0, 64, 6, 0, 0]);
        file.extend([[192, 0, 2, 1 + from as u8], [192, 0, 2, 1 + to as u8]].concat());
        file.extend([PORTS[from], PORTS[to]].map(u16::to_be_bytes).concat());
        file.extend([sent[from], sent[to]].map(u32::to_be_bytes).concat());
        file.extend([0x50, flags, 0xFF, 0xFF, 0, 0, 0, 0]);
        file.extend(bytes);
        sent[from] += bytes.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
    };
    packet(true, SYN, &[]);
    packet(false, SYN | ACK, &[]);
    packet(true, ACK, &[]);
    pieces.iter().for_each(|piece| packet(piece.is_up, ACK, &piece.bytes));
    packet(true, FIN | ACK, &[]);
    packet(false, FIN | ACK, &[]);
    packet(true, ACK, &[]);
    file
}

/// What tshark says of the file: a line for each packet with these words.
fn tshark(file: &Path, words: &[&str]) -> Vec<String> {
    let mut tshark = Command::new(program("tshark"));
    let said = run(tshark.arg("-n").arg("-r").arg(file).args(words));
    said.lines().map(str::to_owned).collect()
}

#[test]
fn tshark_finds_tls_1_3_and_nothing_to_read() {
    needs!("tshark");
    let pieces = session();
    let capture = capture(&pieces);
    for what in [MARK, b"sockmux-uring", b"19700101-000000"] {
        assert!(!capture.windows(what.len()).any(|part| part == what), "{what:?} can be read");
    }
    let folder = new_dir();
    let file = folder.path().join("session.pcap");
    std::fs::write(&file, &capture).expect("a file");
    // Found by its content alone: nothing here says that this port's connections are TLS.
    let field = |filter: &str, field: &str| {
        let lines = tshark(&file, &["-Y", filter, "-T", "fields", "-e", field]);
        lines.iter().flat_map(|line| line.split(',').map(str::to_owned)).collect::<Vec<_>>()
    };
    const CLIENT_HELLO: &str = "tls.handshake.type == 1";
    const SERVER_HELLO: &str = "tls.handshake.type == 2";
    const TLS_1_3: &str = "0x0304";
    let versions = "tls.handshake.extensions.supported_version";
    assert_eq!(field(CLIENT_HELLO, versions), [TLS_1_3]);
    assert_eq!(field(SERVER_HELLO, versions), [TLS_1_3]);
    assert_eq!(field(CLIENT_HELLO, "tls.handshake.extensions_alpn_str"), ["sockmux"]);
    // The whole of the rest is encrypted, both ways.
    for side in ["tcp.srcport == 40000", "tcp.srcport == 9000"] {
        let kinds = field(&format!("tls && {side}"), "tls.record.opaque_type");
        let sealed = kinds.iter().filter(|kind| *kind == "23").count();
        assert!(sealed > MARK.len() * 10_000 / (1 << 14), "{sealed} of {kinds:?}");
    }
    // Every segment with data is understood as TLS, or a part of a record that another one ends.
    let strange = "tcp.len > 0 && !tls && !tcp.reassembled_in && !tcp.segment_data";
    assert_eq!(tshark(&file, &["-Y", strange]), [""; 0]);
    let wrong = "_ws.malformed || _ws.expert.severity == error";
    assert_eq!(tshark(&file, &["-Y", wrong]), [""; 0]);
    let said = tshark(&file, &["-Y", SERVER_HELLO]);
    assert!(said.iter().any(|line| line.contains("TLSv1.3")), "{said:?}");
}
