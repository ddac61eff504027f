//! `SOXCONF=what[:value][,what[:value]]*`: choices of the wire protocol.

use std::ops::RangeInclusive;

use super::error::{Problem, plain, quoted};
use super::plan::{Bulk, Congestion, SoxConf, WhileDown};
use super::{number, suggest};
use crate::limits::UDP_FLOWS_MAX;

/// The supported items.
pub(super) const ITEMS: [&str; 10] = [
    "crypt",
    "packsize",
    "nodelay",
    "noconndata",
    "protocol",
    "congestion",
    "bulk",
    "udpflows",
    "ports",
    "down",
];

/// Items of the original that are passed over.
pub(super) const IGNORED: [&str; 4] = ["acc", "allow", "cork", "private"];

/// Smallest packet size that the original names for `packsize`.
const PACKET_BYTES_NAMED_MIN: u16 = 128;

/// Smallest packet size that the original accepts from a peer. It names 128 as the least value of the
/// parameter, but drops a SETOPT with it.
const PACKET_BYTES_MIN: u16 = 129;

/// Largest packet size, header included: beyond it the original drops the tunnel.
const PACKET_BYTES_MAX: u16 = 16_384;

/// Lowest port of a remote forward: those below belong to services (RFC 2577 section 4).
const REQUEST_PORT_MIN: u16 = 1024;

/// `SOXCONF=` parameters while they are read.
#[derive(Debug, Default)]
pub struct SoxConfReader {
    conf: SoxConf,
    /// Packet size as set, to see two that contradict each other.
    packsize: Option<u16>,
    /// The same for `udpflows`.
    udp_flows: Option<usize>,
}

impl SoxConfReader {
    /// Reads the value of one parameter; things without effect go to `notices`.
    ///
    /// # Errors
    /// An unknown item, a size that is none or out of range, two different sizes.
    pub fn add(&mut self, value: &str, notices: &mut Vec<String>) -> Result<(), Problem> {
        value.split(',').try_for_each(|item| self.add_item(item.trim(), notices))
    }

    /// The choices in the end.
    pub fn finish(self) -> SoxConf {
        self.conf
    }

    fn add_item(&mut self, item: &str, notices: &mut Vec<String>) -> Result<(), Problem> {
        let (what, value) = match item.split_once(':') {
            Some((what, value)) => (what, Some(value)),
            None => (item, None),
        };
        if !ITEMS.contains(&what) && !IGNORED.contains(&what) {
            return Err(Problem::new(
                format!("{} is not known", quoted(what)),
                suggest::remedy(what, &ITEMS),
            ));
        }
        let mut notice = |why: &str| {
            notices.push(format!("SOXCONF={} has no effect: {why}", plain(item)));
        };
        match (what, value) {
            ("crypt", Some("no" | "off")) => {}
            ("crypt", _) => notice(
                "the original's cipher protects nothing and is never used; \
                 encrypt the connection underneath, by a VPN or an SSH tunnel",
            ),
            ("nodelay", Some("on" | "yes") | None) => {}
            ("nodelay", _) => notice("small data is always sent without delay"),
            ("noconndata", None | Some("on" | "yes")) => self.conf.first_data = false,
            ("noconndata", Some(value)) => {
                return Err(Problem::new(
                    format!("noconndata takes no value {}", quoted(value)),
                    "write noconndata alone, or leave it out",
                ));
            }
            ("packsize", value) => self.set_packet_bytes(value.unwrap_or_default())?,
            ("protocol", value) => {
                self.conf.newest_protocol = protocol(value.unwrap_or_default())?;
            }
            ("congestion", value) => {
                self.conf.congestion = congestion(value.unwrap_or_default())?;
            }
            ("bulk", value) => self.conf.bulk = bulk(value.unwrap_or_default())?,
            ("udpflows", value) => self.set_udp_flows(value.unwrap_or_default())?,
            ("down", value) => self.conf.down = while_down(value.unwrap_or_default())?,
            ("ports", value) => self.set_request_ports(value.unwrap_or_default())?,
            (_, _) => notice("this program has nothing of the kind"),
        }
        Ok(())
    }

    fn set_packet_bytes(&mut self, value: &str) -> Result<(), Problem> {
        let bytes = packet_bytes(value)?;
        if let Some(before) = self.packsize.replace(bytes).filter(|b| *b != bytes) {
            return Err(Problem::new(
                format!("packsize is already set to {before}"),
                "keep one of the two sizes",
            ));
        }
        self.conf.packet_bytes = bytes;
        Ok(())
    }

    fn set_udp_flows(&mut self, value: &str) -> Result<(), Problem> {
        let flows = udp_flows(value)?;
        if let Some(before) = self.udp_flows.replace(flows).filter(|n| *n != flows) {
            return Err(Problem::new(
                format!("udpflows is already set to {before}"),
                "keep one of the two numbers",
            ));
        }
        self.conf.udp_flows = flows;
        Ok(())
    }

    fn set_request_ports(&mut self, value: &str) -> Result<(), Problem> {
        let ports = request_ports(value)?;
        let before = self.conf.request_ports.replace(ports.clone());
        match before.filter(|before| *before != ports) {
            None => Ok(()),
            Some(before) => Err(Problem::new(
                format!("ports is already set to {}-{}", before.start(), before.end()),
                "keep one of the two ranges",
            )),
        }
    }
}

fn protocol(version: &str) -> Result<u8, Problem> {
    match version {
        "0.3" => Ok(0),
        "1" => Ok(1),
        _ => Err(Problem::new(
            format!("{} is not a protocol of this program", quoted(version)),
            "give protocol:1 (where the peer offers it too) or protocol:0.3",
        )),
    }
}

fn congestion(name: &str) -> Result<Congestion, Problem> {
    match name {
        "auto" => Ok(Congestion::Auto),
        "system" => Ok(Congestion::System),
        name if is_algorithm(name) => Ok(Congestion::Named(name.to_owned())),
        name => Err(Problem::new(
            format!("{} is not a congestion control", quoted(name)),
            "give congestion:auto, congestion:system or a name such as congestion:cubic",
        )),
    }
}

fn bulk(way: &str) -> Result<Bulk, Problem> {
    match way {
        "auto" => Ok(Bulk::Auto),
        "copy" => Ok(Bulk::Copy),
        "splice" => Ok(Bulk::Splice),
        _ => Err(Problem::new(
            format!("{} is not a way to move bulk", quoted(way)),
            "give bulk:auto, bulk:copy or bulk:splice",
        )),
    }
}

fn while_down(what: &str) -> Result<WhileDown, Problem> {
    match what {
        "hold" => Ok(WhileDown::Hold),
        "refuse" => Ok(WhileDown::Refuse),
        "close" => Ok(WhileDown::Close),
        _ => Err(Problem::new(
            format!("{} is nothing that entrances do while no tunnel is up", quoted(what)),
            "give down:hold, down:refuse or down:close",
        )),
    }
}

/// Could it be the name of one? The kernel's names have up to 15 bytes.
fn is_algorithm(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    (1..=15).contains(&name.len()) && name.bytes().all(plain)
}

fn packet_bytes(text: &str) -> Result<u16, Problem> {
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1024),
        None => (text, 1),
    };
    let bytes = number::whole::<u16>(digits).and_then(|number| number.checked_mul(unit));
    match bytes {
        Some(bytes) if (PACKET_BYTES_NAMED_MIN..=PACKET_BYTES_MAX).contains(&bytes) => {
            Ok(bytes.max(PACKET_BYTES_MIN))
        }
        _ => Err(Problem::new(
            format!("{} is not a packet size", quoted(text)),
            "give packsize:SIZE with 128 to 16k bytes, as in packsize:16k",
        )),
    }
}

fn udp_flows(text: &str) -> Result<usize, Problem> {
    match number::whole(text) {
        Some(flows) if (1..=UDP_FLOWS_MAX).contains(&flows) => Ok(flows),
        _ => Err(Problem::new(
            format!("{} is not a number of UDP flows", quoted(text)),
            format!("give 1 to {UDP_FLOWS_MAX}, as in udpflows:1000"),
        )),
    }
}

fn request_ports(text: &str) -> Result<RangeInclusive<u16>, Problem> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| number::whole(text).filter(|&port: &u16| port >= REQUEST_PORT_MIN);
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err(Problem::new(
            format!("{} is not a range of ports", quoted(text)),
            format!("give FIRST-LAST within {REQUEST_PORT_MIN} to 65535, as in ports:20000-20099"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Result<(SoxConf, Vec<String>), Problem> {
        let (mut reader, mut notices) = (SoxConfReader::default(), Vec::new());
        for value in values {
            reader.add(value, &mut notices)?;
        }
        Ok((reader.finish(), notices))
    }

    #[test]
    fn items_in_one_and_in_several_parameters() {
        for (values, packet_bytes, first_data, notices) in [
            (&["crypt:no"][..], 16384, true, 0),
            (&["crypt:no,packsize:16k,nodelay:on,noconndata"], 16384, false, 0),
            (&["packsize:128"], 129, true, 0),
            (&["packsize:1K", "noconndata"], 1024, false, 0),
            (&["packsize:16384", "packsize:16k"], 16384, true, 0),
            (&["crypt:opt"], 16384, true, 1),
            (&["crypt", "nodelay:off", "cork:on,private,acc:tcp:h:1:l:2"], 16384, true, 5),
        ] {
            let (conf, said) = read(values).unwrap();
            let wanted = SoxConf { packet_bytes, first_data, ..SoxConf::default() };
            assert_eq!(conf, wanted, "{values:?}");
            assert_eq!(said.len(), notices, "{said:?}");
        }
    }

    #[test]
    fn congestion_control_by_name() {
        for (value, wanted) in [
            ("congestion:auto", Congestion::Auto),
            ("congestion:system", Congestion::System),
            ("congestion:cubic", Congestion::Named(String::from("cubic"))),
        ] {
            assert_eq!(read(&[value]).unwrap().0.congestion, wanted);
        }
        for value in ["congestion", "congestion:", "congestion:a b", "congestion:sixteen_letters_"]
        {
            assert!(read(&[value]).is_err(), "{value}");
        }
    }

    #[test]
    fn ways_to_move_bulk() {
        for (value, wanted) in
            [("bulk:auto", Bulk::Auto), ("bulk:copy", Bulk::Copy), ("bulk:splice", Bulk::Splice)]
        {
            assert_eq!(read(&[value]).unwrap().0.bulk, wanted);
        }
        for value in ["bulk", "bulk:", "bulk:zero"] {
            let message = read(&[value]).unwrap_err().to_string();
            assert!(message.contains("give bulk:auto"), "{message}");
        }
    }

    #[test]
    fn entrances_while_no_tunnel_is_up() {
        for (values, wanted) in [
            (&["nodelay"][..], WhileDown::Hold),
            (&["down:hold"], WhileDown::Hold),
            (&["down:refuse"], WhileDown::Refuse),
            (&["down:refuse", "nodelay,down:close"], WhileDown::Close),
        ] {
            assert_eq!(read(values).unwrap().0.down, wanted, "{values:?}");
        }
        for value in ["down", "down:", "down:wait"] {
            let message = read(&[value]).unwrap_err().to_string();
            assert!(message.contains("give down:hold, down:refuse or down:close"), "{message}");
        }
    }

    #[test]
    fn flows_of_datagrams() {
        for (values, wanted) in [
            (&["nodelay"][..], crate::limits::UDP_FLOWS),
            (&["udpflows:1"], 1),
            (&["udpflows:16000", "udpflows:16000"], UDP_FLOWS_MAX),
        ] {
            assert_eq!(read(values).unwrap().0.udp_flows, wanted, "{values:?}");
        }
    }

    #[test]
    fn ports_on_request() {
        for (values, wanted) in [
            (&["nodelay"][..], None),
            (&["ports:1024-65535"], Some(1024..=65_535)),
            (&["ports:2121"], Some(2121..=2121)),
            (&["ports:2121", "ports:2121-2121"], Some(2121..=2121)),
        ] {
            assert_eq!(read(values).unwrap().0.request_ports, wanted, "{values:?}");
        }
    }

    #[test]
    fn the_newest_protocol() {
        for (values, newest_protocol) in [
            (&["packsize:1k"][..], 1),
            (&["protocol:0.3"], 0),
            (&["protocol:1"], 1),
            (&["protocol:0.3,protocol:1"], 1),
        ] {
            assert_eq!(read(values).unwrap().0.newest_protocol, newest_protocol, "{values:?}");
        }
    }

    #[test]
    fn faults_name_the_item() {
        for (value, wanted) in [
            ("", "`` is not known"),
            ("cript:no", "did you mean `crypt`?"),
            ("packsiz:16k", "did you mean `packsize`?"),
            ("zebra", "known are crypt"),
            ("packsize", "`` is not a packet size"),
            ("packsize:127", "`127` is not a packet size"),
            ("packsize:16385", "`16385` is not"),
            ("packsize:17k", "`17k` is not"),
            ("packsize:64k", "`64k` is not"),
            ("packsize:+512", "`+512` is not"),
            ("packsize:k", "`k` is not"),
            ("packsize:1k,packsize:2k", "already set to 1024"),
            ("noconndata:off", "takes no value `off`"),
            ("udpflow:9", "did you mean `udpflows`?"),
            ("udpflows", "`` is not a number of UDP flows"),
            ("udpflows:0", "give 1 to 16000"),
            ("udpflows:16001", "`16001` is not"),
            ("udpflows:+9", "`+9` is not"),
            ("udpflows:1k", "`1k` is not"),
            ("udpflows:99999999999999999999", "is not a number"),
            ("udpflows:1,udpflows:2", "already set to 1"),
            ("ports", "`` is not a range of ports"),
            ("ports:1023-2000", "give FIRST-LAST within 1024 to 65535"),
            ("ports:2000-65536", "`2000-65536` is not a range"),
            ("ports:2001-2000", "`2001-2000` is not a range"),
            ("ports:2000-", "`2000-` is not a range"),
            ("ports:-2000", "`-2000` is not a range"),
            ("ports:2000-2001-2002", "is not a range"),
            ("ports:+2000", "is not a range"),
            ("ports:2000-2009,ports:2000", "already set to 2000-2009"),
            ("port:2000", "did you mean `ports`?"),
            ("protocol", "`` is not a protocol of this program"),
            ("protocol:0", "give protocol:1"),
        ] {
            let message = read(&[value]).unwrap_err().to_string();
            assert!(message.contains(wanted), "{value}: {message}");
        }
    }
}
