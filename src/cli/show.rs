//! The plan as text: the output of `--check`.

mod encryption;
mod entrances;

use std::fmt::Write;
use std::time::Duration;

use super::address;
use super::error::{plain, quoted};
use super::exposure;
use super::fence::Fence;
use super::hostlist::HostList;
use super::localnet;
use super::plan::{
    Authorizer, Bind, Bulk, Checked, Congestion, Control, Device, Exit, ExitKind, ExitOptions,
    FlowControl, LineOptions, LinkPlan, Maxima, Parity, Permit, Plan, Proxy, ProxyHeader, Timeouts,
    Transport,
};
use super::portlist::{show_bind, suffix};
use super::secrets::without_secrets;
use super::timeout;

pub use self::encryption::peers;

/// Column where the values begin.
const LABEL_CHARS: usize = 12;

/// The meaning of `TIMEOUT=udp`, with and without a persistent connection.
const UDP_TIME: &str = "without datagrams, then a UDP flow is forgotten";

/// The meaning of `TIMEOUT=resume`.
const RESUME_TIME: &str =
    "for another persistent connection when it broke, then its streams are reset";

/// The plan as text of several lines, the last with a line end.
pub fn plan(plan: &Plan) -> String {
    if let LinkPlan::Relay { binds, server, transport } = &plan.link {
        return relay(plan, binds, server, *transport);
    }
    let mut text = String::new();
    let clear = exposure::of(plan).map(|clear| format!("not encrypted: {}", clear.remedy));
    section(&mut text, "link", link_lines(plan).into_iter().chain(clear));
    if let Some(encryption) = &plan.encryption {
        section(&mut text, "encryption", encryption::lines(encryption, &plan.exits));
    }
    section(&mut text, "entrances", or_none(entrances::all(plan)));
    let exits = plan.exits.iter().enumerate();
    let exits = exits.flat_map(|(index, exit)| exit_lines(index + 1, exit, plan));
    section(&mut text, "exits", or_none(exits.collect()));
    clients(&mut text, plan);
    proxies(&mut text, plan);
    times(&mut text, plan);
    if plan.link != LinkPlan::Loopback {
        protocol(&mut text, plan);
    }
    sockets(&mut text, plan);
    flows(&mut text, plan);
    request_ports(&mut text, plan);
    privileges(&mut text, plan);
    takeover(&mut text, plan);
    access_log(&mut text, plan);
    control(&mut text, plan);
    notices(&mut text, plan);
    text
}

/// The key of this end, as the peer has to be given it, for the end of the plan's text.
pub fn own_key(fingerprint: &str) -> String {
    let mut text = String::new();
    section(&mut text, "own key", [fingerprint.to_owned()]);
    text
}

fn link_lines(plan: &Plan) -> Vec<String> {
    let line = match &plan.link {
        LinkPlan::Listen(binds) => {
            let at: Vec<_> = binds.iter().map(show_bind).collect();
            format!("receptor: accept on {}", at.join(", "))
        }
        LinkPlan::Connect(target) => {
            let to = address::show(Some(&target.host), target.port);
            format!("connector: connect to {to}, again for ever")
        }
        LinkPlan::Device(device) => return device_lines(device, plan.encryption.is_some()),
        LinkPlan::Command(command) => {
            format!("command: run {}, again for ever", quoted(command))
        }
        LinkPlan::Stdio => "standard input and output; ends with them".to_owned(),
        LinkPlan::Loopback => "none: proxies alone".to_owned(),
        LinkPlan::Relay { .. } => "none: a plain relay".to_owned(),
    };
    vec![line]
}

/// All times that have an effect, but for a plain relay.
fn times(text: &mut String, plan: &Plan) {
    let times = &plan.timeouts;
    // Only where some client has to send a request or a header.
    let asks = plan.entrances.iter().any(|entrance| entrance.proxy_header)
        || plan.unix_entrances.iter().any(|entrance| entrance.proxy_header)
        || plan.exits.iter().any(|exit| matches!(exit.way, ExitKind::Proxy(_)));
    let ask = asks.then_some(("ask", times.ask, "for what a client has to say first"));
    let of_link = |(name, ..): &(&str, Option<Duration>, &str)| {
        plan.link != LinkPlan::Loopback || !["acc", "hold", "keepalive"].contains(name)
    };
    let resumes = plan.soxconf.newest_protocol > 0 && plan.link != LinkPlan::Loopback;
    let resume = resumes.then_some(("resume", times.resume, RESUME_TIME));
    section(
        text,
        "times",
        [
            ("acc", times.hello, "for the peer's hello"),
            ("con", times.connect, "for a connect to a server"),
            ("lin", times.linger, "for an answer after one side has ended"),
            ("io", times.io, "without data, then the stream is reset"),
        ]
        .into_iter()
        .chain(ask)
        .chain([
            ("hold", times.hold, "for the persistent connection, then clients are reset"),
            ("keepalive", times.keepalive, "of silence, then the peer is asked"),
            ("drain", times.drain, "for open streams after SIGTERM"),
            ("udp", times.udp, UDP_TIME),
        ])
        .chain(resume)
        .filter(of_link)
        .map(time_line),
    );
}

/// The protocol of the tunnel.
fn protocol(text: &mut String, plan: &Plan) {
    let protocol = match plan.soxconf.newest_protocol {
        0 => "SockMux 0.3",
        _ => "SockMux 1 where the peer offers it too, else 0.3",
    };
    section(text, "protocol", [protocol.to_owned()]);
    let first_data = if plan.soxconf.first_data { "with" } else { "without" };
    let packet_bytes = plan.soxconf.packet_bytes;
    section(
        text,
        "packets",
        [format!("0.3: at most {packet_bytes} bytes, {first_data} first data in CONNECT")],
    );
}

/// The device or devices of the persistent connection.
fn device_lines(device: &Device, is_encrypted: bool) -> Vec<String> {
    match device {
        Device::Pair { input, output } => {
            let [input, output] = [input, output].map(|path| plain(&path.to_string_lossy()));
            vec![format!("devices: input from {input}, output to {output}")]
        }
        Device::Both { path, line } => {
            let path = plain(&path.to_string_lossy());
            vec![format!("device: {path}, input and output"), line_options(line, is_encrypted)]
        }
    }
}

/// As `115200 baud, 8N1, no flow control, checked between two of ours`.
fn line_options(line: &LineOptions, is_encrypted: bool) -> String {
    let LineOptions { baud, data_bits, stop_bits, .. } = line;
    let parity = match line.parity {
        Parity::None => 'N',
        Parity::Even => 'E',
        Parity::Odd => 'O',
    };
    let flow = match line.flow {
        FlowControl::None => "no flow control",
        FlowControl::RtsCts => "flow control by RTS and CTS",
        FlowControl::XonXoff => "flow control by XON and XOFF",
    };
    let checked = match line.checked {
        Checked::Auto if is_encrypted => "always checked",
        Checked::Auto => "checked between two of ours",
        Checked::Never => "never checked",
    };
    format!("if serial: {baud} baud, {data_bits}{parity}{stop_bits}, {flow}, {checked}")
}

/// A plain relay, without the settings of a persistent connection or of the other transport.
fn relay(plan: &Plan, binds: &[Bind], server: &ExitKind, transport: Transport) -> String {
    let mut text = String::new();
    let to = match server {
        ExitKind::SamePort { host, offset, .. } => same_port(host, *offset),
        ExitKind::Server { target, .. } => target.to_string(),
        _ => String::new(),
    };
    section(&mut text, "link", link_lines(plan));
    section(&mut text, "entrances", entrances::of_relay(binds, transport));
    let server = [to + suffix(transport)].into_iter();
    section(&mut text, "server", server.chain(permitted(plan, transport.relay_word())));
    clients(&mut text, plan);
    let times = &plan.timeouts;
    match transport {
        Transport::Tcp => {
            section(
                &mut text,
                "times",
                [
                    ("con", times.connect, "for a connect to the server"),
                    ("io", times.io, "without data, then both connections are reset"),
                    ("drain", times.drain, "for open connections after SIGTERM"),
                ]
                .map(time_line),
            );
            sockets(&mut text, plan);
        }
        Transport::Udp => {
            let drain = ("drain", times.drain, "for talking flows after SIGTERM");
            section(&mut text, "times", [("udp", times.udp, UDP_TIME), drain].map(time_line));
            flows(&mut text, plan);
        }
    }
    privileges(&mut text, plan);
    takeover(&mut text, plan);
    access_log(&mut text, plan);
    control(&mut text, plan);
    notices(&mut text, plan);
    text
}

/// Who may connect or is served, and limits.
fn clients(text: &mut String, plan: &Plan) {
    let default = "this machine and its networks (.localnet, as RELIABLE= is not given)";
    let of_peer = "of the peer's streams: everybody";
    let takes_streams = !plan.exits.is_empty() && plan.link != LinkPlan::Loopback;
    let mut lines = match (&plan.reliable, plan.who_may_connect()) {
        (Some(list), _) => vec![who(Some(list))],
        (None, Some(_)) => vec![default.to_owned()],
        (None, None) => Vec::new(),
    };
    if !lines.is_empty() && plan.means_localnet() {
        lines.push(format!("   .localnet is now {}", localnet::shown()));
    }
    lines.extend(plan.reliable.iter().flat_map(name_lines));
    if plan.reliable.is_none() && takes_streams {
        lines.push(of_peer.to_owned());
    }
    lines.extend(maxima_lines(&plan.maxima));
    section(text, "clients", lines);
}

fn maxima_lines(maxima: &Maxima) -> impl Iterator<Item = String> + use<> {
    let Maxima { per_client, together, services } = *maxima;
    let of_each = per_client.map(|count| format!("at most {count} streams of each at once"));
    let of_all = together.map(|count| format!("at most {count} streams of all at once"));
    let until = services.map(|count| format!("{count} are served, then the process ends"));
    of_each.into_iter().chain(of_all).chain(until)
}

/// The clients that a list admits.
fn who(list: Option<&HostList>) -> String {
    match list {
        None => "everybody".to_owned(),
        Some(list) if list.permits_everybody() => "everybody".to_owned(),
        Some(list) => plain_long(&list.to_string()),
    }
}

/// A line for each name of a list that was looked up.
fn name_lines(list: &HostList) -> impl Iterator<Item = String> {
    list.names().map(|(name, addresses)| {
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        format!("   {name} is now {}", addresses.join(", "))
    })
}

fn time_line((name, time, what): (&str, Option<Duration>, &str)) -> String {
    format!("{name:<10}{:<10}{what}", timeout::show(time))
}

/// Settings of all TCP sockets.
fn sockets(text: &mut String, plan: &Plan) {
    let congestion = match &plan.soxconf.congestion {
        Congestion::Auto => "auto: a plain one on short paths, the system's on long ones",
        Congestion::System => "system: as the system makes each socket",
        Congestion::Named(name) => name,
    };
    section(text, "congestion", [congestion.to_owned()]);
    let bulk = match plan.soxconf.bulk {
        Bulk::Auto => "auto: spliced where that pays, else copied",
        Bulk::Copy => "copy: always copied",
        Bulk::Splice => "splice: spliced wherever it can be",
    };
    section(text, "bulk", [bulk.to_owned()]);
}

/// Settings of all UDP flows.
fn flows(text: &mut String, plan: &Plan) {
    let count = plan.soxconf.udp_flows;
    let idle = "the one silent for longest makes room for a new one";
    section(text, "udp flows", [format!("at most {count}; {idle}")]);
}

/// The ports of remote forwards, if they are set.
fn request_ports(text: &mut String, plan: &Plan) {
    if let Some(ports) = &plan.soxconf.request_ports {
        let (first, last) = (ports.start(), ports.end());
        section(text, "ports", [format!("on request: {first}-{last}")]);
    }
}

/// What the process gives up.
fn privileges(text: &mut String, plan: &Plan) {
    let user = plan.privileges.user.as_ref();
    let user =
        user.map(|user| format!("user {}, once the ports are open", plain(&user.to_string())));
    section(text, "privileges", user.into_iter().chain([Fence::of(plan).to_string()]));
}

/// How the next process takes over.
/// Only what the command line says: the environment may be another one then.
fn control(text: &mut String, plan: &Plan) {
    let line = match &plan.control {
        Control::At(path) => Some(format!("at {}", plain_long(&path.to_string_lossy()))),
        Control::No => Some("nowhere".to_owned()),
        Control::Auto | Control::OfService(_) | Control::OfUser(_) => None,
    };
    section(text, "control", line);
}

fn takeover(text: &mut String, plan: &Plan) {
    let path = plan.takeover.as_ref().map(|path| plain_long(&path.to_string_lossy()));
    let line = path.map(|path| {
        format!("by {path}: from the process that listens there, and the next one from this")
    });
    section(text, "takeover", line);
}

/// Where the access log is written.
fn access_log(text: &mut String, plan: &Plan) {
    let line = plan.access_log.as_ref().map(|log| match &log.file {
        Some(file) => {
            let file = plain_long(&file.to_string_lossy());
            format!("{file}, appended to, and opened anew on SIGHUP")
        }
        None => String::from("standard output"),
    });
    section(text, "access log", line);
}

fn notices(text: &mut String, plan: &Plan) {
    if !plan.notices.is_empty() {
        section(text, "notices", plan.notices.iter().map(|notice| plain_long(notice)));
    }
}

/// A label and its lines, the first beside it, the others below.
fn section(text: &mut String, label: &str, lines: impl IntoIterator<Item = String>) {
    for (index, line) in lines.into_iter().enumerate() {
        let label = if index == 0 { label } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{label:<LABEL_CHARS$}{line}");
    }
}

fn or_none(lines: Vec<String>) -> Vec<String> {
    if lines.is_empty() { vec!["none".to_owned()] } else { lines }
}

/// An exit, a line for each name that was looked up for it, and its own options.
fn exit_lines(number: usize, exit: &Exit, plan: &Plan) -> Vec<String> {
    let Exit { protocol, way, proxy_header, clients, options, .. } = exit;
    let who = who(clients.as_ref());
    let to = match way {
        ExitKind::Server { target, transport } => {
            format!("{protocol}://{target}{}", suffix(*transport))
        }
        ExitKind::SamePort { host, offset, transport } => {
            format!("{protocol}://{}{}", same_port(host, *offset), suffix(*transport))
        }
        ExitKind::Ftp(target) => format!("{protocol}://{target}, data connections too"),
        ExitKind::Proxy(_) => format!("{protocol} proxy: where each client asks to go"),
        ExitKind::Unix(path) => plain_long(&format!("unix:{}", path.display())),
        ExitKind::Command(command) => plain_long(&format!("exec:{command}")),
    };
    let header = match proxy_header {
        None => "",
        Some(ProxyHeader::V1) => ", told by a PROXY header, version 1",
        Some(ProxyHeader::V2) => ", told by a PROXY header, version 2",
    };
    let peers = match options.peers.is_empty() {
        true => String::new(),
        false => format!(" by peer {}", options.peers.join(", ")),
    };
    let mut lines = vec![format!("{number}. {to}  for {who}{peers}{header}")];
    lines.extend(clients.iter().flat_map(name_lines));
    if !matches!(way, ExitKind::Proxy(_)) {
        lines.extend(permitted(plan, protocol));
    }
    lines.extend(encryption::name_for_peers(exit, plan));
    lines.extend(option_lines(options, &plan.timeouts));
    lines
}

fn same_port(host: &str, offset: i32) -> String {
    let port = match offset {
        0 => "the entrance's port".to_owned(),
        offset => format!("the entrance's port {offset:+}"),
    };
    address::show(Some(host), port)
}

/// The clients that `PERMIT=` admits at an exit that is not a proxy.
fn permitted<'p>(plan: &'p Plan, protocol: &'p str) -> impl Iterator<Item = String> + 'p {
    let about = plan.permits.iter().filter(|permit| permit.is_of_word(protocol));
    about.map(|permit| format!("   PERMIT= lets in {}", who(Some(&permit.sources))))
}

/// The options of an exit, below it.
fn option_lines(options: &ExitOptions, process: &Timeouts) -> Vec<String> {
    let ExitOptions { permits, reliable, authorizers, maxima, timeouts, peers: _ } = options;
    let mut lines: Vec<_> =
        reliable.iter().map(|list| format!("   only {}", who(Some(list)))).collect();
    lines.extend(reliable.iter().flat_map(name_lines));
    lines.extend(maxima_lines(maxima).map(|line| format!("   {line}")));
    lines.extend(authorizers.iter().map(|list| format!("   users {}", users(list))));
    lines.extend(permits.iter().map(|permit| format!("   permits {}", permit_line(permit))));
    let own = timeouts.as_ref().unwrap_or(process);
    let times = [
        ("con", own.connect, process.connect),
        ("lin", own.linger, process.linger),
        ("io", own.io, process.io),
        ("ask", own.ask, process.ask),
    ];
    let times = times.iter().filter(|(_, own, process)| own != process);
    let times: Vec<_> =
        times.map(|(what, own, _)| format!("{what} {}", timeout::show(*own))).collect();
    if !times.is_empty() {
        lines.push(format!("   times {}", times.join(", ")));
    }
    lines
}

/// The destinations of proxies, if there are any; and the callbacks to clients of the entrances here, by
/// FTP servers behind the peer.
fn proxies(text: &mut String, plan: &Plan) {
    let calls =
        !plan.entrances.is_empty() && plan.permits.iter().any(|permit| permit.is_of(Proxy::Ftp));
    if !calls && !plan.exits.iter().any(|exit| matches!(exit.way, ExitKind::Proxy(_))) {
        return;
    }
    let mut lines: Vec<_> = plan.permits.iter().map(permit_line).collect();
    if lines.is_empty() {
        lines.push("every proxy to *  for *".to_owned());
    }
    lines.push(
        "loopback, link-local, metadata of clouds and our own ports only where a list names them; \
         never where peers are accepted"
            .to_owned(),
    );
    section(text, "permits", lines);
    section(text, "users", plan.authorizers.iter().map(users));
}

/// Names, never passwords.
fn users(authorizer: &Authorizer) -> String {
    let names: Vec<_> = authorizer.users.iter().map(|user| plain(&user.name)).collect();
    let proxies: Vec<_> = authorizer.protocols.iter().map(|proxy| proxy.word()).collect();
    format!("{}  of {}", names.join(", "), proxies.join(", "))
}

fn permit_line(permit: &Permit) -> String {
    let Permit { protocols, relays, destinations, sources, .. } = permit;
    let protocols = match protocols {
        None => "every proxy".to_owned(),
        Some(list) => {
            let proxies = list.iter().map(|proxy| proxy.word());
            proxies.chain(relays.iter().map(String::as_str)).collect::<Vec<_>>().join(", ")
        }
    };
    let (to, who) = (destinations.to_string(), sources.to_string());
    format!("{protocols} to {}  for {}", plain_long(&to), plain_long(&who))
}

/// Text fit for a terminal but not cut, piece by piece: a plan has to be shown whole.
fn plain_long(text: &str) -> String {
    without_secrets(text).split_inclusive(',').map(plain).collect()
}
