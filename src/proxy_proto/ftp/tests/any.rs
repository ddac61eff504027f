//! What holds for any client and any server: pieces make no difference, and no bytes do any harm.

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::proxy_proto::ftp_script::run;

const OF_CLIENTS: &[&[u8]] = &[
    b"USER me@h\r\n",
    b"USER me\r\n",
    b"PASV\r\n",
    b"EPSV\r\n",
    b"EPSV 2\r\n",
    b"EPSV ALL\r\n",
    b"PORT 203,0,113,5,4,1\r\n",
    b"PORT 10,0,0,1,4,1\r\n",
    b"EPRT |1|203.0.113.5|1025|\r\n",
    b"EPRT |2|2001:db8:c::5|1025|\r\n",
    b"FEAT\r\n",
    b"AUTH TLS\r\n",
    b"RETR a\r\n",
    b"\xff\xf4\xff\xf2ABOR\r\n",
    b"QUIT\r\n",
    b"\xff",
    b"\xff\xfb",
    b"PORT",
    b" ",
    b"\r",
    b"\n",
];

const OF_SERVERS: &[&[u8]] = &[
    b"220 Hello\r\n",
    b"120 Soon\r\n",
    b"227 (10,9,8,7,200,13)\r\n",
    b"229 (|||51213|)\r\n",
    b"200 Yes\r\n",
    b"226 Done\r\n",
    b"500 No\r\n",
    b"421 Bye\r\n",
    b"211-a\r\n AUTH TLS\r\n",
    b"211 b\r\n",
    b"227-",
    b"text\r\n",
    b"\n",
    b"\0",
];

/// An event of a script as [`run`] reads it.
fn event() -> impl Strategy<Value = Vec<u8>> {
    let says = |kind: u8, words: &'static [&'static [u8]]| {
        vec(select(words), 1..4).prop_map(move |words| {
            let bytes = words.concat();
            let bytes = &bytes[..bytes.len().min(255)];
            [&[kind, bytes.len() as u8], bytes].concat()
        })
    };
    prop_oneof![
        8 => says(0, OF_CLIENTS),
        8 => says(2, OF_SERVERS),
        4 => Just(vec![4]),
        4 => Just(vec![6]),
        1 => select(vec![5, 8, 9, 10, 11, 71]).prop_map(|kind| vec![kind]),
        1 => vec(any::<u8>(), 1..8),
    ]
}

proptest! {
    #[test]
    fn any_bytes(data in vec(any::<u8>(), 0..600)) {
        run(&data);
    }

    #[test]
    fn bytes_like_ftp(how in any::<[u8; 2]>(), events in vec(event(), 0..24)) {
        run(&[how.to_vec(), vec![4, 2, 11], b"220 Hello\r\n".to_vec(), events.concat()].concat());
    }
}

/// What the fuzzer found, and what it begins with: `fuzz/regressions/ftp/`.
#[test]
fn kept_cases_of_the_fuzzer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions/ftp");
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for file in files {
        run(&std::fs::read(file.expect("a case").path()).expect("a case"));
    }
}
