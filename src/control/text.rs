//! Answers as text, for people: tables whose columns are as wide as they have to be.

use std::fmt::Write;

use super::Answer;
use super::status::{EntranceRow, Status, StreamRow, Totals, TunnelRow};

/// The text of an answer; it ends with a line end.
pub fn answer(answer: &Answer) -> String {
    match answer {
        Answer::Status(of) => status(of),
        Answer::Streams(rows) => streams(rows),
        Answer::Done(text) | Answer::Error(text) => format!("{text}\n"),
    }
}

fn status(status: &Status) -> String {
    let process = &status.process;
    let drains = if process.draining { ", draining" } else { "" };
    let mut text = format!(
        "sockmux-uring {}, process {}, up {}, {}{drains}\n",
        process.version,
        process.pid,
        time(process.uptime_secs),
        process.engine
    );
    if let Some(connector) = &status.connector {
        let _ = write!(text, "connector {}: {}", connector.target, connector.state);
        if let Some(millis) = connector.next_attempt_millis {
            let _ = write!(text, ", next attempt in {}.{} s", millis / 1000, millis % 1000 / 100);
        }
        if let Some(failure) = connector.last_failure.as_ref().filter(|_| connector.state != "up") {
            let _ = write!(text, " ({})", plain(failure));
        }
        text.push('\n');
    }
    text.push('\n');
    text += &table(
        "no tunnel",
        &[
            "TUNNEL", "PEER", "NAME", "STATE", "PROTOCOL", "CIPHER", "AGE", "RTT", "IN", "OUT",
            "STREAMS",
        ],
        status.tunnels.iter().map(tunnel),
    );
    let keys = status.tunnels.iter().filter_map(|row| Some((row.tunnel, row.peer_key.as_ref()?)));
    for (number, key) in keys {
        let _ = writeln!(text, "key of the peer of tunnel {number}: {}", plain(key));
    }
    text.push('\n');
    text += &table(
        "nothing listens",
        &["LISTENS AT", "KIND", "STATE"],
        status.entrances.iter().map(entrance),
    );
    text.push('\n');
    text + &totals(&status.totals)
}

fn tunnel(row: &TunnelRow) -> Vec<String> {
    let state = match row.suspended_secs {
        Some(secs) => format!("broke {} ago, {} kept", time(secs), bytes(row.retained_bytes)),
        None if !row.up => "hello".to_owned(),
        None if row.resumptions > 0 => format!("up, resumed {}", row.resumptions),
        None => "up".to_owned(),
    };
    vec![
        row.tunnel.to_string(),
        row.peer.clone(),
        or_dash(row.name.as_deref()),
        state,
        or_dash(row.protocol.as_deref()),
        or_dash(row.cipher.as_deref()),
        time(row.age_secs),
        row.rtt_micros.map_or("-".to_owned(), |micros| {
            format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10)
        }),
        bytes(row.bytes_in),
        bytes(row.bytes_out),
        row.streams.to_string(),
    ]
}

fn entrance(row: &EntranceRow) -> Vec<String> {
    let state = match (row.open, &row.why) {
        (true, _) => "open".to_owned(),
        (false, Some(why)) => format!("not open: {why}"),
        (false, None) => "not open".to_owned(),
    };
    vec![row.address.clone(), row.kind.clone(), state]
}

fn totals(totals: &Totals) -> String {
    let mut text = format!(
        "streams {} now, {} ever; flows {}\nbytes {} in, {} out; {} spliced from sockets, {} to sockets; {} copied; \
         splicing given up {} times\n",
        totals.streams,
        totals.streams_ever,
        totals.flows,
        bytes(totals.bytes_in),
        bytes(totals.bytes_out),
        bytes(totals.spliced_from_sockets_bytes),
        bytes(totals.spliced_to_sockets_bytes),
        bytes(totals.copied_bytes),
        totals.splice_fallbacks,
    );
    let relayed = totals.relayed_up_bytes + totals.relayed_down_bytes;
    if totals.pairs + relayed > 0 {
        let (up, down) = (bytes(totals.relayed_up_bytes), bytes(totals.relayed_down_bytes));
        let _ = writeln!(text, "relay {} pairs; {up} to servers, {down} to clients", totals.pairs);
    }
    let _ = writeln!(
        text,
        "datagrams {} in, {} out, {} dropped",
        totals.datagrams_in, totals.datagrams_out, totals.datagrams_dropped
    );
    let refusals = &totals.refusals;
    let _ = writeln!(
        text,
        "refused {} silent peers, {} unexpected clients, {} streams without buffers, {} flows evicted",
        refusals.silent_peers,
        refusals.unexpected_clients,
        refusals.buffers_used_up,
        refusals.flows_evicted
    );
    text
}

fn streams(rows: &[StreamRow]) -> String {
    let header = ["STREAM", "TUNNEL", "CLIENT", "BY", "STATE", "AGE", "IN", "OUT"];
    table("no stream", &header, rows.iter().map(stream))
}

fn stream(row: &StreamRow) -> Vec<String> {
    let by = match (&row.entrance, &row.exit) {
        (Some(entrance), _) => format!("entrance {entrance}"),
        (None, Some(exit)) => format!("exit {exit}"),
        (None, None) => "-".to_owned(),
    };
    let count = |count: Option<u64>| count.map_or("-".to_owned(), bytes);
    vec![
        row.stream.to_string(),
        row.tunnel.map_or("-".to_owned(), |number| number.to_string()),
        row.client.clone(),
        by,
        row.state.clone(),
        time(row.age_secs),
        count(row.bytes_in),
        count(row.bytes_out),
    ]
}

/// Columns with two spaces between them. `empty`: the text where there is no row.
fn table(empty: &str, header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let header: Vec<String> = header.iter().map(|&name| name.to_owned()).collect();
    let rows = rows.map(|row| row.iter().map(|cell| plain(cell)).collect());
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
    if rows.len() == 1 {
        return format!("{empty}\n");
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..rows[0].len()).filter_map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// What a peer has named cannot steer a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn or_dash(text: Option<&str>) -> String {
    text.unwrap_or("-").to_owned()
}

/// A number of bytes: exact below 10,000, else with three digits.
fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 10_000 {
        return bytes.to_string();
    }
    let (mut tenths, mut unit) = (u128::from(bytes) * 10 / 1024, 0);
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

fn time(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs}s"),
        60..3_600 => format!("{}m{:02}s", secs / 60, secs % 60),
        3_600..86_400 => format!("{}h{:02}m", secs / 3_600, secs % 3_600 / 60),
        _ => format!("{}d{:02}h", secs / 86_400, secs % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (count, text) in [
            (0, "0"),
            (9_999, "9999"),
            (10_000, "9.7 KiB"),
            (1 << 20, "1.0 MiB"),
            (1_536 << 20, "1.5 GiB"),
            (u64::MAX, "16383.9 PiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        for (secs, text) in [(59, "59s"), (61, "1m01s"), (3_660, "1h01m"), (90_000, "1d01h")] {
            assert_eq!(time(secs), text);
        }
    }

    #[test]
    fn columns_are_as_wide_as_they_have_to_be_and_nothing_steers_the_terminal() {
        let row = |client: &str| StreamRow {
            stream: 1,
            client: client.to_owned(),
            exit: Some("h:1".to_owned()),
            state: "open".to_owned(),
            bytes_in: Some(5),
            ..StreamRow::default()
        };
        let text = streams(&[row("127.0.0.1:55555"), row("a\x1b[2J")]);
        let wanted = "\
STREAM  TUNNEL  CLIENT           BY        STATE  AGE  IN  OUT
1       -       127.0.0.1:55555  exit h:1  open   0s   5   -
1       -       a?[2J            exit h:1  open   0s   5   -
";
        assert_eq!(text, wanted);
        assert_eq!(streams(&[]), "no stream\n");
    }

    #[test]
    fn a_status_has_a_line_for_each_part() {
        let mut of = Status::default();
        of.tunnels.push(TunnelRow { peer_key: Some("SHA256:x".into()), ..TunnelRow::default() });
        of.entrances
            .push(EntranceRow { why: Some("no tunnel is up".into()), ..EntranceRow::default() });
        let text = status(&of);
        for piece in [
            "process 0",
            "key of the peer of tunnel 0: SHA256:x",
            "not open: no tunnel",
            "datagrams 0",
        ] {
            assert!(text.contains(piece), "{text}");
        }
    }
}
