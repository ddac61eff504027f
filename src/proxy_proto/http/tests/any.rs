//! What holds for any client and any servers: pieces make no difference, and no bytes do any harm.

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::http;
use crate::proxy_proto::http_script::run;

const OF_CLIENTS: &[&str] = &[
    "GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
    "HEAD http://g/ HTTP/1.1\r\nHost: g\r\n\r\n",
    "GET http://h/ HTTP/1.0\r\n\r\n",
    "POST http://h/ HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n",
    "POST http://h/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
    "GET http://h/ HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n",
    "CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n",
    "CONNECT h:1 HTTP/1.1\r\n\r\n",
    "GET http://u:p@h/#f HTTP/1.1\r\nHost: u:p@h\r\n\r\n",
    "GET http://h/ HTTP/1.1\r\n",
    "Host: h\r\n",
    "Connection: close\r\n",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "hello",
    "\r\n",
    "\n",
    " ",
];

const OF_SERVERS: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "HTTP/1.1 200 OK\r\n\r\n",
    "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 101 Other\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\n\r\n",
    "HTTP/1.1 200 OK\nContent-Length: 5\n\n",
    "HTTP/1.1 200 OK\r\n",
    "Connection: close\r\n",
    "\n",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "hello",
    "\r\n",
];

/// An event of a script as [`run`] reads it.
fn event() -> impl Strategy<Value = Vec<u8>> {
    let says = |kind: u8, words: &'static [&'static str]| {
        vec(select(words), 1..4).prop_map(move |words| {
            let bytes = &words.concat().into_bytes()[..];
            let bytes = &bytes[..bytes.len().min(255)];
            [&[kind, bytes.len() as u8], bytes].concat()
        })
    };
    prop_oneof![
        4 => says(0, OF_CLIENTS),
        4 => says(2, OF_SERVERS),
        4 => Just(vec![4]),
        1 => select(vec![5, 6, 7, 71]).prop_map(|kind| vec![kind]),
        1 => vec(any::<u8>(), 1..8),
    ]
}

proptest! {
    #[test]
    fn any_bytes(data in vec(any::<u8>(), 0..600)) {
        run(&http, &data);
    }

    #[test]
    fn bytes_like_http(piece in any::<u8>(), events in vec(event(), 0..16)) {
        run(&http, &[vec![piece], events.concat()].concat());
    }
}

/// What the fuzzer found, and what it begins with: `fuzz/regressions/http/`.
#[test]
fn kept_cases_of_the_fuzzer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions/http");
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut cases = 0;
    for file in files {
        run(&http, &std::fs::read(file.expect("a case").path()).expect("a case"));
        cases += 1;
    }
    assert!(cases > 0);
}
