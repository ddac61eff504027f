//! Texts inside packets: hello, addresses, counts, reasons.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::STREAM_BUFFER_BYTES;

/// The text of a HELLO that tells a stranger neither our name nor our clock. Its form is that of
/// [`hello_text`].
pub const NO_HELLO_TEXT: &str = "19700101-000000.000000 -";

/// The text of a hello: `YYYYMMDD-HHMMSS.uuuuuu hostname`, UTC. `unix_micros` is microseconds since
/// 1970. Characters that could end or corrupt the text are dropped from the name.
pub fn hello_text(unix_micros: u64, hostname: &str) -> String {
    let (seconds, micros) = (unix_micros / 1_000_000, unix_micros % 1_000_000);
    let (days, second) = ((seconds / 86_400).cast_signed(), seconds % 86_400);
    // Days to a civil date: the proleptic Gregorian calendar counted from 1 March of year 0, so
    // that the leap day is the last of its year.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let name: String = hostname.chars().filter(|c| c.is_ascii_graphic()).take(HOST_BYTES).collect();
    format!(
        "{year:04}{month:02}{day:02}-{:02}{:02}{:02}.{micros:06} {name}",
        second / 3_600,
        second / 60 % 60,
        second % 60,
    )
}

/// The host name in the text of a hello, as far as it is valid: the text is under the peer's
/// control.
pub(super) fn host_in(payload: &[u8]) -> String {
    let text = until_nul(payload);
    let name = text.iter().position(|&b| b == b' ').map_or(&b""[..], |at| &text[at + 1..]);
    name.iter().copied().filter(u8::is_ascii_graphic).take(HOST_BYTES).map(char::from).collect()
}

/// Longest host name, in bytes: Linux allows no longer one.
const HOST_BYTES: usize = 64;

/// Appends an address in the original's notation: `1.2.3.4:80`, and `_` for `:` inside an IPv6
/// address (`__1:80`).
fn put_address(out: &mut String, address: SocketAddr) {
    let ip = match address.ip() {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
        v4 => v4,
    };
    match ip {
        IpAddr::V4(v4) => write!(out, "{v4}:{}", address.port()),
        IpAddr::V6(v6) => write!(out, "{}:{}", v6.to_string().replace(':', "_"), address.port()),
    }
    .expect("writing to a String cannot fail");
}

/// Reads an address in the notation of the original or of a peer of ours.
fn read_address(word: &str) -> Option<SocketAddr> {
    let (host, port) = word.rsplit_once(':')?;
    let port = port.parse().ok()?;
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, port));
    }
    let ip: Ipv6Addr = host.trim_matches(['[', ']']).replace('_', ":").parse().ok()?;
    Some(SocketAddr::new(IpAddr::V6(ip), port))
}

/// The text of CONNECT and CONNECTED, NUL included.
pub(super) fn addresses_text(first: SocketAddr, second: SocketAddr) -> String {
    let mut out = String::with_capacity(64);
    write!(out, "{STREAM_BUFFER_BYTES} ").expect("writing to a String cannot fail");
    put_address(&mut out, first);
    out.push(' ');
    put_address(&mut out, second);
    out.push('\0');
    out
}

/// The two addresses in the text of CONNECT or CONNECTED, each if it can be read: the original
/// accepts a CONNECT with any text, and so do we.
pub(super) fn read_addresses(text: &[u8]) -> (Option<SocketAddr>, Option<SocketAddr>) {
    let Ok(text) = std::str::from_utf8(text) else { return (None, None) };
    let mut words = text.split_ascii_whitespace().skip(1);
    let first = words.next().and_then(read_address);
    (first, words.next().and_then(read_address))
}

/// The bytes before the first NUL.
pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.iter().position(|&b| b == 0).map_or(bytes, |end| &bytes[..end])
}

/// A decimal count, followed by NUL or the end.
pub(super) fn read_count(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(until_nul(bytes)).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hello_text_is_the_originals() {
        // The text of the first hello in `tests/traces/handshake.json`.
        assert_eq!(hello_text(1_795_369_808_475_200, "vm"), "20261122-175008.475200 vm");
        assert_eq!(hello_text(0, "a b\0c"), "19700101-000000.000000 abc");
        assert_eq!(hello_text(0, "-"), NO_HELLO_TEXT);
        assert_eq!(hello_text(951_782_400_000_001, "h"), "20000229-000000.000001 h");
    }

    #[test]
    fn the_hosts_name_is_read_from_a_hello() {
        for (payload, name) in [
            (&b"20261122-175008.475200 vm\0SMXU"[..], "vm"),
            (b"20020101-000000.000000 a\x1b[31m b\n", "a[31mb"),
            (b"nothing", ""),
            (b"", ""),
        ] {
            assert_eq!(host_in(payload), name);
        }
        assert_eq!(host_in(&[b' '; 1].repeat(2)), "");
        assert_eq!(host_in(&[&b" "[..], &[b'x'; 999]].concat()).len(), HOST_BYTES);
    }

    #[test]
    fn addresses_go_both_ways() {
        for (address, word) in [
            ("127.0.0.1:32802", "127.0.0.1:32802"),
            ("[::1]:80", "__1:80"),
            ("[2001:db8::7]:443", "2001_db8__7:443"),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            let mut out = String::new();
            put_address(&mut out, address);
            assert_eq!(out, word);
            assert_eq!(read_address(word), Some(address));
        }
        assert_eq!(read_address("[::1]:80"), Some("[::1]:80".parse().unwrap()));
        let mut mapped = String::new();
        put_address(&mut mapped, "[::ffff:10.1.2.3]:5".parse().unwrap());
        assert_eq!(mapped, "10.1.2.3:5");
    }

    #[test]
    fn rubbish_texts_give_no_address() {
        for text in [&b""[..], b"98304", b"98304 x y", b"\xff\xfe", b"1 2:3 4:99999"] {
            assert_eq!(read_addresses(text), (None, None), "{text:?}");
        }
    }

    #[test]
    fn counts() {
        assert_eq!(read_count(b"10\0"), Some(10));
        assert_eq!(read_count(b"16376"), Some(16376));
        assert_eq!(read_count(b"\0"), None);
        assert_eq!(read_count(b"-1\0"), None);
    }
}
